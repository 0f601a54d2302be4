"""Who may look at the status page, and who may act on it."""

from __future__ import annotations

import pytest

from tests.web.status import BASIC, BEARER, JSON, looked

PATHS = ["/", "", "/state", "/events", "/stack?pool=fake&job=1", "/sign-in"]
ACTS = ["/cancel", "/restart"]
SAME = "Sec-Fetch-Site: same-origin"


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])
@pytest.mark.parametrize("path", PATHS)
def test_who_has_no_token_sees_nothing(path: str, wire: bool) -> None:
    """Without a token every path answers 401, and asks a browser for one."""
    with looked(wire=wire) as daemon:
        response = daemon.ask_as((), path)
        assert response.status == 401
        challenges = [value for name, value in response.headers if name == "WWW-Authenticate"]
        assert sorted(challenge.split()[0] for challenge in challenges) == ["Basic", "Bearer"]
        assert response.json["detail"] == "This is for operators; show a token."


@pytest.mark.parametrize(
    "who", [BEARER.replace("operator", "impostor"), "Authorization: Basic bWU6bm8=", "Cookie: a=b"]
)
def test_a_wrong_token_is_no_token(who: str) -> None:
    """What is not an operator's token opens nothing."""
    with looked() as daemon:
        assert daemon.ask_as((who,), "/state").status == 401
        assert daemon.ask_as((who, JSON), "/cancel", method="POST", body=b"{}").status == 401


def test_two_tokens_are_none() -> None:
    """A request with two Authorization fields is not let in, whatever they say."""
    with looked() as daemon:
        assert daemon.ask_as((BEARER, BEARER), "/state").status == 401


@pytest.mark.parametrize("who", [BEARER, BASIC])
def test_a_token_opens_everything(who: str) -> None:
    """A token does as Bearer, and as the password that a browser has asked for."""
    with looked() as daemon:
        assert daemon.ask_as((who,), "/").status == 200
        assert daemon.ask_as((who,), "/state").status == 200
        response = daemon.ask_as((who,), "/sign-in")
        assert (response.status, response.header("location")) == (303, "./")


def test_a_browser_is_asked_when_a_page_is_opened_and_not_by_a_script() -> None:
    """A script of the page gets a 401 that opens no dialog in the middle of the page."""
    with looked() as daemon:
        opened = daemon.ask_as((), "/", "Sec-Fetch-Mode: navigate")
        asked = daemon.ask_as((), "/state", "Sec-Fetch-Mode: cors")
        assert "Basic" in str(opened.headers)
        assert "Basic" not in str(asked.headers)
        assert asked.header("www-authenticate") == 'Bearer realm="deferpost"'


def test_open_to_look_at_and_not_to_act() -> None:
    """In open mode everybody may look, and only operators see stacks, cancel and restart."""
    with looked("open") as daemon:
        assert b'data-role="visitor"' in daemon.ask_as((), "/").body
        assert b'data-role="operator"' in daemon.ask("/").body
        assert daemon.ask_as((), "/state").status == 200
        assert daemon.ask_as((), "/sign-in").status == 401
        assert daemon.ask_as((), "/stack?pool=fake&job=1").status == 401
        for path in ACTS:
            assert daemon.ask_as((JSON, SAME), path, method="POST", body=b"{}").status == 401


def test_where_there_are_no_operators_nobody_acts() -> None:
    """Open, and without tokens: the page has no buttons, and no token opens any."""
    with looked("open", operators=False) as daemon:
        assert b'data-role="reader"' in daemon.ask("/").body
        assert daemon.ask("/state").status == 200
        for path in ACTS:
            response = daemon.act(path, b"{}")
            assert (response.status, response.json["detail"]) == (
                403,
                "No operators are configured here.",
            )


@pytest.mark.parametrize("wire", [True, False], ids=["wire", "stock"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((JSON, SAME), 404),  # it got as far as to look for the job
        ((JSON,), 404),
        (("Content-Type: Application/JSON; charset=utf-8", SAME), 404),
        ((JSON, "Origin: https://example.com"), 404),
        ((JSON, "Origin: http://EXAMPLE.com"), 404),
        ((JSON, SAME, "Origin: https://front.example"), 404),  # a proxy has changed the host
        ((JSON, "Sec-Fetch-Site: cross-site"), 403),
        ((JSON, "Sec-Fetch-Site: same-site"), 403),
        ((JSON, "Sec-Fetch-Site: none"), 403),
        ((JSON, SAME, "Sec-Fetch-Site: cross-site"), 403),
        ((JSON, "Origin: https://example.com.evil.test"), 403),
        ((JSON, "Origin: https://example.com:8443"), 403),
        ((JSON, "Origin: null"), 403),
        ((JSON, "Origin: https://example.com", "Origin: https://evil.test"), 403),
        ((SAME,), 415),
        (("Content-Type: text/plain", SAME), 415),
        (("Content-Type: application/x-www-form-urlencoded", SAME), 415),
        ((JSON, JSON, SAME), 415),
    ],
)
def test_other_sites_cannot_act_through_an_operators_browser(
    fields: tuple[str, ...], status: int, wire: bool
) -> None:
    """A POST with the operator's password that another site has caused, or a form, is refused."""
    body = b'{"pool": "fake", "job": 99}'
    with looked(wire=wire) as daemon:
        response = daemon.ask_as((BASIC, *fields), "/cancel", method="POST", body=body)
        assert response.status == status


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("Sec-Fetch-Site: same-origin", 404),  # it got as far as to look for the job
        ("Sec-Fetch-Site: none", 404),  # somebody has typed the address
        ("Sec-Fetch-Site: cross-site", 403),
        ("Origin: https://evil.test", 403),
    ],
)
def test_other_sites_cannot_have_workers_interrupted(field: str, status: int) -> None:
    """An image of another site whose address is that of a stack is refused."""
    with looked() as daemon:
        assert daemon.ask_as((BASIC, field), "/stack?pool=fake&job=99").status == status
