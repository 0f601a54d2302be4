"""Running one call: the handler, its reply and its errors.

:class:`Handlers` is the work source of a pool in the parent, :func:`bind` makes the work of a
worker process.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO

from deferpost.errors import BodyBroken, Canceled, HandlerFailed, HTTPError
from deferpost.handlers.around import Around
from deferpost.handlers.call import Call
from deferpost.handlers.declared import calls_for_reactor, is_class
from deferpost.handlers.named import check_reference, load, reference
from deferpost.handlers.replies import encode
from deferpost.model import Answer, CallHead, Control, HandlerRef, Route, Work

__all__ = ["Handlers", "bind"]

#: How many causes of an error are looked at: they can go in a circle.
_CAUSES_MOST = 20


class Handlers:
    """The handlers of the routes of one pool.

    :param routes: the routes.
    :param directory: where uploaded files are kept; None for the system's choice.
    """

    def __init__(self, routes: Sequence[Route], directory: str | None = None) -> None:
        self._directory = directory
        self._handlers = {route.path: route.handler for route in routes}
        self._interruptible = frozenset(route.path for route in routes if route.interrupt)
        self._coroutines: dict[str, Callable[[Call], Any]] = {
            route.path: route.handler() if is_class(route.handler) else route.handler
            for route in routes
            if calls_for_reactor(route.handler)
        }

    @property
    def interruptible(self) -> frozenset[str]:
        """The routes with ``interrupt=True``."""
        return self._interruptible

    def work(self, around: Callable[..., Any] | None = None) -> Work:
        """The work of one more thread; each class is built at the thread's first call to it.

        :param around: calls what it is given, with further arguments, for what is the handler's
            own of routes that may be interrupted.
        """
        calls: dict[str, Callable[[Call], Any]] = {
            route: _Lazy(handler) for route, handler in self._handlers.items()
        }
        if around is not None:
            for route in self._interruptible:
                calls[route] = Around(calls[route], around)
        return _Work(calls, self._directory)

    def coroutine(self, head: CallHead, body: BinaryIO, control: Control) -> Any:
        """The coroutine of one call to an ``async def`` handler."""
        return self._coroutines[head.route](Call(head, body, control, self._directory))

    def encode(self, result: Any) -> Answer:
        """See :func:`deferpost.handlers.replies.encode`."""
        return encode(result)

    def refs(self) -> tuple[HandlerRef, ...]:
        """Where a fresh interpreter finds the handlers, checked against the imported modules.

        :raises DeclarationError: one cannot be found by name.
        """
        refs = []
        for route, handler in self._handlers.items():
            ref = reference(route, handler)
            check_reference(ref, handler)
            refs.append(ref)
        return tuple(refs)


def bind(refs: Sequence[HandlerRef], directory: str | None = None) -> Work:
    """Import the handlers and build the classes: the set-up of a worker process.

    :param refs: where the handlers are.
    :param directory: where uploaded files are kept; None for the system's choice.
    :raises Exception: whatever the user's modules and classes raise.
    """
    bound = {}
    for ref in refs:
        handler = load(ref)
        bound[ref.route] = handler() if is_class(handler) else handler
    return _Work(bound, directory)


class _Lazy:
    """A handler that is built at its first call, if it is a class.  For one thread."""

    __slots__ = ("_handler", "_made")

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._made = None if is_class(handler) else handler

    def __call__(self, call: Call) -> Any:
        if self._made is None:
            self._made = self._handler()
        return self._made(call)


class _Work:
    """Runs the calls of one worker.

    :param handlers: the handler of each route.
    :param directory: where uploaded files are kept.
    """

    __slots__ = ("_directory", "_handlers")

    def __init__(
        self, handlers: Mapping[str, Callable[[Call], Any]], directory: str | None
    ) -> None:
        self._handlers = handlers
        self._directory = directory

    def __call__(self, head: CallHead, body: BinaryIO, control: Control) -> Answer:
        call = Call(head, body, control, self._directory)
        streams = False
        try:
            answer = encode(self._handlers[head.route](call))
            if type(answer.body) is not bytes and not hasattr(answer.body, "read"):
                answer.body = _Guarded(answer.body, call)
                streams = True
            return answer
        except (HTTPError, Canceled):
            raise
        except Exception as error:
            raise _translated(error) from None
        finally:
            if not streams:
                call.release()


class _Guarded:
    """A stream whose errors are translated, and which releases its call at its end."""

    __slots__ = ("_call", "_chunks")

    def __init__(self, chunks: Any, call: Call) -> None:
        self._chunks = chunks
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)  # type: ignore[no-any-return]  # bytes, by replies
        except StopIteration:
            self._call.release()
            raise
        except (HTTPError, Canceled):
            self._call.release()
            raise
        except Exception as error:
            self._call.release()
            raise _translated(error) from None

    def close(self) -> None:
        """End the handler where it stands.

        :raises HandlerFailed: it raised something when it was ended.
        :raises BodyBroken: that something was the break of its body.
        """
        try:
            self._chunks.close()
        except Canceled:
            pass
        except Exception as error:
            raise _translated(error) from None
        finally:
            self._call.release()


def _translated(error: Exception) -> BodyBroken | HandlerFailed:
    """What a handler raised, as one of ours.

    It is the client's doing where it is, or was explicitly raised from, the break of its body.
    """
    cause: BaseException | None = error
    seen = 0
    while cause is not None and seen < _CAUSES_MOST:
        if isinstance(cause, BodyBroken):
            return cause
        cause = cause.__cause__
        seen += 1
    return HandlerFailed(_users_traceback(error))


def _users_traceback(error: Exception) -> str:
    """The traceback without our own frames at its top, unless there are no others."""
    frames: TracebackType | None = error.__traceback__
    here = os.path.join(os.path.dirname(__file__), "")
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(here):
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames or error.__traceback__)
    # Without the surrogates that stand in names of files: no encoder takes them.
    return "".join(lines).encode("utf-8", "backslashreplace").decode()
