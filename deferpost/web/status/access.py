"""Who may look at the status page, and who may act on it.

Decides from the header fields of a request alone, and answers nothing.

An operator shows a token: as a bearer token (RFC 6750), or as the password of HTTP Basic (RFC
7617), for which browsers ask by themselves.  A browser then sends it with *every* request to these
paths, also with one that a page of another site has caused.  So what acts asks for more; see
:func:`is_cross_site`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from deferpost.credentials import OperatorTokens
from deferpost.errors import HTTPError

__all__ = [
    "Access",
    "Looking",
    "Role",
    "check_json",
    "is_cross_site",
    "only_field",
]

#: Gives the name of the operator whom the value of an ``Authorization`` field shows; None for
#: nobody (:meth:`deferpost.credentials.OperatorTokens.name`).
NameOf = Callable[[bytes | None], str | None]


#: What somebody can do: ``operator`` all of it; ``visitor`` look, and show a token to become one;
#: ``reader`` look, where there are no operators.
Role: TypeAlias = Literal["operator", "visitor", "reader"]


class Looking(enum.StrEnum):
    """For whom the status page is."""

    OPERATORS = "operators"
    OPEN = "open"


def only_field(request: Any, name: bytes) -> bytes | None:
    """The value of a field that may come once; one that comes more often is as good as none."""
    values: Any = request.requestHeaders.getRawHeaders(name) or ()
    return values[0] if len(values) == 1 else None


class Access:
    """Lets operators in.

    :param looking: for whom the page is.
    :param name_of: gives the name of an operator by what is shown; None where there are no
        operators, so that nobody can act.
    """

    def __init__(self, looking: Looking, name_of: NameOf | None) -> None:
        self._looking = looking
        self._name_of = name_of

    def role(self, request: Any) -> Role:
        """What the one can do from whom a request comes."""
        if self._name_of is None:
            return "reader"
        return "visitor" if self._operator(request) is None else "operator"

    def _operator(self, request: Any) -> str | None:
        """The name of the operator from whom a request comes; None if it is nobody."""
        assert self._name_of is not None
        return self._name_of(only_field(request, b"authorization"))

    def check_look(self, request: Any) -> None:
        """Refuse who may not look.

        :raises HTTPError: 401.
        """
        if self._looking is not Looking.OPEN:
            self.check_operator(request)

    def check_operator(self, request: Any) -> str:
        """Refuse who is no operator.

        :returns: the operator's name.
        :raises HTTPError: 401, or 403 where there are no operators.
        """
        if self._name_of is None:
            raise HTTPError(403, "No operators are configured here.")
        name = self._operator(request)
        if name is not None:
            return name
        # A browser asks for a password when it sees "Basic".  It is to do so for a page that
        # somebody opens, and not in the middle of one whose token is no longer valid.
        mode = only_field(request, b"sec-fetch-mode")
        challenges = [
            ("WWW-Authenticate", challenge)
            for challenge in OperatorTokens.CHALLENGES
            if mode is None or mode == b"navigate" or not challenge.startswith("Basic")
        ]
        raise HTTPError(401, "This is for operators; show a token.", headers=challenges)

    def check_inspect(self, request: Any) -> None:
        """Refuse who may not look into a job: a worker is interrupted for it.

        :raises HTTPError: 401 or 403.
        """
        self.check_operator(request)
        _check_site(request, typed=True)

    def check_act(self, request: Any) -> str:
        """Refuse who may not act, and what another site has made a browser send.

        :returns: the operator's name.
        :raises HTTPError: 401, 403 or 415.
        """
        name = self.check_operator(request)
        _check_site(request, typed=False)
        check_json(request)
        return name


def _check_site(request: Any, *, typed: bool) -> None:
    if is_cross_site(request, typed=typed):
        raise HTTPError(403, "This takes no requests from pages of other sites.")


def is_cross_site(request: Any, *, typed: bool = False) -> bool:
    """Whether a page of another site has caused a request, as far as its fields tell.

    ``Sec-Fetch-Site`` is set by browsers and cannot be set by pages: it decides where it is there.
    Older browsers send ``Origin`` with every POST; its host and port are to be those that the
    request is for.  The scheme is not compared, since a proxy in front may be the one that speaks
    TLS.  Programs send neither, and carry no password that somebody else has typed.

    Beyond that, :func:`check_json` asks for a content type that no form can have and that no script
    may send to another site unless that has agreed to a preflight, which nothing here does.

    :param request: the request.
    :param typed: whether an address that somebody has typed in counts as theirs.
    """
    site = request.requestHeaders.getRawHeaders(b"sec-fetch-site")
    if site is not None:
        return site != [b"same-origin"] and not (typed and site == [b"none"])
    origin = request.requestHeaders.getRawHeaders(b"origin")
    if origin is None:
        return False
    host = only_field(request, b"host")
    _, separator, place = origin[0].partition(b"://")
    return len(origin) != 1 or not separator or host is None or place.lower() != host.lower()


def check_json(request: Any) -> None:
    """Refuse a body that does not say it is JSON.

    :raises HTTPError: 415.
    """
    content_type = only_field(request, b"content-type") or b""
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise HTTPError(
            415, "The body is to be application/json.", headers=(("Accept", "application/json"),)
        )
