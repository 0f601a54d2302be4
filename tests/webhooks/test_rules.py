"""Which URLs a webhook may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deferpost.errors import HTTPError
from deferpost.webhooks.rules import LONGEST_URL, HookHosts

HOSTS = HookHosts(
    [
        "hooks.example.com",
        "*.Example.ORG",
        "eight.example.com:8443",
        "http://plain.example.com",
        "https://plus.example.com",
        "b\u00fccher.example",
        "192.0.2.7",
        "[2001:DB8::0:7]:8443",
        "http://localhost:8080",
        "*.deep.example.net:444",
    ]
)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://hooks.example.com/done", "https://hooks.example.com/done"),
        ("HTTPS://Hooks.Example.COM/Done?A=b%20c", "https://hooks.example.com/Done?A=b%20c"),
        ("https://hooks.example.com", "https://hooks.example.com/"),
        ("https://hooks.example.com?x=1", "https://hooks.example.com/?x=1"),
        ("https://hooks.example.com./a", "https://hooks.example.com/a"),
        ("https://hooks.example.com:443/a", "https://hooks.example.com/a"),
        ("https://hooks.example.com:0443/a", "https://hooks.example.com/a"),
        ("https://hooks.example.com:/a", "https://hooks.example.com/a"),
        ("https://hooks.example.com/a//b/../c?d=/?:@!$&'()*+,;=", None),
        ("https://a.example.org/", "https://a.example.org/"),
        ("https://A.b.c.example.org/", "https://a.b.c.example.org/"),
        ("https://eight.example.com:8443/", "https://eight.example.com:8443/"),
        ("http://plain.example.com:80/", "http://plain.example.com/"),
        ("https://plus.example.com/", "https://plus.example.com/"),
        ("https://b\u00fccher.example/", "https://xn--bcher-kva.example/"),
        ("https://B\u00dcCHER\uff0eexample/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://192.0.2.7/", "https://192.0.2.7/"),
        ("https://[2001:db8:0:0::7]:8443/", "https://[2001:db8::7]:8443/"),
        ("http://localhost:8080/a", "http://localhost:8080/a"),
        ("https://x.deep.example.net:444/", "https://x.deep.example.net:444/"),
    ],
)
def test_allowed(url: str, normal: str | None) -> None:
    """A URL whose host is in the list is given on in one form, which is allowed, too."""
    found = HOSTS.check(url)
    assert found == (normal or url)
    assert HOSTS.check(found) == found


@pytest.mark.parametrize(
    ("url", "words"),
    [
        # Not in the list.
        ("https://example.com/", "not allowed here"),
        ("https://hooks.example.com.evil.example/", "not allowed here"),
        ("https://evilhooks.example.com/", "not allowed here"),
        ("https://example.org/", "not allowed here"),
        ("https://evilexample.org/", "not allowed here"),
        ("http://hooks.example.com/", "not allowed here"),
        ("http://hooks.example.com:443/", "not allowed here"),
        ("https://plain.example.com/", "not allowed here"),
        ("https://hooks.example.com:8443/", "not allowed here"),
        ("https://hooks.example.com:80/", "not allowed here"),
        ("https://eight.example.com/", "not allowed here"),
        ("https://192.0.2.8/", "not allowed here"),
        ("https://[2001:db8::7]/", "not allowed here"),
        ("http://localhost/", "not allowed here"),
        # Not a URL, or not of this kind.
        ("", "not a URL"),
        ("hooks.example.com", "not a URL"),
        ("//hooks.example.com/", "not a URL"),
        ("https:/hooks.example.com/", "not a URL"),
        ("https:hooks.example.com/", "not a URL"),
        (" https://hooks.example.com/", "not a URL"),
        ("ftp://hooks.example.com/", "does not begin with https://"),
        ("file:///etc/passwd", "does not begin with https://"),
        ("https://user@hooks.example.com/", "has a user name"),
        ("https://user:password@hooks.example.com/", "has a user name"),
        ("https://hooks.example.com@evil.example/", "has a user name"),
        ("https://@hooks.example.com/", "has a user name"),
        ("https://hooks.example.com/#", "has a fragment"),
        ("https://hooks.example.com#@evil.example/", "has a fragment"),
        ("https://hooks.example.com/" + "a" * LONGEST_URL, "is longer than 2048 characters"),
        # Hosts that readers may disagree about.
        ("https:///a", "host that cannot be used"),
        ("https://:443/a", "host that cannot be used"),
        ("https://./a", "host that cannot be used"),
        ("https://hooks.example.com../a", "host that cannot be used"),
        ("https://hooks..example.com/a", "host that cannot be used"),
        ("https://hooks.example.com:0/", "from 1 to 65535"),
        ("https://hooks.example.com:65536/", "from 1 to 65535"),
        ("https://hooks.example.com:99999999999/", "from 1 to 65535"),
        ("https://hooks.example.com:44 3/", "host that cannot be used"),
        ("https://hooks.example.com:\u0664/", "host that cannot be used"),
        ("https://hooks.example.com:443:443/", "host that cannot be used"),
        ("https://hooks.example.com\\.evil.example/", "host that cannot be used"),
        ("https://evil.example\\@hooks.example.com/", "has a user name"),
        ("https://hooks.example.com%2f.evil.example/", "host that cannot be used"),
        ("https://hooks%2eexample.com/", "host that cannot be used"),
        ("https://hooks.example.com\t/", "host that cannot be used"),
        ("https://hooks.ex\u00adample.com\u200c/", "written as xn--"),
        ("https://stra\u00dfe.example.org/", "written as xn--"),
        ("https://-a.example.org/", "host that cannot be used"),
        ("https://" + "a" * 64 + ".example.org/", "host that cannot be used"),
        ("https://" + "a." * 130 + "example.org/", "at most 253"),
        ("https://3221225991/", "in decimal"),
        ("https://0xc0.0.2.7/", "in decimal"),
        ("https://0xc0000207/", "in decimal"),
        ("https://192.0.519/", "in decimal"),
        ("https://192.0.02.7/", "in decimal"),
        ("https://[2001:db8::g]/", "neither a name nor an address"),
        ("https://[]/", "in brackets"),
        ("https://[1:2:3]/", "in brackets"),
        ("https://[fe80::1%25eth0]/", "host that cannot be used"),
        ("https://2001:db8::7/", "host that cannot be used"),
        # Paths that cannot be sent.
        ("https://hooks.example.com/a b", "percent-encoded"),
        ("https://hooks.example.com/a\r\nX: y", "percent-encoded"),
        ("https://hooks.example.com/\u00e4", "percent-encoded"),
        ("https://hooks.example.com/%", "percent-encoded"),
        ("https://hooks.example.com/%4", "percent-encoded"),
        ('https://hooks.example.com/"<>\\^`{|}', "percent-encoded"),
        ("https://hooks.example.com/\0", "percent-encoded"),
    ],
)
def test_refused(url: str, words: str) -> None:
    """A URL that is not allowed is refused with a sentence that says why."""
    with pytest.raises(HTTPError) as caught:
        HOSTS.check(url)
    assert caught.value.status == 400
    assert caught.value.extensions == {"reason": "webhook_refused"}
    assert caught.value.detail.startswith("The Webhook-URL ")
    assert words in caught.value.detail


def test_no_hosts() -> None:
    """Without a list, there are no webhooks."""
    assert not HookHosts()
    assert HookHosts(["a.example"])
    with pytest.raises(HTTPError, match="no hosts for webhooks are configured"):
        HookHosts().check("https://hooks.example.com/")
    assert HookHosts().url_of([]) is None


def test_the_field() -> None:
    """The field comes once, or says the same again."""
    url = b"https://Hooks.example.com/a"
    assert HOSTS.url_of([]) is None
    assert HOSTS.url_of([url]) == "https://hooks.example.com/a"
    assert HOSTS.url_of([url, b" " + url + b"\t"]) == "https://hooks.example.com/a"
    assert HOSTS.url_of(["https://b\u00fccher.example".encode()]) is not None
    for values in ([url, url + b"b"], [b""], [b"\xff"], [url + b", " + url]):
        with pytest.raises(HTTPError) as caught:
            HOSTS.url_of(values)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "*",
        "*.",
        "*.com",
        "*.192.0.2.1",
        "*.[::1]",
        "a.*.example.com",
        "ftp://a.example",
        "https://a.example/",
        "https://a.example/path",
        "user@a.example",
        "a.example:0",
        "a.example:x",
        "a b.example",
        "0x7f.1",
        "[::1",
        "\0" * 1000,
    ],
)
def test_what_is_no_host(entry: str) -> None:
    """What an operator writes by mistake is shown to them."""
    with pytest.raises(ValueError, match="no host for webhooks") as caught:
        HookHosts(["a.example", entry])
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@given(st.text(max_size=40) | st.text("htps:/@.#?[]%\\ae0:8", max_size=60))
def test_any_text(text: str) -> None:
    """Any text is a URL of an allowed host or an error of the one kind."""
    for url in (text, "https://" + text, "https://hooks.example.com" + text):
        try:
            found = HOSTS.check(url)
        except HTTPError:
            continue
        assert found.isascii()
        assert found.isprintable()
        assert HOSTS.check(found) == found
