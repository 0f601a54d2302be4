"""Whether the daemon has a status page, and what stands in its way."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from deferpost.credentials import OperatorTokens
from deferpost.defaults import StatusPageFor
from deferpost.errors import ConfigurationError, DeclarationError
from deferpost.model import Route
from deferpost.observing import Observing
from deferpost.overseeing import check_paths, status_page
from deferpost.runtime import Runtime
from deferpost.settings import Settings
from deferpost.web.status import StatusPage

TOKENS = OperatorTokens.parse("boss token-of-the-operator\n", "tokens", b"k" * 32)


def made(kind: StatusPageFor, operators: OperatorTokens | None) -> StatusPage | None:
    """The status page of a daemon with such settings."""
    clock = Clock()
    runtime = Runtime([], {}, reactor=clock, timeout=None, max_body=0)
    observing = Observing(clock, job_events=False)
    settings = Settings(status_page=kind)
    return status_page(settings, runtime, observing, operators, clock, accepting=lambda: True)


def test_it_is_off_unless_it_is_wanted() -> None:
    """By default there is none, and its paths are free for routes."""
    assert made("off", TOKENS) is None
    assert made(Settings().status_page, None) is None
    check_paths([Route(path="/_deferpost/state", handler=None, pool="a")], Settings())


@pytest.mark.parametrize(("kind", "operators"), [("open", None), ("open", TOKENS)])
def test_it_can_be_open(kind: Any, operators: OperatorTokens | None) -> None:
    """All may look, whether or not there are operators."""
    assert made(kind, operators) is not None


def test_for_operators_there_have_to_be_some() -> None:
    """A page for operators without a file of tokens is a mistake, said before anything starts."""
    assert made("operators", TOKENS) is not None
    with pytest.raises(ConfigurationError) as caught:
        made("operators", None)
    assert list(caught.value.problems) == [
        'status_page is "operators", and there are none: operator_tokens names no file'
    ]


@pytest.mark.parametrize("path", ["/_deferpost", "/_deferpost/", "/_deferpost/mine"])
def test_its_paths_are_its_own(path: str) -> None:
    """A route at a path of the page is a mistake, too; one beside it is not."""
    with pytest.raises(DeclarationError, match=f"the route {path} is the daemon's own unless"):
        check_paths([Route(path=path, handler=None, pool="a")], Settings(status_page="open"))
    check_paths([Route(path="/_deferposted", handler=None, pool="a")], Settings(status_page="open"))
