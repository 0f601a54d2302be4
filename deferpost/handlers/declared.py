"""What kind of handler a callable is, judged where it is declared.

Decides which pools can run it, and says why not.  It calls nothing of the user's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from deferpost.errors import DeclarationError

__all__ = ["calls_for_reactor", "display_name", "is_class", "require_handler"]


def is_class(handler: Any) -> bool:
    """Whether it is a class, to be built once in each worker."""
    return inspect.isclass(handler)


def display_name(handler: Any) -> str:
    """The handler's name for messages: ``module.qualname``, or its repr."""
    name = getattr(handler, "__qualname__", None)
    module = getattr(handler, "__module__", None)
    return f"{module}.{name}" if name and module else repr(handler)


def _function_of(handler: Any) -> Any:
    """The function that a call to the handler ends in."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isclass(handler):
        return getattr(handler, "__call__", None)  # noqa: B004 (the function, not a test)
    if inspect.isroutine(handler):
        return handler
    return getattr(type(handler), "__call__", None)  # noqa: B004 (as above)


def calls_for_reactor(handler: Any) -> bool:
    """Whether it is an ``async def``, which runs on the reactor.

    :raises DeclarationError: it is an asynchronous generator.
    """
    function = _function_of(handler)
    if inspect.isasyncgenfunction(function):
        raise DeclarationError(
            f"{display_name(handler)} is an asynchronous generator; stream from a plain generator "
            "function in a thread or a process, or return the whole from an async function"
        )
    return inspect.iscoroutinefunction(function)


def require_handler(handler: Any) -> Callable[..., Any]:
    """Check that it can be called with a Call.

    :raises DeclarationError: it is not callable, or takes another number of arguments.
    """
    if inspect.isclass(handler):
        if "__call__" not in {name for base in handler.__mro__ for name in vars(base)}:
            raise DeclarationError(
                f"the class {display_name(handler)} has no __call__(self, call), "
                "so its instances cannot handle a call"
            )
        _require_arguments(handler, handler, (), "is built with no arguments, once per worker")
        _require_arguments(handler, handler.__call__, (None, None), "is called with the call")
    elif callable(handler):
        _require_arguments(handler, handler, (None,), "is called with one argument, the call")
    else:
        raise DeclarationError(f"{handler!r} is not a handler: it cannot be called")
    return handler  # type: ignore[no-any-return]  # callable, as was just seen


def _require_arguments(
    handler: Any, function: Any, arguments: tuple[Any, ...], wanted: str
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a builtin without a signature: nothing to check
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise DeclarationError(
            f"{display_name(handler)}{signature} does not fit: a handler {wanted} ({error})"
        ) from None
