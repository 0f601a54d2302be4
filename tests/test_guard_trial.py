"""The guard of Requests, and a real site under its eyes; and waiting."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from deferpost import App, Call, ProcessPool
from deferpost.testing import OffReactorThread, ReactorOnlyRequest
from deferpost.testing.handlers import echo as findable
from tests.waiting import until


def echo(call: Call) -> bytes:
    """The body."""
    return call.body.read()


def count(call: Call) -> Iterator[str]:
    """A stream of three chunks."""
    for n in range(3):
        yield f"{n}\n"


def fail(call: Call) -> None:
    """An error."""
    raise LookupError("the handler's own words")


class GuardTests(TestCase):
    """No Request is touched off the reactor thread, and the guard would see it."""

    async def _serve(self, resource: Resource, factory: type[Request]) -> str:
        site = Site(resource, requestFactory=factory)
        endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(site)
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    async def _post(self, url: str, body: bytes) -> tuple[int, bytes]:
        response = await HTTPClient(Agent(reactor)).post(url, data=body)
        return response.code, await response.content()

    async def test_nothing_touches_a_request(self) -> None:
        """Handlers in threads, processes and on the reactor run, and no Request is touched."""

        class Guarded(ReactorOnlyRequest):
            pass

        async def coroutine(call: Call) -> dict[str, str]:
            return {"body": call.body.read().decode()}

        def large(call: Call) -> bytes:
            return call.body.read() * 10

        app = App()
        for handler in (echo, count, fail, large, coroutine):
            app.post(f"/{handler.__name__}")(handler)
        app.post("/process", pool=ProcessPool(size=1))(findable)
        stoppers: list[Callable[[], Deferred[None]]] = []

        class Mounting:
            """The reactor, which hands over what was to happen at its end."""

            def addSystemEventTrigger(self, phase: str, event: str, stop: Any) -> None:
                stoppers.append(stop)

            def __getattr__(self, name: str) -> Any:
                return getattr(reactor, name)

        root = Resource()
        root.putChild(b"app", app.resource(reactor=Mounting()))
        url = await self._serve(root, Guarded)
        expected = {
            "echo": (200, b"body"),
            "count": (200, b"0\n1\n2\n"),
            "large": (200, b"body" * 10),
            "process": (200, b"body"),
            "coroutine": (200, b'{"body":"body"}'),
        }
        for path, answer in expected.items():
            self.assertEqual(await self._post(f"{url}/app/{path}", b"body"), answer)
        self.assertEqual((await self._post(f"{url}/app/fail", b"body"))[0], 500)
        self.assertEqual(
            await self._post(f"{url}/app/large", b"x" * 200_000), (200, b"x" * 2_000_000)
        )
        for stop in stoppers:
            await stop()
        self.assertEqual(Guarded.touches, [])

    async def test_it_is_seen(self) -> None:
        """A thread that touches a Request is refused, and noted by name and place."""

        class Guarded(ReactorOnlyRequest):
            pass

        raised: list[Exception] = []

        class Careless(Resource):
            isLeaf = True

            def render_POST(self, request: Any) -> bytes:
                def touch() -> None:
                    for act in (
                        lambda: request.uri,
                        lambda: setattr(request, "code", 200),
                        lambda: delattr(request, "code"),
                    ):
                        try:
                            act()
                        except OffReactorThread as error:
                            raised.append(error)

                thread = threading.Thread(target=touch, name="careless")
                thread.start()
                thread.join()
                return b"done"

        url = await self._serve(Careless(), Guarded)
        self.assertEqual(await self._post(url, b"x"), (200, b"done"))
        self.assertEqual(len(raised), 3)
        acts = [re.sub(" at .*test_guard_trial.py:.*", "", touch) for touch in Guarded.touches]
        self.assertEqual(
            acts,
            [
                "thread careless wants to read uri of a Request",
                "thread careless wants to set code of a Request",
                "thread careless wants to delete code of a Request",
            ],
        )
        self.assertEqual(ReactorOnlyRequest.touches, [])


class WaitingTests(TestCase):
    """Waiting for a condition."""

    async def test_until(self) -> None:
        """It returns when the condition is true, and says what was not in time."""
        looks = iter((False, 0, "true"))
        await until(lambda: next(looks))
        self.assertEqual(list(looks), [])
        with self.assertRaisesRegex(AssertionError, "a miracle: not within 0.02 s"):
            await until(lambda: False, "a miracle", 0.02)
