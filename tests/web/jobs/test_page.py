"""The page of a job: who gets it, and that it is one document which lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from deferpost.web.jobs.page import prefers_page
from tests.web.jobs import keeping
from tests.web.jobs.test_resources import OTHER, both_sites

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML;level=1", True),
        ("application/json;q=0.9, text/html", True),
        ("application/json, text/html", False),
        ("application/json, text/html;q=0.9", False),
        ("*/*", False),
        ("", False),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        ("text/html, */*", False),
        ("text/*", False),
    ],
)
def test_who_gets_it(accept: str, page: bool) -> None:
    """Who would rather have HTML than JSON, as browsers say of what somebody opens."""
    assert prefers_page(accept.encode()) is page


@both_sites
def test_it_is_one_document(wire: bool) -> None:
    """It needs nothing from anywhere, and its policy lets in what is inside it alone."""
    with keeping(wire=wire) as served:
        record = served.accept()
        response = served.get(f"/jobs/{record.id}", f"Accept: {BROWSER}")
        assert (response.status, response.header("vary")) == (200, "Accept")
        assert response.header("content-type") == "text/html; charset=utf-8"
        assert response.header("cache-control") == "no-store"
        assert response.header("referrer-policy") == "no-referrer"
        policy = response.header("content-security-policy") or ""
        html = response.body.decode()
        assert record.id not in html
        for element in ("script", "style"):
            (text,) = re.findall(f"<{element}>(.*?)</{element}>", html, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{element}-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        body = html.partition("</style>")[2].partition("<script>")[0]
        assert re.findall(r"\s(?:on\w+|style)=", body) == []
        links = re.findall(r'\s(?:src|href)="([^"]*)"', html.partition("<script>")[0])
        assert [link for link in links if link and not link.startswith("data:")] == []
        assert served.get(f"/jobs/{record.id}").header("vary") == "Accept"


def test_no_page_of_nothing() -> None:
    """Of a job that is not there there is no page."""
    with keeping() as served:
        response = served.get(f"/jobs/{OTHER}", f"Accept: {BROWSER}")
        assert response.status == 404
        assert response.header("content-type") == "application/problem+json"
