"""Running one call: the handler, its reply and its errors."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from deferpost.errors import (
    BadRequest,
    BodyBroken,
    Canceled,
    DeclarationError,
    HandlerFailed,
    HTTPError,
)
from deferpost.handlers.call import Call
from deferpost.handlers.running import Handlers, bind
from deferpost.model import Answer, HandlerRef, Reply, Route, Work
from tests.handlers import FakeControl, call_head

MULTIPART = ((b"Content-Type", b"multipart/form-data; boundary=cut"),)
UPLOAD = (
    b'--cut\r\nContent-Disposition: form-data; name="doc"; filename="a.txt"\r\n\r\n'
    b"uploaded\r\n--cut--\r\n"
)


def work_of(handler: Any) -> Work:
    """The work of a thread with one route."""
    return Handlers([Route(path="/rst", handler=handler, pool="thread")]).work()


def run(handler: Any, body: bytes = b"", **head: Any) -> Answer:
    """What becomes of one call to a handler."""
    return work_of(handler)(call_head(**head), io.BytesIO(body), FakeControl())


def fail(message: str = "no") -> NoReturn:
    """Something of the user's that a handler calls."""
    raise ValueError(message)


def failing(call: Call) -> bytes:
    fail()


def failing_stream(call: Call) -> Iterator[bytes]:
    yield b"a"
    fail()


def failing_stream_at_once(call: Call) -> Iterator[bytes]:
    fail()
    yield b"a"


def wrong(call: Call) -> object:
    return object()


class Counting:
    """Counts how often it was built."""

    built = 0

    def __init__(self) -> None:
        type(self).built += 1

    def __call__(self, call: Call) -> str:
        return f"{self.built} {call.path}"


@pytest.fixture(autouse=True)
def _count_anew() -> None:
    Counting.built = 0


def test_reply() -> None:
    """A handler is given the call, and what it returns is encoded."""

    def handler(call: Call) -> Reply:
        return Reply({"path": call.path, "size": len(call.body.read())}, 201)

    answer = run(handler, b"body")
    assert answer.status == 201
    assert answer.body == b'{"path":"/api/rst","size":4}'


def test_each_route_has_its_handler() -> None:
    """The handler of a call is the one of its route."""
    routes = [
        Route(path=path, handler=lambda call, path=path: path, pool="thread")
        for path in ("/a", "/b")
    ]
    work = Handlers(routes).work()
    for path in ("/a", "/b"):
        answer = work(call_head(route=path), io.BytesIO(), FakeControl())
        assert answer.body == path.encode()


def test_class_is_built_at_the_first_call() -> None:
    """A class is built when it is first needed, and then never again in that worker."""
    work = work_of(Counting)
    assert Counting.built == 0
    for _ in range(3):
        assert work(call_head(), io.BytesIO(), FakeControl()).body == b"1 /api/rst"
    assert Counting.built == 1


def test_class_is_built_for_each_worker() -> None:
    """Workers do not share an instance: handlers need no locks."""
    handlers = Handlers([Route(path="/rst", handler=Counting, pool="thread")])
    for _ in range(2):
        handlers.work()(call_head(), io.BytesIO(), FakeControl())
    assert Counting.built == 2


def test_class_that_cannot_be_built_is_tried_again() -> None:
    """A class that fails to be built fails that call; the next call tries again."""
    attempts = []

    class Loading:
        """Loads something large, which works the second time."""

        def __init__(self) -> None:
            attempts.append(1)
            if len(attempts) == 1:
                fail("no model")

        def __call__(self, call: Call) -> str:
            return "loaded"

    work = work_of(Loading)
    with pytest.raises(HandlerFailed, match="ValueError: no model"):
        work(call_head(), io.BytesIO(), FakeControl())
    assert work(call_head(), io.BytesIO(), FakeControl()).body == b"loaded"


@pytest.mark.parametrize("error", [HTTPError(409, "taken"), BadRequest("no", line=1)])
def test_http_error_passes(error: HTTPError) -> None:
    """An HTTPError is the answer, and no failure."""

    def handler(call: Call) -> NoReturn:
        raise error

    with pytest.raises(HTTPError) as caught:
        run(handler)
    assert caught.value is error


@pytest.mark.parametrize("kind", [Canceled, SystemExit, KeyboardInterrupt])
def test_endings_pass(kind: type[BaseException]) -> None:
    """What is to end the handler, or its process, ends it."""

    def handler(call: Call) -> NoReturn:
        raise kind

    with pytest.raises(kind):
        run(handler)


def broken(call: Call) -> NoReturn:
    raise BodyBroken


def broken_in_other_words(call: Call) -> NoReturn:
    try:
        broken(call)
    except OSError as error:
        raise ValueError("this is no image") from error


def broken_in_the_middle(call: Call) -> Iterator[bytes]:
    yield b"a"
    broken_in_other_words(call)


def test_broken_body_passes() -> None:
    """That the body broke is not the handler's failure, in whose words it says so ever."""
    for handler in (broken, broken_in_other_words):
        with pytest.raises(BodyBroken):
            run(handler)
    body = run(broken_in_the_middle).body
    assert next(body) == b"a"
    with pytest.raises(BodyBroken):
        next(body)


def test_failure_beside_a_broken_body() -> None:
    """What a handler does wrong when its body is broken is its own failure."""

    def handler(call: Call) -> NoReturn:
        try:
            broken(call)
        finally:
            fail("a defect")

    assert failure_of(lambda: run(handler)).endswith("ValueError: a defect\n")


def test_causes_in_a_circle() -> None:
    """Errors that are each other's cause are a failure like any other."""

    def handler(call: Call) -> NoReturn:
        one, two = ValueError("one"), ValueError("two")
        one.__cause__, two.__cause__ = two, one
        raise one

    assert "ValueError: one" in failure_of(lambda: run(handler))


def frames_of(text: str) -> list[str]:
    """The names of the functions in a traceback."""
    return [line.rpartition(" in ")[2] for line in text.splitlines() if line.startswith("  File ")]


def failure_of(act: Callable[[], object]) -> str:
    """The traceback of what fails."""
    with pytest.raises(HandlerFailed) as caught:
        act()
    assert caught.value.__suppress_context__
    return caught.value.traceback


def test_traceback_begins_with_the_handler() -> None:
    """The traceback of a handler shows its author what they wrote, and nothing around it."""
    text = failure_of(lambda: run(failing))
    assert text.startswith("Traceback (most recent call last):\n")
    assert frames_of(text) == ["failing", "fail"]
    assert text.endswith("ValueError: no\n")


def test_traceback_of_a_class() -> None:
    """So does the traceback of a class, built or called."""

    class Failing:
        """Fails when it is called."""

        def __call__(self, call: Call) -> NoReturn:
            fail()

    class Unbuildable(Failing):
        """Fails before."""

        def __init__(self) -> None:
            fail()

    assert frames_of(failure_of(lambda: run(Failing))) == ["__call__", "fail"]
    assert frames_of(failure_of(lambda: run(Unbuildable))) == ["__init__", "fail"]


def test_traceback_of_a_stream() -> None:
    """So does the traceback of a generator, whenever it fails."""
    assert frames_of(failure_of(lambda: run(failing_stream_at_once))) == [
        "failing_stream_at_once",
        "fail",
    ]
    body = run(failing_stream).body
    assert next(body) == b"a"
    assert frames_of(failure_of(lambda: next(body))) == ["failing_stream", "fail"]


def test_traceback_without_the_handler() -> None:
    """Where no line of the handler is to blame, the traceback still says what is wrong."""
    text = failure_of(lambda: run(wrong))
    assert frames_of(text)
    assert text.endswith("neither bytes, text, JSON, a file, a path, an iterator nor a Reply\n")


def test_traceback_is_text() -> None:
    """A message with the name of a file that is no UTF-8 can be sent and logged."""

    def handler(call: Call) -> NoReturn:
        fail("no such file: caf\udce9")

    text = failure_of(lambda: run(handler))
    assert text.encode().endswith(b"no such file: caf\\udce9\n")


def test_traceback_shows_the_cause() -> None:
    """The cause of an error is shown with it."""

    def handler(call: Call) -> NoReturn:
        try:
            fail("cause")
        except ValueError as error:
            raise RuntimeError("effect") from error

    text = failure_of(lambda: run(handler))
    assert frames_of(text) == ["handler", "fail", "handler"]
    assert "ValueError: cause" in text


def test_unknown_route() -> None:
    """A call that came to the wrong pool fails by itself."""
    with pytest.raises(HandlerFailed, match="KeyError: '/other'"):
        work_of(failing)(call_head(route="/other"), io.BytesIO(), FakeControl())


# What a call has open


class Kept:
    """A handler that keeps the file that was uploaded."""

    def __init__(self, then: Callable[[Call], Any]) -> None:
        self.file: Any = None
        self._then = then

    def __call__(self, call: Call) -> Any:
        self.file = call.form().file("doc").file
        return self._then(call)


def upload(then: Callable[[Call], Any]) -> tuple[Kept, Callable[[], Answer]]:
    """A handler that reads a form first, and a call to it."""
    kept = Kept(then)
    return kept, lambda: run(kept, UPLOAD, headers=MULTIPART)


def test_form_is_released() -> None:
    """Uploaded files are gone when the handler has returned."""
    kept, call = upload(lambda call: "done")
    call()
    assert kept.file.closed


@pytest.mark.parametrize("error", [ValueError("no"), HTTPError(400), Canceled(), SystemExit()])
def test_form_is_released_after_an_error(error: BaseException) -> None:
    """Uploaded files are gone when the handler has failed, however it has."""

    def then(call: Call) -> NoReturn:
        raise error

    kept, call = upload(then)
    with pytest.raises(BaseException, match=r".*"):
        call()
    assert kept.file.closed


def test_form_lasts_as_long_as_the_stream() -> None:
    """A generator can read an upload while it streams; the upload is gone at its end."""

    def then(call: Call) -> Iterator[bytes]:
        yield b"first "
        yield call.form().file("doc").file.read()

    kept, call = upload(then)
    body = call().body
    assert not kept.file.closed
    assert b"".join(body) == b"first uploaded"
    assert kept.file.closed


@pytest.mark.parametrize(
    ("error", "raised"),
    [(ValueError("no"), HandlerFailed), (HTTPError(400), HTTPError), (Canceled(), Canceled)],
)
def test_form_is_released_when_the_stream_breaks(
    error: BaseException, raised: type[BaseException]
) -> None:
    """It is gone when the generator fails in the middle, too."""

    def then(call: Call) -> Iterator[bytes]:
        yield b"first"
        raise error

    kept, call = upload(then)
    body = call().body
    next(body)
    with pytest.raises(raised):
        next(body)
    assert kept.file.closed


def test_form_is_released_when_the_stream_is_closed() -> None:
    """It is gone when nobody reads the stream any more."""
    kept, call = upload(lambda call: iter([b"a", b"b"]))
    body = call().body
    next(body)
    body.close()
    assert kept.file.closed


def test_upload_can_be_the_reply() -> None:
    """A handler can return the very file that was uploaded."""
    answer = run(lambda call: call.form().file("doc").file, UPLOAD, headers=MULTIPART)
    with answer.body as file:
        assert file.read(answer.length) == b"uploaded"


def test_body_can_be_the_reply() -> None:
    """A handler can return the body that it got, large or small, which its worker then closes."""
    assert run(lambda call: call.body, b"small").body == b"small"
    with tempfile.TemporaryFile(buffering=0) as body:
        body.write(b"large")
        body.seek(0)
        answer = work_of(lambda call: call.body)(call_head(), body, FakeControl())
    with answer.body as file:
        assert file.read(answer.length) == b"large"


# Closing a stream


def closing(error: BaseException | None) -> Iterator[bytes]:
    """A generator that is closed in the middle."""
    try:
        yield b"a"
        yield b"b"
    finally:
        if error is not None:
            raise error


@pytest.mark.parametrize("error", [None, Canceled()])
def test_stream_that_ends_as_it_is_told(error: BaseException | None) -> None:
    """A generator that ends, or checks and is canceled, when it is closed has done well."""
    body = run(lambda call: closing(error)).body
    next(body)
    body.close()
    assert list(body) == []


def test_stream_that_fails_as_it_is_closed() -> None:
    """What a generator raises while it is closed is a failure of the handler's."""
    body = run(lambda call: closing(ValueError("clean-up"))).body
    next(body)
    assert "ValueError: clean-up" in failure_of(body.close)


# Work sources


async def coroutine(call: Call) -> str:
    return f"async {call.path}"


class AsyncCounting(Counting):
    """Is built once for all calls: they run on one thread."""

    async def __call__(self, call: Call) -> str:  # type: ignore[override]  # it is async
        return f"{self.built}"


def outcome(made: Any) -> Any:
    """What a coroutine that never waits returns."""
    with pytest.raises(StopIteration) as caught:
        made.send(None)
    return caught.value.value


def test_coroutine() -> None:
    """A coroutine function is called with the call, and gives its coroutine."""
    handlers = Handlers([Route(path="/rst", handler=coroutine, pool="reactor")])
    made = handlers.coroutine(call_head(), io.BytesIO(), FakeControl())
    assert outcome(made) == "async /api/rst"
    assert handlers.encode("text").body == b"text"


def test_coroutine_of_a_class() -> None:
    """A class with an async call is built once."""
    handlers = Handlers([Route(path="/rst", handler=AsyncCounting, pool="reactor")])
    for _ in range(2):
        assert outcome(handlers.coroutine(call_head(), io.BytesIO(), FakeControl())) == "1"


def test_refs() -> None:
    """The handlers of a process pool are known by name."""
    handlers = Handlers(
        [
            Route(path="/a", handler=failing, pool="process"),
            Route(path="/b", handler=Counting, pool="process"),
        ]
    )
    assert handlers.refs() == (
        HandlerRef("/a", __name__, "failing"),
        HandlerRef("/b", __name__, "Counting"),
    )
    assert Counting.built == 0


def test_refs_of_what_has_no_name() -> None:
    """A handler that a process cannot find is refused before any process is started."""
    handlers = Handlers([Route(path="/a", handler=functools.partial(failing), pool="process")])
    with pytest.raises(DeclarationError, match="cannot run in a process pool"):
        handlers.refs()

    def failing_twin(call: Call) -> bytes:
        return b""

    failing_twin.__qualname__ = "failing"
    handlers = Handlers([Route(path="/a", handler=failing_twin, pool="process")])
    with pytest.raises(DeclarationError, match="leads to something else"):
        handlers.refs()


def test_bind() -> None:
    """A worker process imports its handlers and builds its classes before the first call."""
    work = bind((HandlerRef("/a", __name__, "wrong"), HandlerRef("/b", __name__, "Counting")))
    assert Counting.built == 1
    for _ in range(2):
        assert work(call_head(route="/b"), io.BytesIO(), FakeControl()).body == b"1 /api/rst"
    with pytest.raises(HandlerFailed):
        work(call_head(route="/a"), io.BytesIO(), FakeControl())


def test_bind_what_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that fails to be built fails the set-up of its worker, with its own error."""
    monkeypatch.setattr(Counting, "__init__", lambda self: fail("no model"))
    with pytest.raises(ValueError, match="no model"):
        bind((HandlerRef("/b", __name__, "Counting"),))
