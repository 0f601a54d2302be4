"""A Request that notices when anything but the reactor thread touches it.

For tests, and for a search in a running server: each access costs a look at the thread.
"""

from __future__ import annotations

import threading
import traceback
from typing import Any, ClassVar

from twisted.web.server import Request

__all__ = ["OffReactorThread", "ReactorOnlyRequest"]


class OffReactorThread(AssertionError):
    """A Request was touched by another thread than the one that made it."""


class ReactorOnlyRequest(Request):
    """A request whose attributes only the thread that made it can reach.

    To be given to a Site as its ``requestFactory``.  On any other thread the access raises
    :class:`OffReactorThread`; since handlers' errors are answered rather than shown, it is noted
    in :attr:`touches`, too.

    :cvar touches: each access by another thread: thread, attribute and where.  Every subclass has
        a list of its own.
    """

    touches: ClassVar[list[str]] = []

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.touches = []

    def __init__(self, *args: Any, **options: Any) -> None:
        object.__setattr__(self, "_guard_thread", threading.get_ident())
        super().__init__(*args, **options)

    def __getattribute__(self, name: str) -> Any:
        _check(self, "read", name)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: object) -> None:
        _check(self, "set", name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        _check(self, "delete", name)
        super().__delattr__(name)


def _check(request: ReactorOnlyRequest, act: str, name: str) -> None:
    if threading.get_ident() == object.__getattribute__(request, "_guard_thread"):
        return
    where = traceback.extract_stack(limit=3)[0]
    touch = (
        f"thread {threading.current_thread().name} wants to {act} {name} of a Request "
        f"at {where.filename}:{where.lineno} ({where.name})"
    )
    type(request).touches.append(touch)
    raise OffReactorThread(touch)
