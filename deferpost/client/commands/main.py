"""Runs a command of the client, from its command line to its exit status."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from deferpost.client.commands.endings import Ending, ending_of
from deferpost.client.commands.line import read_line
from deferpost.client.errors import ClientError, Problem

__all__ = ["run_command"]

#: Seconds without a sign of life after which a connection is taken to be lost.
_SILENCE_SECONDS = 60.0

_PIECE_BYTES = 256 * 1024


def run_command(words: Sequence[str]) -> int:
    """Do what a command line says.

    :param words: from the name of the command on.
    :returns: the exit status.
    :raises SystemExit: the command line is wrong, or asks for help.
    """
    given = read_line(words, os.environ)
    try:
        body = _opened(given.file) if given.command == "post" else None
    except OSError as error:
        print(f"deferpost: cannot read {given.file}: {error.strerror or error}", file=sys.stderr)
        return Ending.USAGE
    except KeyboardInterrupt:
        return Ending.INTERRUPTED
    return _run(given, body)


def _opened(path: str) -> BinaryIO:
    """The file to be posted, as one that can be sent more than once.

    :raises OSError: it cannot be read.
    """
    # Nothing is closed here: the process ends soon after the file is sent.
    source = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
    if source.seekable():
        return source
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115
    while piece := source.read(_PIECE_BYTES):
        copy.write(piece)
    copy.seek(0)
    return copy  # type: ignore[no-any-return]


def _run(given: Namespace, body: BinaryIO | None) -> int:
    # All this takes a moment to import, which help and mistakes do without.
    from twisted.internet.defer import CancelledError

    from deferpost.client.client import Client
    from deferpost.client.commands.acts import ACTS, Session
    from deferpost.client.commands.running import Stopped, run
    from deferpost.client.commands.screen import Screen

    async def act(reactor: Any, stopped: Stopped) -> int:
        screen = Screen(sys.stderr, reactor, os.environ, quiet=given.quiet)

        def notice(error: ClientError, seconds: float) -> None:
            screen.say(f"{error}; trying again in {seconds:.1f} s")

        parts = urlsplit(given.url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        try:
            client = Client(
                f"{parts.scheme}://{parts.netloc}",
                token=given.token,
                reactor=reactor,
                timeout=_SILENCE_SECONDS,
                notice=notice,
            )
            session = Session(given, reactor, screen, client, path, body)
        except ValueError as error:
            screen.tell(str(error))
            return Ending.USAGE
        try:
            return await ACTS[given.command](session)
        except CancelledError:
            screen.clear()
            _say_stopped(screen, session, stopped.by)
            if stopped.by == 0:
                return Ending.UNREACHABLE
            return Ending.TERMINATED if stopped.by == signal.SIGTERM else Ending.INTERRUPTED
        except ClientError as error:
            screen.clear()
            return _failed(session, error)
        except ValueError as error:
            screen.clear()
            screen.tell(str(error))
            return Ending.USAGE
        except BrokenPipeError:
            screen.clear()
            # What is still kept for standard output is not to be tried at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Ending.BROKEN_PIPE
        except OSError as error:
            screen.clear()
            screen.tell(f"cannot write the output: {error.strerror or error}")
            return Ending.FAILED

    return run(act, given.timeout)


def _say_stopped(screen: Any, session: Any, by: int | None) -> None:
    what = "the time is over" if by == 0 else "interrupted"
    if session.job is None:
        screen.tell(what)
    elif session.given.command == "cancel":
        screen.tell(f"{what}; the job may not have been told")
    else:
        url = shlex.quote(session.job.url)
        screen.tell(f"{what}; the job goes on")
        screen.say(f"to get its result: deferpost result {url}")
        screen.say(f"to cancel it: deferpost cancel {url}")


def _failed(session: Any, error: ClientError) -> int:
    """Tell an error, and return the exit status."""
    from deferpost.client.commands.acts import print_json

    document = session.document
    state = None if document is None else document.state
    if isinstance(error, Problem) and not error.status:
        message = ": ".join(filter(None, (error.title, error.detail)))
        message += f" ({error.reason})" if error.reason else ""
    elif state == "failed":
        message = f"the job failed: {error}"
    else:
        message = str(error)
    session.screen.tell(message)
    if session.given.json and session.given.command in ("post", "result"):
        problem: dict[str, Any] = {"detail": str(error)}
        if isinstance(error, Problem):
            problem = error.members or {
                "status": error.status,
                "title": error.title,
                "detail": error.detail,
            }
        print_json(
            {
                "url": None if session.job is None else session.job.url,
                "job": None if document is None else document.members,
                "answer": None,
                "problem": problem,
            }
        )
    return ending_of(error, state)
