"""The emulated link over real sockets: rate, delay, every byte, and every fault.

A busy machine only makes it slower: how exact its times are is shown in virtual time
(`test_rate_limiter.py`) and measured by `benchmarks/proxy.py`.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from midstream_lab.emulation.proxy.proxy import ProxyThread, main, parse_address
from midstream_lab.traces.conditions import condition
from midstream_wire.errors import UsageError

TIMEOUT_S = 10.0
#: More than all buffers between two programs hold: the kernel's are 4 and 6 MiB at most.
LIMIT_NBYTES = 64 << 20

Serve = Callable[[socket.socket], None]
Linked = Callable[..., contextlib.AbstractContextManager[tuple[ProxyThread, socket.socket]]]


def echo(end: socket.socket) -> None:
    while data := end.recv(1 << 16):
        end.sendall(data)
    end.shutdown(socket.SHUT_WR)


def sink(end: socket.socket) -> None:
    """Reads until the end, then says so with one byte."""
    while end.recv(1 << 20):
        pass
    end.sendall(b"!")


@contextlib.contextmanager
def server(serve: Serve) -> Iterator[tuple[str, int]]:
    def accept() -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=run, args=(end,), daemon=True).start()

    def run(end: socket.socket) -> None:
        with end, contextlib.suppress(OSError):
            end.settimeout(TIMEOUT_S)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve(end)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT_S)


@pytest.fixture
def linked() -> Linked:
    @contextlib.contextmanager
    def start(serve: Serve, network: str) -> Iterator[tuple[ProxyThread, socket.socket]]:
        with (
            server(serve) as target,
            ProxyThread(target, condition(network)) as proxy,
            socket.create_connection(proxy.address, TIMEOUT_S) as end,
        ):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield proxy, end

    return start


def receive(end: socket.socket, nbytes: int) -> bytes:
    data = bytearray()
    while len(data) < nbytes:
        piece = end.recv(nbytes - len(data))
        assert piece, f"the connection ended after {len(data)} of {nbytes} bytes"
        data += piece
    return bytes(data)


def send_until_stuck(end: socket.socket) -> int:
    sent, data = 0, bytes(1 << 16)
    with contextlib.suppress(TimeoutError):
        while sent < LIMIT_NBYTES:
            sent += end.send(data)
    return sent


def upload_s(end: socket.socket, nbytes: int) -> float:
    """Until the far end has it all and says so."""
    data = bytes(nbytes)
    begin_s = time.perf_counter()
    end.sendall(data)
    end.shutdown(socket.SHUT_WR)
    receive(end, 1)
    return time.perf_counter() - begin_s


@pytest.mark.parametrize(
    ("rate", "nbytes"), [("2Mbit", 75_000), ("20Mbit", 10**6), ("100Mbit", 5 * 10**6)]
)
def test_nothing_is_faster_than_the_network(linked: Linked, rate: str, nbytes: int) -> None:
    network = condition(f"{rate}:10ms")
    ideal_s = nbytes * 8 / network.uplink_bps + network.rtt_s
    with linked(sink, network.name) as (_, end):
        assert upload_s(end, nbytes) > 0.95 * ideal_s


def test_the_downlink_has_a_rate_of_its_own(linked: Linked) -> None:
    def source(end: socket.socket) -> None:
        end.recv(1)
        end.sendall(bytes(250_000))

    with linked(source, "0.001Mbit:10Mbit:10ms") as (_, end):
        begin_s = time.perf_counter()
        end.sendall(b"?")
        receive(end, 250_000)  # 2,000 s at the uplink's rate
        assert time.perf_counter() - begin_s > 0.2


def test_connections_share_one_line(linked: Linked) -> None:
    with (
        linked(sink, "10Mbit:10ms") as (proxy, first),
        socket.create_connection(proxy.address, TIMEOUT_S) as second,
    ):
        begin_s = time.perf_counter()
        thread = threading.Thread(target=upload_s, args=(second, 125_000))
        thread.start()
        upload_s(first, 125_000)
        thread.join(TIMEOUT_S)
        assert time.perf_counter() - begin_s > 0.95 * 0.2
        assert proxy.stats().uplink.nbytes == 250_000


@pytest.mark.parametrize("rtt_s", [0.0, 0.02, 0.1])
def test_the_round_trip_is_at_least_the_network_s(linked: Linked, rtt_s: float) -> None:
    with linked(echo, f"100Mbit:{rtt_s}s") as (_, end):
        times_s = []
        for _ in range(20):
            begin_s = time.perf_counter()
            end.sendall(b"ping")
            receive(end, 4)
            times_s.append(time.perf_counter() - begin_s)
    assert min(times_s) >= rtt_s


@pytest.mark.parametrize("seed", range(4))
def test_bytes_arrive_unchanged_whatever_their_pieces(linked: Linked, seed: int) -> None:
    rng = random.Random(seed)
    pieces = [rng.randbytes(rng.choice((1, 7, 1000, 20_000, 100_000))) for _ in range(20)]
    sent = b"".join(pieces)
    rate = rng.choice(("30Mbit", "200Mbit", "1Gbit"))
    with linked(echo, f"{rate}:{rng.choice((0, 3))}ms") as (_, end):

        def send() -> None:
            for piece in pieces:
                end.sendall(piece)
            end.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        received = bytearray()
        while data := end.recv(rng.randrange(1, 50_000)):
            received += data
        thread.join(TIMEOUT_S)
    assert bytes(received) == sent, f"seed {seed}"


def test_a_half_closed_connection_still_carries_the_answer(linked: Linked) -> None:
    def reverse(end: socket.socket) -> None:
        received = bytearray()
        while data := end.recv(1 << 16):
            received += data
        end.sendall(received[::-1])

    with linked(reverse, "10Mbit:10ms") as (_, end):
        end.sendall(b"abc")
        end.shutdown(socket.SHUT_WR)
        assert receive(end, 3) == b"cba"
        assert end.recv(1) == b""


def test_a_receiver_that_does_not_read_stops_the_sender(linked: Linked) -> None:
    reading = threading.Event()

    def stubborn(end: socket.socket) -> None:
        reading.wait(TIMEOUT_S)
        sink(end)

    with linked(stubborn, "1Gbit:1ms") as (proxy, end):
        end.settimeout(0.3)
        sent = send_until_stuck(end)
        assert sent < LIMIT_NBYTES
        assert proxy.stats().uplink.queued_nbytes <= 1 << 18
        end.settimeout(TIMEOUT_S)
        reading.set()
        end.shutdown(socket.SHUT_WR)
        assert receive(end, 1) == b"!"
        assert proxy.stats().uplink.nbytes == sent


def test_a_new_condition_holds_for_bytes_already_on_their_way(linked: Linked) -> None:
    with linked(sink, "0.001Mbit:10ms") as (proxy, end):
        threading.Timer(0.2, proxy.set, (condition("50Mbit:10ms"),)).start()
        assert upload_s(end, 100_000) > 0.2  # 800 s at the first rate


def test_a_black_hole_holds_everything_until_it_ends(linked: Linked) -> None:
    with linked(echo, "100Mbit:2ms") as (proxy, end):
        end.sendall(b"one")
        assert receive(end, 3) == b"one"
        proxy.black_hole()
        end.sendall(b"two")
        end.settimeout(0.2)
        with pytest.raises(TimeoutError):
            end.recv(1)
        with socket.create_connection(proxy.address, TIMEOUT_S) as late:
            late.sendall(b"new")
            late.settimeout(0.1)
            with pytest.raises(TimeoutError):
                late.recv(1)
            proxy.restore()
            late.settimeout(TIMEOUT_S)
            assert receive(late, 3) == b"new"
        end.settimeout(TIMEOUT_S)
        assert receive(end, 3) == b"two"


def test_reset_all_breaks_what_is_open_and_welcomes_what_is_new(linked: Linked) -> None:
    with linked(echo, "100Mbit:2ms") as (proxy, end):
        end.sendall(b"one")
        receive(end, 3)
        proxy.reset_all()
        with pytest.raises(ConnectionResetError):
            end.recv(1)
        with socket.create_connection(proxy.address, TIMEOUT_S) as again:
            again.sendall(b"two")
            assert receive(again, 3) == b"two"


def test_refusing_leaves_open_connections_alone(linked: Linked) -> None:
    with linked(echo, "100Mbit:2ms") as (proxy, end):
        end.sendall(b"one")
        receive(end, 3)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address, TIMEOUT_S)
        end.sendall(b"two")
        assert receive(end, 3) == b"two"
        proxy.restore()
        with socket.create_connection(proxy.address, TIMEOUT_S) as again:
            again.sendall(b"new")
            assert receive(again, 3) == b"new"


def test_a_reset_by_the_server_reaches_the_client(linked: Linked) -> None:
    def rude(end: socket.socket) -> None:
        end.recv(1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with linked(rude, "100Mbit:2ms") as (_, end):
        end.sendall(b"?")
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_a_reset_by_the_client_reaches_the_server(linked: Linked) -> None:
    broken = threading.Event()

    def watch(end: socket.socket) -> None:
        try:
            echo(end)
        except ConnectionResetError:
            broken.set()

    with linked(watch, "100Mbit:2ms") as (_, end):
        end.sendall(b"?")
        receive(end, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        end.close()
        assert broken.wait(TIMEOUT_S)


def test_a_target_where_nothing_listens_is_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        target = taken.getsockname()
    with (
        ProxyThread(target, condition("lte")) as proxy,
        pytest.raises(ConnectionResetError),  # on a quick proxy while still connecting
        socket.create_connection(proxy.address, TIMEOUT_S) as end,
    ):
        end.recv(1)


def test_stats_count_bytes_and_connections(linked: Linked) -> None:
    with linked(echo, "100Mbit:2ms") as (proxy, end):
        begin_s = time.perf_counter()
        end.sendall(b"x" * 1000)
        receive(end, 1000)
        stats = proxy.stats()
        took_s = time.perf_counter() - begin_s
        assert (stats.uplink.nbytes, stats.downlink.nbytes) == (1000, 1000)
        assert stats.connections == 1
        assert 0 <= stats.uplink.lateness_p50_s <= stats.uplink.lateness_p99_s <= took_s


def test_a_port_that_is_taken_is_a_usage_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with (
            pytest.raises(UsageError, match="choose another port"),
            ProxyThread(address, condition("lte"), listen=address),
        ):
            pass


def test_the_process_says_where_it_listens_and_stops_cleanly() -> None:
    with server(echo) as (host, port):
        command = [
            sys.executable,
            "-m",
            "midstream_lab.emulation.proxy.proxy",
            "--link",
            "100Mbit:4ms",
        ]
        command += ["--target", f"{host}:{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                address = parse_address(json.loads(process.stdout.readline())["listening"])
                with socket.create_connection(address, TIMEOUT_S) as end:
                    end.sendall(b"one")
                    assert receive(end, 3) == b"one"
                    process.send_signal(signal.SIGTERM)
                    assert end.recv(1) == b""
                stats = json.loads(process.communicate(timeout=TIMEOUT_S)[0])
            finally:
                process.kill()
        assert process.returncode == 0
        assert stats["uplink"]["nbytes"] == stats["downlink"]["nbytes"] == 3


def test_bad_arguments_are_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--target", "nowhere", "--link", "lte"]) == 2
    assert main(["--target", "h:1", "--link", "modem"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") for line in lines)


@pytest.mark.parametrize("text", ["", "host", ":1", "h:", "h:x", "h:70000"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_address(text)
