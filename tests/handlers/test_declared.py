"""Which callables can be handlers, and in which kind of pool."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from deferpost.errors import DeclarationError
from deferpost.handlers.declared import calls_for_reactor, display_name, is_class, require_handler


def plain(call: Any) -> bytes:
    return b""


def with_default(call: Any, depth: int = 3) -> bytes:
    return b""


def with_anything(*args: Any, **kwargs: Any) -> bytes:
    return b""


def no_arguments() -> bytes:
    return b""


def two_arguments(call: Any, more: Any) -> bytes:
    return b""


def keyword_only(*, call: Any) -> bytes:
    return b""


def two_keywords(call: Any, *, more: Any) -> bytes:
    return b""


def generator(call: Any) -> Iterator[bytes]:
    yield b""


async def coroutine(call: Any) -> bytes:
    return b""


async def async_generator(call: Any) -> AsyncIterator[bytes]:
    yield b""


class Instance:
    """Its instances are handlers, and so is it; and so are some of its methods."""

    def __call__(self, call: Any) -> bytes:
        return b""

    def method(self, call: Any) -> bytes:
        return b""

    async def async_method(self, call: Any) -> bytes:
        return b""

    def no_arguments(self) -> bytes:
        return b""

    @classmethod
    def of_class(cls, call: Any) -> bytes:
        return b""

    @staticmethod
    async def of_nothing(call: Any) -> bytes:
        return b""


class Inheriting(Instance):
    """Has its ``__call__`` from its base."""


class Async:
    """Its instances are coroutine functions in all but name."""

    async def __call__(self, call: Any) -> bytes:
        return b""


class AsyncStream:
    """Its instances are asynchronous generator functions in all but name."""

    async def __call__(self, call: Any) -> AsyncIterator[bytes]:
        yield b""


class NoCall:
    """Has no ``__call__``."""


class CallWithoutArgument:
    """Its instances do not take the call."""

    def __call__(self) -> bytes:
        return b""


class NeedsArgument:
    """Cannot be built without an argument."""

    def __init__(self, model: str) -> None:
        self.model = model

    def __call__(self, call: Any) -> bytes:
        return b""


@functools.wraps(coroutine)
def wrapping(call: Any) -> bytes:
    """A plain function that is named after a coroutine function."""
    return b""


@pytest.mark.parametrize(
    "handler",
    [
        plain,
        with_default,
        with_anything,
        generator,
        coroutine,
        lambda call: b"",
        functools.partial(two_arguments, more=1),
        functools.partial(two_arguments, 1),
        functools.partial(functools.partial(two_arguments), 1),
        Instance(),
        Instance().method,
        Instance.of_class,
        Instance.of_nothing,
        Instance,
        Inheriting,
        Async,
        NeedsArgument("m"),
        functools.partial(NeedsArgument("m")),
        len,
        print,
        max,  # which does not say what it takes
    ],
)
def test_can_handle(handler: Any) -> None:
    """Whatever can be called with the call is a handler, as it is."""
    assert require_handler(handler) is handler


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (no_arguments, "is called with one argument, the call (too many positional arguments)"),
        (two_arguments, "missing a required argument: 'more'"),
        (keyword_only, "too many positional arguments"),
        (two_keywords, "missing a required"),
        (lambda: b"", "is called with one argument, the call"),
        (functools.partial(plain, None), "too many positional arguments"),
        (Instance().no_arguments, "is called with one argument, the call"),
        (NoCall, "has no __call__(self, call), so its instances cannot handle a call"),
        (CallWithoutArgument, "is called with the call"),
        (NeedsArgument, "is built with no arguments, once per worker"),
        (NoCall(), "is not a handler: it cannot be called"),
        (None, "None is not a handler"),
        ("module:function", "'module:function' is not a handler"),
    ],
)
def test_cannot_handle(handler: Any, words: str) -> None:
    """What cannot be called with the call is refused, with what would fit."""
    with pytest.raises(DeclarationError) as caught:
        require_handler(handler)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refusal_shows_the_signature() -> None:
    """The refusal shows what the handler takes."""
    with pytest.raises(
        DeclarationError, match=r"test_declared\.no_arguments\(\) -> .*does not fit"
    ):
        require_handler(no_arguments)


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (plain, False),
        (generator, False),
        (wrapping, False),
        (coroutine, True),
        (functools.partial(coroutine), True),
        (functools.partial(functools.partial(coroutine)), True),
        (functools.partial(plain), False),
        (Instance, False),
        (Instance(), False),
        (Instance().method, False),
        (Instance().async_method, True),
        (Instance.of_nothing, True),
        (Async, True),
        (Async(), True),
        (len, False),
        (lambda call: b"", False),
    ],
)
def test_coroutines_run_on_the_reactor(handler: Any, expected: bool) -> None:
    """An ``async def`` runs on the reactor, however it is wrapped; all else in a worker."""
    assert calls_for_reactor(handler) is expected


@pytest.mark.parametrize(
    "handler", [async_generator, functools.partial(async_generator), AsyncStream, AsyncStream()]
)
def test_no_asynchronous_generators(handler: Any) -> None:
    """An asynchronous generator is refused, with what to write instead."""
    with pytest.raises(DeclarationError, match="stream from a plain generator function"):
        calls_for_reactor(handler)


@pytest.mark.parametrize(
    ("thing", "expected"), [(Instance, True), (Instance(), False), (plain, False), (dict, True)]
)
def test_is_class(thing: Any, expected: bool) -> None:
    """A class is built once in each worker; an instance is there already."""
    assert is_class(thing) is expected


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (plain, "tests.handlers.test_declared.plain"),
        (Instance, "tests.handlers.test_declared.Instance"),
        (Instance().method, "tests.handlers.test_declared.Instance.method"),
        (len, "builtins.len"),
        (3, "3"),
    ],
)
def test_name_in_messages(handler: Any, name: str) -> None:
    """Messages name a handler by its module and its name there."""
    assert display_name(handler) == name


def test_nameless_in_messages() -> None:
    """What has no name is shown as it is."""
    partial: Callable[..., Any] = functools.partial(plain)
    assert display_name(partial) == repr(partial)
    instance = Instance()
    assert display_name(instance) == repr(instance)
