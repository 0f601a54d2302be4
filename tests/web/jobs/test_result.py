"""Results as they are got again: as they were, in parts, or not at all where nothing changed."""

from __future__ import annotations

import tempfile
from typing import Any, cast

import pytest

from deferpost.bodies import PIECE_BYTES
from deferpost.records import JobRecord, StoredResult
from deferpost.web.jobs.result import send_result
from tests.web import answer_of
from tests.web.jobs import Keeping, keeping
from tests.web.jobs.test_resources import both_sites

DATA = bytes(range(256)) * 1000


def in_a_file(served: Keeping, data: bytes) -> list[Any]:
    """Have the results of the keeper come as files, as those of large ones do on disk."""
    files: list[Any] = []
    result = served.keeper.result

    def as_file(id: str) -> Any:
        def changed(found: StoredResult | None) -> StoredResult | None:
            if found is None:
                return None
            file = tempfile.TemporaryFile()  # noqa: SIM115 (whoever takes it closes it)
            file.write(found.body)
            file.seek(0)
            files.append(file)
            return StoredResult(found.status, found.headers, file, found.length)

        return result(id).addCallback(changed)

    served.keeper.result = as_file  # type: ignore[method-assign]  # what the store on disk does
    return files


@both_sites
def test_as_it_was(wire: bool) -> None:
    """Status, header fields and bytes are those that the code of the job has given."""
    with keeping(wire=wire) as served:
        fields = (
            (b"Content-Type", b"text/x"),
            (b"X-Custom", b"1"),
            (b"x-custom", b"2"),
            (b"Set-Cookie", b"a=b"),
            (b"Cache-Control", b"max-age=60"),
            (b"X-Request-ID", b"of-the-post"),
            (b"Server-Timing", b"db;dur=1"),
            (b"Date", b"Sun, 09 Sep 2001 01:46:40 GMT"),
            (b"Connection", b"close"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Content-Length", b"99"),
        )
        record = served.done(b"done", status=201, headers=fields)
        response = served.get(f"/jobs/{record.id}/result", "X-Request-ID: mine")
        assert (response.status, response.body) == (201, b"done")
        assert response.header("content-type") == "text/x"
        assert [v for n, v in response.headers if n.lower() == "x-custom"] == ["1", "2"]
        assert response.header("set-cookie") == "a=b"
        assert response.header("cache-control") == "max-age=60"
        assert response.header("x-request-id") == "mine"
        assert response.header("content-length") == "4"
        assert response.header("connection") is None
        assert response.header("date") != "Sun, 09 Sep 2001 01:46:40 GMT"
        timings = [v for n, v in response.headers if n.lower() == "server-timing"]
        assert timings == ["queue;dur=0.000, run;dur=0.000", "db;dur=1"]
        assert response.header("etag") is None
        assert response.header("accept-ranges") is None
        assert response.header("x-content-type-options") == "nosniff"


@both_sites
@pytest.mark.parametrize("status", [204, 304])
def test_without_a_body(wire: bool, status: int) -> None:
    """Some results have no body, and nothing is said of its length."""
    with keeping(wire=wire) as served:
        record = served.done(b"", status=status, headers=((b"X-A", b"b"),))
        response = served.get(f"/jobs/{record.id}/result")
        assert (response.status, response.body) == (status, b"")
        assert response.header("content-length") is None
        assert served.get(f"/jobs/{record.id}/result", "Range: bytes=0-1").status == status


@both_sites
def test_not_yet(wire: bool) -> None:
    """While there is none, the client is told when to come again."""
    with keeping(wire=wire) as served:
        record = served.accept()
        response = served.get(f"/jobs/{record.id}/result")
        assert (response.status, response.json["state"]) == (202, "queued")
        assert response.header("retry-after") == "1"
        assert response.header("location") == f"http://example.com/jobs/{record.id}"
        assert response.header("cache-control") == "no-store"
        served.start()
        client = served.begin("GET", f"/jobs/{record.id}/result", "Prefer: wait=9")
        served.give(answer_of(b"done"))
        assert client.response().body == b"done"
        assert client.response().header("retry-after") is None


@both_sites
@pytest.mark.parametrize("file", [False, True], ids=["bytes", "file"])
def test_parts(wire: bool, file: bool) -> None:
    """A part of a large result is sent as it is asked for, and no file stays open."""
    with keeping(wire=wire) as served:
        files = in_a_file(served, DATA) if file else []
        record = served.done(DATA)
        path = f"/jobs/{record.id}/result"
        whole = served.get(path)
        assert (whole.status, whole.body) == (200, DATA)
        assert whole.header("accept-ranges") == "bytes"
        tag = whole.header("etag")
        assert tag is not None
        assert tag.startswith('"')
        part = served.get(path, "Range: bytes=1000-199999", f"If-Range: {tag}")
        assert (part.status, part.body) == (206, DATA[1000:200_000])
        assert part.header("content-range") == f"bytes 1000-199999/{len(DATA)}"
        assert part.header("etag") == tag
        assert served.get(path, "Range: bytes=-5").body == DATA[-5:]
        assert served.get(path, "Range: bytes=0-1", 'If-Range: "other"').body == DATA
        response = served.get(path, f"Range: bytes={len(DATA)}-")
        assert response.status == 416
        assert response.header("content-range") == f"bytes */{len(DATA)}"
        assert response.header("content-type") == "application/problem+json"
        response = served.get(path, f"If-None-Match: {tag}")
        assert (response.status, response.body) == (304, b"")
        assert response.header("etag") == tag
        assert response.header("content-type") is None
        response = served.ask("HEAD", path, "Range: bytes=0-1")
        assert (response.status, response.header("content-length")) == (200, str(len(DATA)))
        assert len(files) == (7 if file else 0)
        assert all(each.closed for each in files)


@both_sites
def test_no_parts_of_errors(wire: bool) -> None:
    """Of another result than one of status 200 there are no parts."""
    with keeping(wire=wire) as served:
        record = served.done(b"wrong", status=400)
        response = served.get(f"/jobs/{record.id}/result", "Range: bytes=0-1", "If-None-Match: *")
        assert (response.status, response.body) == (400, b"wrong")


def test_own_tag_of_a_handler() -> None:
    """A handler that says what its result is called is believed."""
    with keeping() as served:
        record = served.done(b"done", headers=((b"ETag", b'W/"mine"'),))
        path = f"/jobs/{record.id}/result"
        assert served.get(path).header("etag") == 'W/"mine"'
        assert served.get(path, 'If-None-Match: "mine"').status == 304
        assert served.get(path, "Range: bytes=0-0", 'If-Range: W/"mine"').status == 200


@pytest.mark.parametrize(
    ("kind", "own", "expected"),
    [
        (b"text/html; charset=utf-8", None, "sandbox"),
        (b"image/SVG+xml", None, "sandbox"),
        (b"text/html", b"default-src 'self'", "default-src 'self'"),
        (b"application/pdf", None, None),
    ],
)
def test_scripts(kind: bytes, own: bytes | None, expected: str | None) -> None:
    """No script of a result runs as one of this site's, unless its handler has said so."""
    with keeping() as served:
        fields = ((b"Content-Type", kind),)
        if own is not None:
            fields += ((b"Content-Security-Policy", own),)  # type: ignore[assignment]  # longer
        record = served.done(b"<p>", headers=fields)
        response = served.get(f"/jobs/{record.id}/result")
        assert response.header("content-security-policy") == expected


@both_sites
def test_slow_reader(wire: bool) -> None:
    """A large result is read as fast as its client takes it, and closed when the client leaves."""
    with keeping(wire=wire) as served:
        files = in_a_file(served, DATA)
        record = served.done(DATA)
        client = served.connect()
        client.transport.is_full = True
        client.request("GET", f"/jobs/{record.id}/result")
        served.settle()
        assert len(client.received) <= PIECE_BYTES + 2000
        assert not files[0].closed
        client.transport.read()
        assert len(client.received) <= 2 * PIECE_BYTES + 2000
        client.leave()
        assert files[0].closed


def test_left_before_it_was_there() -> None:
    """The file of a result whose client has left meanwhile is closed."""
    with keeping() as served:
        files = in_a_file(served, DATA)
        record = served.done(DATA)
        client = served.connect()
        result = served.keeper.result

        def leaves(id: str) -> Any:
            client.leave()
            return result(id)

        served.keeper.result = leaves  # type: ignore[method-assign]  # at that moment
        client.request("GET", f"/jobs/{record.id}/result")
        served.settle()
        assert client.received == b""
        assert [each.closed for each in files] == [True]


def test_shorter_than_it_was() -> None:
    """A file that has lost bytes breaks the connection off, so that nobody takes it for whole."""
    with keeping() as served:
        files = in_a_file(served, DATA)
        record = served.done(DATA)
        client = served.connect()
        client.transport.is_full = True
        client.request("GET", f"/jobs/{record.id}/result")
        served.settle()
        files[0].truncate(100)
        client.transport.is_full = False
        client.transport.read()
        assert not client.response().is_whole
        assert client.was_disconnected
        assert any("a result broke off" in line for line in served.log_lines)


def test_closed_in_any_case() -> None:
    """Whatever goes wrong, the file of a result is closed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed by what is tested)
    result = StoredResult(200, (), file, 0)
    with pytest.raises(AttributeError):
        send_result(cast(Any, None), cast(JobRecord, None), result)
    assert file.closed
