"""The load: what is read of wrk's report, and the client of our own on a small server."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.clients.bulk import down, up
from bench.clients.exchange import Responses
from bench.clients.gets import ask
from bench.clients.pending import none_answered, pending
from bench.clients.posts import post_for
from bench.load import requests_per_second_in_python, requests_per_second_of_wrk
from bench.machine import usable_cores

REPORT = """\
Running 3s test @ http://127.0.0.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.03ms    1.11ms  20.55ms   91.97%
    Req/Sec    21.32k     1.50k   23.65k    76.67%
  63674 requests in 3.00s, 15.12MB read
{more}Requests/sec:  21216.35
Transfer/sec:      5.04MB
"""


def test_the_rate_is_read_from_the_report_of_wrk() -> None:
    """It is the figure behind Requests/sec."""
    assert requests_per_second_of_wrk(REPORT.format(more="")) == 21216.35


@pytest.mark.parametrize(
    "more",
    [
        "  Non-2xx or 3xx responses: 63674\n",
        "  Socket errors: connect 0, read 64, write 0, timeout 0\n",
    ],
)
def test_errors_in_the_report_are_no_rate(more: str) -> None:
    """A server that answers with errors is not fast."""
    with pytest.raises(RuntimeError, match="not answered well"):
        requests_per_second_of_wrk(REPORT.format(more=more))


@pytest.mark.parametrize("report", ["", REPORT.format(more="").replace("21216.35", "0.00")])
def test_no_answer_is_no_rate(report: str) -> None:
    """A report without a rate, or with none answered, is an error."""
    with pytest.raises(RuntimeError, match="not answered well"):
        requests_per_second_of_wrk(report)


@given(st.integers(0, 200), st.sets(st.integers(1, 300)))
def test_a_response_ends_where_it_ends_however_it_is_cut(size: int, cuts: set[int]) -> None:
    """The status is told at the last byte, and not before."""
    response = b"HTTP/1.1 200 OK\r\ncontent-LENGTH:%d\r\nX: y\r\n\r\n" % size + b"x" * size
    places = sorted({0, len(response), *(cut for cut in cuts if cut < len(response))})
    responses = Responses()
    told = [responses.feed(response[begin:end]) for begin, end in itertools.pairwise(places)]
    assert told == [None] * (len(told) - 1) + [200]


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_what_has_no_end_is_an_error(data: bytes) -> None:
    """The end of the connection and a response without a length are not waited for."""
    with pytest.raises(RuntimeError):
        Responses().feed(data)


class Handler(BaseHTTPRequestHandler):
    """Echoes POSTs, counts those to ``/count``, and refuses those to ``/full``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer at once."""
        self._answer(200, b"pong\n")

    def do_POST(self) -> None:
        """Answer as the path says."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/count":
            self._answer(200, b"%d" % len(body))
        elif self.path == "/large":
            self._answer(200, bytes(1_000_000))
        elif self.path == "/never":
            self.server.shutting_down.wait(20)  # type: ignore[attr-defined]
            self.close_connection = True
        else:
            self._answer(503 if self.path == "/full" else 200, body)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


class Server(ThreadingHTTPServer):
    """A small server, whose handlers that wait can be let go."""

    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.shutting_down = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no error."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a small server."""
    with Server() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server.server_address[1]
        server.shutting_down.set()
        server.shutdown()
        serving.join()


def test_the_client_of_our_own_counts_what_is_answered(port: int) -> None:
    """It posts from all its connections for the time that it is told."""
    answered, seconds = post_for(port, "/", 8, 0.3, b"x" * 100)
    assert answered >= 8
    assert 0.3 <= seconds < 5


def test_the_client_of_our_own_is_a_process_of_its_own(port: int) -> None:
    """Started as the benchmark starts it, it gives a rate."""
    assert requests_per_second_in_python(port, "/", 0.2, usable_cores().client) > 0


def test_the_client_of_our_own_accepts_no_errors(port: int) -> None:
    """An answer that is not 200 ends it."""
    with pytest.raises(RuntimeError, match="503"):
        post_for(port, "/full", 2, 0.2, b"x")
    with pytest.raises(RuntimeError, match="503"):
        requests_per_second_in_python(port, "/full", 0.2, usable_cores().client)


def test_a_small_get_is_timed(port: int) -> None:
    """Each exchange has its time."""
    seconds = ask(port, "/ping", 5, 0.0, 5.0)
    assert len(seconds) == 5
    assert all(0 < each < 5 for each in seconds)


def test_large_bodies_go_up_and_down(port: int) -> None:
    """A body is counted at the other end, and an answer is read no faster than is told."""
    assert up(port, "/count", 1_000_000) > 0
    assert down(port, "/large", 1_000_000, 10e6) >= 0.1


def test_large_bodies_that_do_not_arrive_are_no_figures(port: int) -> None:
    """A wrong count or size is an error."""
    with pytest.raises(RuntimeError):
        up(port, "/full", 1_000)
    with pytest.raises(RuntimeError, match="1000000 bytes"):
        down(port, "/large", 2_000_000, 1e9)


def test_pending_posts_stay_until_the_clients_leave(port: int) -> None:
    """All connections are open within the block, and closed behind it."""
    threads = threading.active_count()
    with pending(port, "/never", 5, b"x") as clients:
        while threading.active_count() < threads + 5:
            time.sleep(0.001)
        none_answered(clients)
    assert all(client.fileno() == -1 for client in clients)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert Responses().read(connection) == 200


def test_posts_that_are_refused_are_not_pending(port: int) -> None:
    """A server that answers at once is not credited with holding them."""
    with pending(port, "/full", 3, b"x") as clients:
        for client in clients:
            client.recv(1, socket.MSG_PEEK)
        with pytest.raises(RuntimeError, match="3 of 3"):
            none_answered(clients)
