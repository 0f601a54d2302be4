"""A site with limits and a gate of one's own, as a program that a :class:`Daemon` can be.

The daemon has no setting for some of the bounds, nor for the gate.  Its log says where it listens
as that of a daemon does.  Run as ``limited.py --listen=ENDPOINT NAME=VALUE ... module:app``: the
names are those of :class:`deferpost.wire.limits.Limits`, or ``gate`` for a function of the module,
or ``file`` for a file that is to be had at ``/file``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["LIMITED"]

#: The command, before its options.
LIMITED = (sys.executable, "-P", os.path.abspath(__file__))


def _main(arguments: Sequence[str]) -> None:
    import time

    import attrs
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString
    from twisted.python import log
    from twisted.web.resource import IResource
    from twisted.web.static import File

    from deferpost.app import DEFAULT_PLANS
    from deferpost.loading import load_app
    from deferpost.service import Runtime
    from deferpost.web.health import Readyz
    from deferpost.web.tree import AppResource
    from deferpost.wire.limits import Limits
    from deferpost.wire.site import DeferPostSite

    log.startLogging(sys.stdout, setStdout=False)
    *options, name = arguments
    endpoint, gate = "", ""
    limits: dict[str, Any] = {}
    others: list[tuple[bytes, IResource]] = []
    for option in options:
        key, _, value = option.partition("=")
        if key == "--listen":
            endpoint = value
        elif key == "gate":
            gate = value
        elif key == "file":
            others.append((b"file", File(value)))
        else:
            limits[key] = float(value) if "." in value else int(value)
    app = load_app(name)
    runtime = Runtime(
        app.routes,
        {**DEFAULT_PLANS, **app.pools},
        reactor=reactor,
        timeout=60.0,
        max_body=2**30,
        now=time.monotonic,
    )
    others.append((b"readyz", Readyz(lambda: runtime.accepting, runtime.statuses)))
    context = runtime.context
    if gate:
        module: Any = sys.modules[name.partition(":")[0]]
        context = attrs.evolve(context, gate=getattr(module, gate))
    root = AppResource(app.routes, context, others)
    site = DeferPostSite(root, limits=Limits(**limits), parsePOSTFormSubmission=False)
    running: Any = reactor
    running.callWhenRunning(runtime.start)
    running.addSystemEventTrigger("before", "shutdown", _stop, runtime)
    serverFromString(reactor, endpoint).listen(site).addErrback(log.err)
    running.run()


def _stop(runtime: Any) -> Any:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(runtime.shut_down(0.2))


if __name__ == "__main__":
    _main(sys.argv[1:])
