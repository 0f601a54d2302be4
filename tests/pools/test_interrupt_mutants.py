"""That the tests of interrupts notice mistakes: each mistake, and the test that it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from deferpost.errors import Interrupted
from deferpost.pools import interrupts
from deferpost.pools.interrupts import HandlerPart
from tests.pools import test_interrupts as tests
from tests.pools.test_interrupts import untraced

__all__ = ["untraced"]

T = TypeVar("T")


class AnyKey(HandlerPart):
    """Interrupts whatever job runs."""

    def interrupt(self, key: int) -> bool:
        return super().interrupt(self.key or key)


class Unguarded(HandlerPart):
    """Interrupts whatever the thread does."""

    def interrupt(self, key: int) -> bool:
        if self.key == key:
            interrupts._set_async_exc(self._ident, id(Interrupted))
        return self.key == key


class Unannounced(HandlerPart):
    """Does not say that a request is under way."""

    def interrupt(self, key: int) -> bool:
        meant = self._open and self.key == key
        if meant:
            interrupts._set_async_exc(self._ident, id(Interrupted))
        return meant


class Unsettled(HandlerPart):
    """Does not wait for a request that is under way."""

    def _settle(self) -> None:
        self._asking = False
        super()._settle()


class NeverSettled(HandlerPart):
    """Lets what is pending come later."""

    def _settle(self) -> None:
        pass


class SettledOnce(HandlerPart):
    """Does not expect to be interrupted while it settles."""

    def run(self, function: Callable[..., T], *args: Any) -> T:
        try:
            self._open = True
            return function(*args)
        finally:
            self._open = False
            self._settle()


class LeftOpen(HandlerPart):
    """Leaves its part open."""

    def run(self, function: Callable[..., T], *args: Any) -> T:
        self._open = True
        return function(*args)


class NothingOutside(HandlerPart):
    """Takes code of ours for the handler's."""

    def outside(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)


class Forgetful(HandlerPart):
    """Forgets an interrupt that was met before code of ours."""

    def outside(self, function: Callable[..., T], *args: Any) -> T:
        try:
            return super().outside(function, *args)
        except Interrupted:
            return None  # type: ignore[return-value]  # a mistake


NOTICED = [
    (AnyKey, tests.test_not_another_job),
    (Unguarded, tests.test_not_outside_of_the_handler),
    (LeftOpen, tests.test_not_outside_of_the_handler),
    (Unannounced, tests.test_taken_back),
    (Unsettled, tests.test_taken_back),
    (NeverSettled, tests.test_taken_back),
    (SettledOnce, tests.test_taken_back),
    (Unannounced, tests.test_under_way_before_ours),
    (NothingOutside, tests.test_ours_inside_the_handler),
    (Forgetful, tests.test_under_way_before_ours),
]


@pytest.mark.parametrize(
    ("mutant", "test"),
    NOTICED,
    ids=[f"{mutant.__name__}-{test.__name__}" for mutant, test in NOTICED],
)
def test_noticed(
    mutant: type[HandlerPart], test: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the handshake fails a test that passes without it."""
    monkeypatch.setattr(tests, "HandlerPart", mutant)
    monkeypatch.setattr(tests, "PATIENCE", 0.2)
    with pytest.raises(AssertionError):
        test()


@pytest.mark.parametrize("mutant", [Unguarded, Unannounced, Unsettled, NeverSettled])
@pytest.mark.parametrize("handler", [tests.spin, tests.step])
def test_met_by_chance(
    mutant: type[HandlerPart], handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handlers that end at any moment meet a mistake in fewer interrupts than the test makes."""
    monkeypatch.setattr(tests, "HandlerPart", mutant)
    monkeypatch.setattr(tests, "PATIENCE", 5.0)
    loop = tests.stress(handler, 1000)
    assert loop.wrong + loop.ours > 0
