"""Every request goes to the one origin that was given, whatever a server says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.client.addresses import Base, base_of


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://localhost:8080", "http://localhost:8080", "/"),
        ("HTTP://LocalHost:80/", "http://localhost", "/"),
        ("https://example.com:443/api", "https://example.com", "/api/"),
        ("https://example.com/api/?x=1#y", "https://example.com", "/api/"),
        ("http://[::1]:8080/a b", "http://[::1]:8080", "/a%20b/"),
        ("http://b\u00fccher.example", "http://xn--bcher-kva.example", "/"),
    ],
)
def test_bases(url: str, origin: str, path: str) -> None:
    """The base is read as people write it."""
    assert base_of(url) == Base(origin, path)


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8080", "ftp://a/", "http://", "http://a:b/", "http://a:99999/", "/jobs"),
        *("http://user:secret@a/", "http://user@a/", "http://[::1/"),
    ],
)
def test_what_is_no_base(url: str) -> None:
    """What is no URL of a server, or has a password in it, is refused."""
    with pytest.raises(ValueError, match=r"."):
        base_of(url)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("http://here:1/jobs/a", "http://here:1/jobs/a"),
        ("/jobs/a?x=1#y", "http://here:1/jobs/a?x=1"),
        ("https://here:1/jobs/a", "http://here:1/jobs/a"),
        ("http://elsewhere/jobs/a", "http://here:1/jobs/a"),
        ("//elsewhere/jobs/a", "http://here:1/jobs/a"),
        ("http://here:1@elsewhere/jobs/a", "http://here:1/jobs/a"),
        ("jobs/a", "http://here:1/jobs/a"),
        ("/jobs/a\r\nX: y", "http://here:1/jobs/aX:%20y"),
    ],
)
def test_what_a_server_says_is_a_path_here(said: str, meant: str) -> None:
    """A Location is followed at the origin of the client."""
    assert base_of("http://here:1/api").own(said) == meant


@given(st.text(max_size=60))
def test_nothing_leads_elsewhere(said: str) -> None:
    """Nothing that a server can say makes a URL of another origin."""
    try:
        url = base_of("http://here:1/").own(said)
    except ValueError:
        return
    assert url.startswith("http://here:1/")
    assert url.isascii()
    assert base_of(url).origin == "http://here:1"


def test_paths_of_the_app() -> None:
    """A path is below the app, and is escaped once."""
    base = base_of("http://here:1/api/")
    assert base.url("/rst") == base.url("rst") == "http://here:1/api/rst"
    assert base.url("a b%20c?x=\u00e9&y=1") == "http://here:1/api/a%20b%20c?x=%C3%A9&y=1"


def test_what_is_of_this_origin() -> None:
    """Scheme, host and port make an origin."""
    base = base_of("http://here")
    assert base.is_own("http://HERE:80/x")
    for other in ("https://here/", "http://here:81/", "http://there/", "nothing"):
        assert not base.is_own(other)
