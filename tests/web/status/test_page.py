"""The page itself: one document, with a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from tests.web.status import looked

HARDENED = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def page() -> str:
    with looked() as daemon:
        return daemon.ask("/").body.decode()


def test_it_is_one_document() -> None:
    """It needs nothing from anywhere, and has no style or script outside its two elements."""
    html = page()
    links = set(re.findall(r'\s(?:src|href)="([^"]+)"', html.partition("<script>")[0]))
    assert {link for link in links if not link.startswith("data:image/svg+xml,")} == {
        "#pools",
        "sign-in",
        "state",
    }
    assert "@import" not in html
    assert "url(" not in html.partition("<script>")[0]
    assert html.count("<script>") == html.count("<style>") == 1
    body = html.partition("</style>")[2].partition("<script>")[0]
    assert re.findall(r"\s(?:on\w+|style)=", body) == []
    assert "%role%" not in html


@pytest.mark.parametrize(
    ("element", "directive"), [("script", "script-src"), ("style", "style-src")]
)
def test_only_its_own_script_and_style_run(element: str, directive: str) -> None:
    """The policy has the hash of what is in the page, and lets in nothing else."""
    with looked() as daemon:
        response = daemon.ask("/")
    policy = response.header("content-security-policy")
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    found = re.search(rf"<{element}>(.*?)</{element}>", response.body.decode(), re.DOTALL)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    assert rules[directive] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["form-action"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "unsafe" not in policy


def test_clients_text_is_never_html() -> None:
    """The script has none of the ways in which text becomes HTML or code."""
    script = page().partition("<script>")[2]
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function("):
        assert way not in script


@pytest.mark.parametrize("path", ["/", "", "/state", "/sign-in", "/stack", "/events", "/cancel"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_every_response_is_hardened(path: str, method: str) -> None:
    """Good or bad, nothing is cached, framed, sniffed or lent to other sites."""
    with looked() as daemon:
        client = daemon.connect()
        client.request(method, f"/_deferpost{path}")
        response = client.response(method != "HEAD")
        assert {name: response.header(name) for name in HARDENED} == HARDENED
        policy = response.header("content-security-policy") or ""
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert response.header("x-request-id")


def test_the_slash() -> None:
    """Without the slash at its end the path leads to the page, also below a path of a proxy."""
    with looked() as daemon:
        response = daemon.ask("")
        assert (response.status, response.header("location")) == (303, "_deferpost/")


@pytest.mark.parametrize("path", ["/", "", "/state", "/sign-in", "/stack", "/events"])
def test_methods(path: str) -> None:
    """What is looked at takes GET, HEAD and OPTIONS; HEAD is GET without the body."""
    with looked() as daemon:
        response = daemon.ask(path, method="POST", body=b"x")
        assert (response.status, response.header("allow")) == (405, "GET, HEAD, OPTIONS")
        assert daemon.ask(path, method="OPTIONS").status == 204
        if path in ("/", "/state"):
            length = daemon.ask(path).header("content-length")
            assert daemon.ask(path, method="HEAD").header("content-length") == length


def test_nothing_else_is_there() -> None:
    """Other paths below are answered 404."""
    with looked() as daemon:
        assert daemon.ask("/page.js").status == 404
