"""Who sees which jobs: everybody all of them, or, where there is a gate, each their own."""

from __future__ import annotations

from typing import Any

import msgspec

from deferpost.credentials import OWN_JOBS, Admitted, Gate
from deferpost.errors import HTTPError
from deferpost.model import CallHead
from deferpost.records import JobRecord
from deferpost.web.status.access import is_cross_site, only_field

__all__ = ["Visitor", "check_act", "visitor_of"]

#: Content types that a form of a page can have: what acts takes none of them.
_OF_FORMS = frozenset({b"application/x-www-form-urlencoded", b"multipart/form-data", b"text/plain"})


class Visitor(msgspec.Struct, frozen=True):
    """Who asks.

    :ivar principal: who it is; None where nobody has found that out.
    :ivar sees_all: whether there is nobody who asks.
    """

    principal: str | None = None
    sees_all: bool = True

    def sees(self, record: JobRecord) -> bool:
        """Whether a job is one of theirs."""
        return self.sees_all or record.principal == self.principal


_ANYBODY = Visitor()


def visitor_of(request: Any, id: str, gate: Gate | None, body: bytes) -> Visitor:
    """Ask a gate who it is, once for each request.

    :param request: the request, which is whole.
    :param id: its id.
    :param gate: which is asked; None where everybody may.
    :param body: of the request.
    :raises deferpost.errors.HTTPError: it lets nobody in, or the body is not what it was to be.
    """
    if gate is None:
        return _ANYBODY
    path, _, query = request.uri.partition(b"?")
    client = request.client
    fields = tuple(
        (name, value)
        for name, values in request.requestHeaders.getAllRawHeaders()
        for value in values
    )
    head = CallHead(
        id,
        OWN_JOBS,
        request.method.decode("latin-1"),
        path.decode("latin-1"),
        query,
        fields,
        (client.host, client.port) if hasattr(client, "port") else None,
        None,
    )
    admitted = Admitted.of(gate(head))
    if admitted.digest is not None:
        admitted.digest.update(body)
        admitted.digest.check()
    return Visitor(admitted.principal, False)


def check_act(request: Any) -> None:
    """Refuse what a page of another site has made a browser send.

    Programs need no content type, and none that forms can have says anything here.

    :raises deferpost.errors.HTTPError: 403 or 415.
    """
    if is_cross_site(request):
        raise HTTPError(403, "This takes no requests from pages of other sites.")
    content_type = only_field(request, b"content-type") or b""
    if content_type.partition(b";")[0].strip().lower() in _OF_FORMS:
        raise HTTPError(
            415,
            "This takes no forms; send no body, or application/json.",
            headers=(("Accept", "application/json"),),
        )
