"""POST a file to a daemon that wants its calls signed, with treq.

Run it against a daemon that was started with ``--hmac-keys``::

    SIGNING_SECRET=… python -m examples.signed_post http://127.0.0.1:8080/sha256 README.rst ci

The last argument is the id of the key, and the variable has its secret as the daemon's file has it.
It prints what the daemon answers, and its status is 0 if that was a success.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from deferpost import sign_post


async def post(reactor: Any, url: str, body: bytes, key: str, secret: str) -> tuple[int, bytes]:
    """POST a body with a signature.

    :returns: the status and the body of the response.
    """
    kind = {"Content-Type": "application/octet-stream"}
    signature = sign_post(url, body, key=key, secret=secret, headers=kind)
    headers = Headers({name: [value] for name, value in {**kind, **signature}.items()})
    response = await HTTPClient(Agent(reactor)).post(url, data=body, headers=headers)
    return response.code, await response.content()


async def main(reactor: Any, url: str, path: str, key: str) -> None:
    """Do what the command line says."""
    secret = os.environ["SIGNING_SECRET"]
    status, answer = await post(reactor, url, Path(path).read_bytes(), key, secret)
    print(status, answer.decode())
    if status >= 400:
        raise SystemExit(1)


if __name__ == "__main__":
    react(lambda reactor, *args: Deferred.fromCoroutine(main(reactor, *args)), sys.argv[1:])
