"""The daemon cannot be held hostage: clients that leave, stall, trickle, flood, or are too many."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource

from deferpost.wire.limits import Limits
from deferpost.wire.site import DeferPostSite
from tests.integration.conftest import StartDaemon
from tests.integration.daemon import (
    ANY_PORT,
    DEFERPOST,
    Connection,
    Daemon,
    wait_until,
)
from tests.integration.hostile import (
    RESET,
    Crowd,
    KilledClient,
    connected,
    pipelined,
    request,
    send_until_full,
    skip_body,
)
from tests.integration.limited import LIMITED
from tests.integration.load import PeakMemory, memory, pool, probe
from tests.integration.test_daemon import certify
from tests.waiting import until

pytestmark = pytest.mark.integration

#: How long something may take that is done at once on a machine that is not busy.
SOON = 20.0

MIB = 2**20

#: Bytes of the large reply.
LARGE = 50_000_000

#: Backlog for hundreds of connections at once.
MANY = ("tcp:0:interface=127.0.0.1:backlog=1024",)

APP = """
import time
from pathlib import Path

from deferpost import App, ThreadPool

app = App(pools={"many": ThreadPool(size=40)})

with open("large", "wb") as file:
    file.truncate(50_000_000)


@app.post("/echo")
def echo(call):
    return call.body.read()


@app.post("/file")
def large(call):
    return Path("large")


@app.post("/pieces", pool="many")
def pieces(call):
    yield b"first"
    try:
        while not (call.canceled or Path("gate").exists()):
            time.sleep(0.005)
        yield b"second"
    finally:
        Path(f"{call.id}.canceled" if call.canceled else f"{call.id}.done").touch()


@app.post("/waits", pool="many")
def waits(call):
    Path(f"{call.id}.begun").touch()
    while not (call.canceled or Path("gate").exists()):
        time.sleep(0.005)
    Path(f"{call.id}.canceled" if call.canceled else f"{call.id}.done").touch()
    return call.id
"""


def file_of(daemon: Daemon, name: str, seconds: float = SOON) -> None:
    """Wait until a handler has made a file of this name."""
    path = daemon.directory / name
    wait_until(path.exists, seconds, lambda: f"{name}\n{daemon.log()[-3000:]}")


def open_gate(daemon: Daemon) -> None:
    """Let the handlers go on that wait for it."""
    (daemon.directory / "gate").touch()


def no_error(daemon: Daemon) -> None:
    """Check that nothing in its log is worse than information."""
    log = daemon.log()
    found = re.search(r"Traceback|Unhandled|#(error|critical)\]", log)
    if found is not None:
        pytest.fail(f"the daemon logged an error:\n{log[max(0, found.start() - 200) :][:3000]}")


def waits(id: str) -> bytes:
    """A request to the handler that waits, which gives its id back."""
    return request("/waits", b"", f"X-Request-ID: {id}")


def is_gone(connection: Connection) -> bool:
    """Whether the other side ends the connection, in whichever way, and sends nothing more."""
    return connection.is_closed()


# Deadlines.


def test_slow_head(daemon: StartDaemon) -> None:
    """A head that takes too long is answered 408, however steadily its bytes come."""
    served = daemon(APP, ["--head-timeout=500ms"])
    with served.connect() as slow:
        start = time.monotonic()
        stop = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                for byte in request("/echo", b"", "X-Padding: " + "x" * 10_000):
                    slow.send(bytes([byte]))
                    if stop.wait(0.05):
                        break

        thread = threading.Thread(target=trickle)
        thread.start()
        assert slow.response().status == 408
        stop.set()
        thread.join()
        assert 0.4 < time.monotonic() - start < SOON
    no_error(served)


def test_empty_lines_are_no_request(daemon: StartDaemon) -> None:
    """A client that sends an empty line now and then is as idle as one that sends nothing."""
    served = daemon(APP, ["--idle-timeout=500ms", "--head-timeout=400ms"])
    for pieces in ([b"\r\n"], [b"\r", b"\n"]):
        with served.connect(0.1) as idle:
            deadline = time.monotonic() + SOON
            turn = 0
            while time.monotonic() < deadline:
                try:
                    idle.send(pieces[turn % len(pieces)])
                    turn += 1
                    idle.socket.recv(1000)
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
                break
            else:
                pytest.fail("it lives for ever")


def test_idle_connections(daemon: StartDaemon) -> None:
    """A connection without a request is closed, one that was never used and one that was."""
    served = daemon(APP, ["--idle-timeout=500ms"])
    with served.connect() as unused, served.connect() as used:
        used.send(request("/echo", b"x"))
        assert used.response().body == b"x"
        start = time.monotonic()
        assert is_gone(unused)
        assert is_gone(used)
        assert time.monotonic() - start < SOON


def test_pending_is_not_idle(daemon: StartDaemon) -> None:
    """While a request is pending its client may be silent for longer than all the deadlines."""
    served = daemon(
        APP,
        ["--idle-timeout=300ms", "--head-timeout=300ms", "--write-timeout=300ms"],
    )
    with served.connect() as patient:
        patient.send(waits("patient"))
        file_of(served, "patient.begun")
        with served.connect() as idle:  # which shows that the deadlines have passed
            assert is_gone(idle)
        open_gate(served)
        assert patient.response().body == b"patient"


def test_minimum_rate(daemon: StartDaemon) -> None:
    """A body that comes too slowly is answered 408; one at twice the least rate is not."""
    limited = daemon(APP, ["min_body_rate=2000", "body_window=1.0"], command=LIMITED)
    served = daemon(APP, ["--min-body-rate=1MiB"])  # whose time is that of the defaults
    size = 12_000
    with served.connect(60) as of_daemon, limited.connect() as slow, limited.connect() as fast:
        of_daemon.send(request("/echo", b"x" * size)[:-size])
        began = time.monotonic()
        slow.send(request("/echo", b"x" * size)[:-size])
        fast.send(request("/echo", b"x" * size)[:-size])
        stop = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    slow.send(b"x" * 20)  # 400 a second

        thread = threading.Thread(target=trickle)
        thread.start()
        start = time.monotonic()
        for _ in range(size // 400):
            fast.send(b"x" * 400)
            time.sleep(0.1)  # 4000 a second
        assert fast.response().body == b"x" * size
        assert time.monotonic() - start > 2
        assert slow.response().status == 408
        stop.set()
        thread.join()
        assert of_daemon.response().status == 408
        assert time.monotonic() - began > Limits().body_window - 1
    no_error(limited)
    no_error(served)


def test_minimum_rate_of_chunks(daemon: StartDaemon) -> None:
    """A chunked body has the same deadline, when nothing comes at all too."""
    limited = daemon(APP, ["min_body_rate=100", "body_window=0.5"], command=LIMITED)
    with limited.connect() as slow:
        slow.request("POST", "/echo", None, "Transfer-Encoding: chunked")
        slow.send(b"5\r\nhello\r\n")
        assert slow.response().status == 408


def test_stalled_reader(daemon: StartDaemon) -> None:
    """A client that reads nothing of its reply is cut off, one that reads slowly is not."""
    served = daemon(APP, ["--write-timeout=500ms"])
    with (
        connected(served, receive_buffer=4096) as stalled,
        connected(served, receive_buffer=65536) as slow,
    ):
        stalled.send(request("/file", b"", "X-Request-ID: stalled"))
        slow.send(request("/file"))
        assert stalled.head().status == 200
        assert slow.head().status == 200
        start = time.monotonic()
        size = LARGE
        read = len(slow.rest_so_far())
        # Some 10 MB/s at first: what is under way in the systems' buffers goes on for a while.
        while time.monotonic() - start < 2.5:
            read += len(slow.socket.recv(100_000))
            time.sleep(0.05)
        assert read < size, "it was not slow"
        assert served.log_lines("id=stalled "), "nobody noticed the other"
        skip_body(slow, size - read)
    assert '" 499 ' in served.log_lines("id=stalled ")[0]
    no_error(served)


def test_stalled_reader_that_pipelines(daemon: StartDaemon) -> None:
    """What a slow reader has pipelined does not shorten the time that it has."""
    served = daemon(APP, ["--write-timeout=4s", "--max-pipelined=4KiB"])
    with connected(served, receive_buffer=65536) as slow:
        slow.send(request("/file"))
        assert slow.head().status == 200
        send_until_full(slow, pipelined(100_000))
        time.sleep(1.5)  # less than it may, and more than until the daemon looks for clients
        skip_body(slow, LARGE)
        for _ in range(len(pipelined(100_000)) // len(pipelined(1))):
            assert slow.response().status == 200
    no_error(served)


# Clients that leave.

AMOUNTS = {"nothing": 0, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000, "8 MB": 8_000_000}


def leave(daemon: Daemon, how: str, id: str, size: int) -> Callable[[], None]:
    """Begin a request, with more behind it; returns what makes its client leave."""
    if how == "killed":
        one = request("/echo", b"x" * 900)
        client = KilledClient(daemon.port, waits(id), one, -(-size // len(one)))
        client.wait_sent()
        return client.kill
    connection = daemon.connect()
    connection.send(waits(id))
    send_until_full(connection, pipelined(size))
    if how == "reset":
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return connection.close


@pytest.mark.parametrize("how", ["closed", "killed", "reset"])
def test_departures(daemon: StartDaemon, how: str) -> None:
    """A client that leaves is noticed soon, whatever it pipelined behind its request."""
    served = daemon(APP)
    leaving = {}
    for size in AMOUNTS.values():
        id = f"{how}{size}"
        leaving[id] = leave(served, how, id, size)
        file_of(served, f"{id}.begun")
    for leaves in leaving.values():
        leaves()
    for id in leaving:
        file_of(served, f"{id}.canceled")
        # The handler may hear of it before the line of the request is written.
        wait_until(partial(served.log_lines, f"id={id} "), SOON, f"{id} is logged")
        assert '" 499 ' in served.log_lines(f"id={id} ")[0]
    no_error(served)
    with served.connect() as good:
        good.send(request("/echo", b"still here"))
        assert good.response().body == b"still here"


def test_half_closed(daemon: StartDaemon) -> None:
    """A client that has ended its side gets its answer, whole and correct."""
    served = daemon(APP)
    with (
        served.connect() as half,
        served.connect() as several,
        served.connect() as many,
        served.connect() as at_once,
    ):
        half.send(waits("half"))
        several.send(b"".join(waits(f"several{number}") for number in range(5)))
        answers = 300
        many.send(waits("many") + request("/echo", b"x" * 500) * answers)
        at_once.send(request("/missing") * answers)  # no handler is asked
        for each in (half, several, many, at_once):
            each.socket.shutdown(socket.SHUT_WR)
        for _ in range(answers):
            assert at_once.response().status == 404
        assert is_gone(at_once)
        for id in ("half", "several0", "many"):
            file_of(served, f"{id}.begun")
        time.sleep(1.2)  # in which bytes of the status line are sent to find out who is there
        open_gate(served)
        assert half.response().body == b"half"
        assert [several.response().body for _ in range(5)] == [
            f"several{number}".encode() for number in range(5)
        ]
        assert many.response().body == b"many"
        for _ in range(answers):
            assert many.response().body == b"x" * 500
        for each in (half, several, many):
            assert is_gone(each)
    assert not list(served.directory.glob("*.canceled"))
    no_error(served)


def test_half_closed_gets_a_large_reply(daemon: StartDaemon) -> None:
    """A half-closed client gets a reply that takes a while to read, and the next one."""
    served = daemon(APP)
    with connected(served, receive_buffer=65536) as half:
        half.send(request("/file") + request("/echo", b"behind"))
        half.socket.shutdown(socket.SHUT_WR)
        assert half.head().status == 200
        skip_body(half, LARGE)
        assert half.response().body == b"behind"
        assert is_gone(half)


@pytest.mark.parametrize("size", [0, 100_000, 1_000_000])
def test_leaves_in_mid_answer(daemon: StartDaemon, size: int) -> None:
    """A client that leaves between two pieces of its answer is noticed; who waits gets them all."""
    served = daemon(APP)
    with served.connect() as waiting:
        waiting.send(request("/pieces", b"", "X-Request-ID: waiting"))
        waiting.socket.shutdown(socket.SHUT_WR)
        assert waiting.head().status == 200
        assert waiting.chunk() == b"first"
        with served.connect() as leaves:
            leaves.send(request("/pieces", b"", "X-Request-ID: leaves"))
            assert leaves.head().status == 200
            assert leaves.chunk() == b"first"
            send_until_full(leaves, pipelined(size))
        file_of(served, "leaves.canceled")
        time.sleep(0.7)  # in which a byte of the next chunk is sent ahead once more
        open_gate(served)
        assert waiting.chunk() == b"second"
        assert waiting.chunk() == b""
        assert is_gone(waiting)
    no_error(served)


@pytest.mark.parametrize("size", [0, 100_000])
def test_half_closed_and_leaves(daemon: StartDaemon, size: int) -> None:
    """A client that ends its side, waits and then leaves is noticed too."""
    served = daemon(APP)
    with served.connect() as half:
        half.send(waits("half"))
        send_until_full(half, pipelined(size))
        half.socket.shutdown(socket.SHUT_WR)
        file_of(served, "half.begun")
        time.sleep(1)
        assert not (served.directory / "half.canceled").exists()
    file_of(served, "half.canceled")
    no_error(served)


def test_departure_over_tls(daemon: StartDaemon, tmp_path: Path) -> None:
    """Over TLS a client that leaves is noticed alike, with or without a word before."""
    certificate, key = certify(tmp_path)
    served = daemon(
        APP, listen=[f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"]
    )
    context = ssl.create_default_context(cafile=os.fspath(certificate))
    leaving = []
    for how in ("closes", "unwraps"):
        for size in (0, 100_000, 1_000_000):
            plain = socket.create_connection(("127.0.0.1", served.port), 20)
            encrypted = context.wrap_socket(plain, server_hostname="localhost")
            connection = Connection(encrypted)
            id = f"{how}{size}"
            connection.send(waits(id))
            send_until_full(connection, pipelined(size))
            file_of(served, f"{id}.begun")
            leaving.append((id, how, encrypted))
    for _, how, encrypted in leaving:
        if how == "unwraps":
            encrypted.settimeout(0.2)
            with contextlib.suppress(OSError):
                encrypted.unwrap()
        encrypted.close()
    for id, _, _ in leaving:
        file_of(served, f"{id}.canceled")
    no_error(served)


def test_tls(daemon: StartDaemon, tmp_path: Path) -> None:
    """TLS speaks HTTP/1.1 alone, ends cleanly, and cannot be held by a client that says nothing."""
    certificate, key = certify(tmp_path)
    served = daemon(
        APP,
        ["--idle-timeout=500ms", "--linger=500ms", "--write-timeout=500ms"],
        listen=[f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"],
    )
    context = ssl.create_default_context(cafile=os.fspath(certificate))
    context.set_alpn_protocols(["h2", "http/1.1"])

    def encrypted() -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", served.port), 20)
        return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)

    with encrypted() as first:
        assert first.selected_alpn_protocol() == "http/1.1"
        first.sendall(request("/echo", b"x", "Connection: close"))
        closes = Connection(first)
        assert closes.response().body == b"x"
        assert first.recv(1) == b"", "an end that TLS does not know is an error here"
    with encrypted() as refused:  # and lingers
        refused.sendall(b"POST / HTTP/2.0\r\nHost: test\r\n\r\n" + b"x" * 100)
        connection = Connection(refused)
        assert connection.response().status == 505
        assert refused.recv(1) == b""
    with encrypted() as silent:  # it does not answer the end
        deadline = time.monotonic() + SOON
        plain_end = os.dup(silent.fileno())
        raw = socket.socket(fileno=plain_end)
        with raw:
            raw.settimeout(SOON)
            with contextlib.suppress(ConnectionError):
                while raw.recv(65536):
                    assert time.monotonic() < deadline
    with served.connect() as no_handshake:
        no_handshake.send(b"\x16\x03\x01\x02\x00\x01\x00")
        assert is_gone(no_handshake)
    no_error(served)


def test_unix_socket(daemon: StartDaemon, tmp_path: Path) -> None:
    """On a Unix socket clients are served, refused, noticed when they leave, and cut off alike."""
    path = tmp_path / "socket"
    served = daemon(APP, ["--head-timeout=500ms"], listen=[f"unix:{path}", ANY_PORT])
    served.wait_listening(2)
    leaving = []
    for size in (0, 100_000, 1_000_000):
        client = Connection.unix(path)
        client.send(waits(f"unix{size}"))
        send_until_full(client, pipelined(size))
        file_of(served, f"unix{size}.begun")
        leaving.append(client)
    for client in leaving:
        client.close()
    for size in (0, 100_000, 1_000_000):
        file_of(served, f"unix{size}.canceled")
    with Connection.unix(path) as slow:
        slow.send(b"POST ")
        assert slow.response().status == 408
    with Connection.unix(path) as half:
        half.send(waits("half") + request("/echo", b"y"))
        half.socket.shutdown(socket.SHUT_WR)
        file_of(served, "half.begun")
        open_gate(served)
        assert half.response().body == b"half"
        assert half.response().body == b"y"
        assert is_gone(half)
    with Connection.unix(path) as large:
        large.send(request("/file"))
        assert large.head().status == 200
        skip_body(large, LARGE)
    no_error(served)


# Clients that do not read.


def test_thousand_pipelined(daemon: StartDaemon) -> None:
    """A thousand small requests in one write are answered in order."""
    served = daemon(APP)
    count = 1_000
    with served.connect() as eager:
        bodies = [f"number {number}".encode() for number in range(count)]
        sender = threading.Thread(
            target=eager.send, args=(b"".join(request("/echo", body) for body in bodies),)
        )
        sender.start()
        assert [eager.response().body for _ in range(count)] == bodies
        sender.join()
    no_error(served)


@pytest.mark.parametrize("command", ["daemon", "stock resource"])
def test_pipelining_without_reading(daemon: StartDaemon, command: str) -> None:
    """Clients that pipeline and do not read make the server keep no more than a bound for each."""
    path, kept = "/file", 12
    if command == "daemon":
        served = daemon(APP, ["--write-timeout=1m"])
    else:  # a resource of twisted.web's, which knows nothing of us
        served = daemon(APP, ["file=large"], command=LIMITED)
    with contextlib.ExitStack() as stack:
        with served.connect() as first:
            first.send(request("/echo", b"x"))
            first.response()
        peak = PeakMemory(served.pid)
        method = "POST" if command == "daemon" else "GET"
        flood = request(path, b"", method=method) * 20_000  # some 1 MB
        accepted = []
        for _ in range(kept):
            client = stack.enter_context(connected(served, receive_buffer=4096))
            accepted.append(send_until_full(client, flood, 0.1))
            small = stack.enter_context(connected(served, receive_buffer=4096))
            send_until_full(small, request("/missing") * 20_000, 0.1)
        assert probe(served, 50, "/readyz").median < 1_000
        growth = peak.growth()
        assert growth < 32 * MIB, f"{growth / MIB:.0f} MiB; taken {accepted}"
    if command == "daemon":
        wait_until(lambda: pool(served, "thread") == (0, 0), SOON, "the pool is idle")
    no_error(served)


@pytest.mark.alone
def test_good_clients_keep_their_latency(daemon: StartDaemon) -> None:
    """Beside two hundred clients that trickle, stall and flood, good requests are answered."""
    served = daemon(APP, listen=MANY)

    def good() -> float:
        """The time within which 99 of 100 are answered."""
        times = []
        with served.connect() as client:
            for _ in range(200):
                start = time.monotonic()
                client.send(request("/echo", b"x" * 100))
                assert client.response().status == 200
                times.append(time.monotonic() - start)
        return sorted(times)[-3]

    alone = good()
    before = memory(served.pid)
    with Crowd(served.port, 200):
        beside = [good() for _ in range(3)]
        growth = memory(served.pid) - before
    # The clients share the processors with the daemon, and others with both.
    assert sorted(beside)[1] < max(0.25, 50 * alone), (alone, beside)
    assert max(beside) < 5, "not even while they come"
    assert growth < 64 * MIB, f"{growth / MIB:.0f} MiB"
    no_error(served)


# Clients that are too many.


def test_most_connections(daemon: StartDaemon) -> None:
    """A connection too many is told so with 503, and there is room again when one closes."""
    served = daemon(APP, ["--max-connections=10"])

    def is_refused() -> bool:
        with served.connect() as one_more:
            one_more.send(request("/echo", b"x" * 200_000))  # unread, it must not reset the answer
            response = one_more.response()
            if response.status == 200:
                return False
            assert response.status == 503
            assert response.headers["content-type"] == "application/problem+json"
            assert int(response.headers["retry-after"]) > 0
            assert json.loads(response.body)["status"] == 503
            return True

    with contextlib.ExitStack() as stack:
        held: list[Connection] = []
        while len(held) < 10:  # the connection by which it was seen to listen may still count
            client = stack.enter_context(served.connect())
            client.send(request("/echo", b"x"))
            if client.response().status == 200:
                held.append(client)
        for _ in range(5):
            assert is_refused()
        held[0].close()
        wait_until(lambda: not is_refused(), SOON, "there is room again")
        held[1].send(request("/echo", b"x"))
        assert held[1].response().body == b"x", "who was there is served"
    wait_until(lambda: not is_refused(), SOON, "there is room")
    no_error(served)


def test_turned_away_do_not_stay(daemon: StartDaemon) -> None:
    """Clients that are turned away and do not close hold no descriptor for longer than linger."""
    served = daemon(APP, ["--max-connections=5", "--linger=500ms", "--idle-timeout=1h"])
    descriptors = Path(f"/proc/{served.pid}/fd")
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(served.connect())
        one_more = stack.enter_context(served.connect())
        assert one_more.response().status == 503
        few = len(list(descriptors.iterdir()))
        for _ in range(60):
            stack.enter_context(served.connect())
        wait_until(lambda: len(list(descriptors.iterdir())) <= few, SOON, "they are gone")


def test_most_connections_of_a_client(daemon: StartDaemon) -> None:
    """A client address with too many connections gets 429; others are served."""
    served = daemon(APP, ["--max-connections-per-client=3"])

    def status(source: str) -> int:
        with socket.create_connection(
            ("127.0.0.1", served.port), 20, source_address=(source, 0)
        ) as plain:
            connection = Connection(plain)
            connection.send(request("/echo", b"x"))
            return connection.response().status

    with contextlib.ExitStack() as stack:
        # The look whether it listens was a connection too, of which it may not have seen the end.
        wait_until(lambda: status("127.0.0.1") == 200, SOON, "it serves")
        held: list[Connection] = []

        def hold() -> bool:
            connection = stack.enter_context(served.connect())
            connection.send(request("/echo", b"x"))
            if connection.response().status == 200:
                held.append(connection)
            return len(held) == 3

        wait_until(hold, SOON, "it serves three at once")
        assert status("127.0.0.1") == 429
        assert status("127.0.0.2") == 200
        held[0].close()
        wait_until(lambda: status("127.0.0.1") == 200, SOON, "there is room again")
    no_error(served)


def test_resets_at_once_take_no_room(daemon: StartDaemon) -> None:
    """Connections that are reset as soon as they are made are not counted for ever."""
    served = daemon(APP, ["--max-connections=20", "--max-connections-per-client=20"], listen=MANY)
    for _ in range(200):
        plain = socket.create_connection(("127.0.0.1", served.port), 20)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        plain.close()

    def is_served() -> bool:
        with served.connect() as client:
            client.send(request("/echo", b"x"))
            return client.response().status == 200

    wait_until(is_served, SOON, "there is room")
    no_error(served)


def test_more_connections_than_descriptors(daemon: StartDaemon) -> None:
    """More connections than the process may have descriptors do no lasting harm."""
    few = ("/bin/sh", "-c", 'ulimit -n 64; exec "$0" "$@"', *DEFERPOST)
    served = daemon(APP, command=few, listen=MANY)
    with contextlib.ExitStack() as stack:
        waiting = stack.enter_context(served.connect())
        waiting.send(waits("waiting"))
        file_of(served, "waiting.begun")
        leaver = served.connect()
        leaver.send(waits("leaver"))
        file_of(served, "leaver.begun")
        crowd = []
        for _ in range(150):
            crowd.append(stack.enter_context(served.connect()))
        descriptors = Path(f"/proc/{served.pid}/fd")
        wait_until(lambda: len(list(descriptors.iterdir())) > 60, SOON, "there are no more")
        # Who is there is looked after as always, and the handlers cannot make a file either.
        send_until_full(leaver, pipelined(100_000), 0.1)
        leaver.close()
        wait_until(lambda: served.log_lines("id=leaver "), SOON, "the other is noticed")
        for client in crowd:
            client.close()
        open_gate(served)
        assert waiting.response().status in (200, 500)  # its handler makes a file, too

    def is_served() -> bool:
        with contextlib.suppress(ConnectionError, AssertionError), served.connect() as client:
            client.send(request("/echo", b"x"))
            return client.response().status == 200
        return False

    wait_until(is_served, SOON, "there is room")
    with served.connect() as client:
        client.send(request("/echo", b"x" * 200_000))
        assert client.response().body == b"x" * 200_000
    assert "deferpost/wire" not in served.log(), served.log()


# The system's own means.


@pytest_twisted.ensureDeferred
async def test_probes_of_the_system() -> None:
    """The system is told to probe silent clients, and when to give up on those without a sign."""
    from twisted.internet import reactor

    site = DeferPostSite(
        Resource(), limits=Limits(tcp_keepalive=42, tcp_user_timeout=7.5, write_timeout=5.0)
    )
    plain = DeferPostSite(Resource(), limits=Limits(tcp_keepalive=0, tcp_user_timeout=0))
    listening: Any = reactor
    for each in (site, plain):
        each.noisy = False
        port = listening.listenTCP(0, each, interface="127.0.0.1")
        client = await deferToThread(
            socket.create_connection, ("127.0.0.1", port.getHost().port), 10
        )
        try:
            await until(lambda each=each: each.channels, "it is connected")  # type: ignore[misc]
            (channel,) = each.channels
            below: socket.socket = channel.transport.socket

            def option(level: int, name: int, below: socket.socket = below) -> int:
                return below.getsockopt(level, name)

            tcp = socket.IPPROTO_TCP
            assert option(tcp, socket.TCP_NODELAY)
            if each is plain:
                assert not option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert option(tcp, socket.TCP_USER_TIMEOUT) == 0
            else:
                assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert option(tcp, socket.TCP_KEEPIDLE) == 42
                assert option(tcp, socket.TCP_USER_TIMEOUT) == 7500
        finally:
            client.close()
            await until(lambda each=each: not each.channels, "it is gone")  # type: ignore[misc]
            await port.stopListening()
