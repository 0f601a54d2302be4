"""What an app that is mounted lets in."""

from __future__ import annotations

import io
from typing import Any

import pytest
from twisted.internet.task import Clock

from deferpost import App, Call, DeferPost
from deferpost.errors import ClientQuota
from deferpost.model import CallHead
from deferpost.testing import ManualPool
from deferpost.web.post import PostContext

_HEAD = CallHead("id", "/", "POST", "/", b"", (), ("192.0.2.1", 1), None)


def nothing(call: Call) -> None:
    """Do nothing."""


class _Reactor(Clock):
    """One that never ends."""

    def addSystemEventTrigger(self, *args: object) -> None:
        """See :class:`IReactorCore`."""


def _context(resource: Any) -> PostContext:
    post = resource if isinstance(resource, DeferPost) else resource.early_resource([b"a"])
    context: PostContext = post._context
    return context


def _takes(context: PostContext) -> int:
    """How many calls of one client are let in."""
    dispatcher = context.dispatcher()
    for count in range(10):
        try:
            dispatcher.submit(dispatcher.statuses()[0].name, _HEAD, io.BytesIO())
        except ClientQuota:
            return count
    return 10


@pytest.mark.parametrize(("most", "taken"), [(0, 10), (3, 3)])
def test_bound_of_a_client(most: int, taken: int) -> None:
    """A mounted app, and a mounted handler, bound the calls of a client if they are told to."""
    app = App()
    app.post("/a", pool=ManualPool())(nothing)
    mounted = app.resource(reactor=_Reactor(), max_jobs_per_client=most)
    alone = DeferPost(nothing, pool=ManualPool(), reactor=_Reactor(), max_jobs_per_client=most)
    assert [_takes(_context(mounted)), _takes(_context(alone))] == [taken, taken]


def test_limits_of_calls() -> None:
    """A mounted app has limits for waiting, and for waiting and running, if it is told them."""
    app = App()
    app.post("/a")(nothing)
    context = _context(app.resource(reactor=_Reactor(), queue_timeout="5s", total_timeout=30))
    assert (context.queue_timeout, context.total_timeout) == (5.0, 30.0)
    context = _context(app.resource(reactor=_Reactor()))
    assert (context.queue_timeout, context.total_timeout) == (None, None)
