"""Emulated links as they are used: programs at both ends, cuts, and nothing left behind."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midstream_lab.emulation.emulate import BACKENDS, Backend, Emulation, emulate, why_not
from midstream_lab.emulation.host.namespaces import entered
from midstream_lab.emulation.model.outages import CUTS, Cut
from midstream_lab.emulation.model.spec import GOODPUT_SHARE, LinkSpec, Loss
from midstream_lab.emulation.proxy.proxy import parse_address
from midstream_lab.traces.trace import Trace
from midstream_wire.errors import MidstreamError, UsageError

TIMEOUT_S = 10.0
DELAY_S = 0.02


@functools.cache
def need(backend: str) -> None:
    """Skip, and say why, where this machine does not let us have it."""
    if reason := why_not(backend):
        pytest.skip(f"no {backend} here: {reason}")
    if backend == "kernel":
        try:
            with emulate(LinkSpec(1e7, 1e7, 0.0), backend="kernel", calibrated=False):
                pass
        except MidstreamError as error:
            pytest.skip(f"no kernel here: {error}")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    need(request.param)
    return request.param  # type: ignore[no-any-return]


def spec_for(backend: str, rate_bps: float = 20e6) -> LinkSpec:
    """A kernel without netem has no delay; everything else is alike."""
    return LinkSpec(rate_bps, rate_bps, 0.0 if backend == "kernel" else DELAY_S)


@contextlib.contextmanager
def inside(namespace: str | None) -> Iterator[None]:
    if namespace is None:
        yield
        return
    fd = os.open(namespace, os.O_RDONLY)
    try:
        with entered(fd):
            yield
    finally:
        os.close(fd)


class Ends:
    """A listener in the cloud, and connections to it from the edge."""

    def __init__(self, link: Emulation, stack: contextlib.ExitStack) -> None:
        self._link = link
        self._stack = stack
        with inside(link.cloud_namespace):
            self.listener = stack.enter_context(socket.create_server((link.cloud_address, 0)))
        self.listener.settimeout(TIMEOUT_S)
        self.address = parse_address(
            link.reach("{}:{}".format(*self.listener.getsockname()[:2]))
        )

    def endpoint(self, timeout_s: float = TIMEOUT_S) -> socket.socket:
        with inside(self._link.edge_namespace):
            edge = socket.create_connection(self.address, timeout_s)
        edge.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._stack.enter_context(edge)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        edge = self.endpoint()
        cloud, _ = self.listener.accept()
        cloud.settimeout(TIMEOUT_S)
        cloud.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return edge, self._stack.enter_context(cloud)


@pytest.fixture(scope="module")
def links() -> Iterator[Callable[[str], Emulation]]:
    """One link a backend for all tests that leave it whole: starting one takes a while."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def link(backend: Backend) -> Emulation:
            return stack.enter_context(
                emulate(spec_for(backend), backend=backend, calibrated=False)
            )

        yield link


@pytest.fixture
def shared(
    links: Callable[[str], Emulation], backend: Backend
) -> Iterator[tuple[Emulation, Ends]]:
    link = links(backend)
    link.set(spec_for(backend))
    with contextlib.ExitStack() as stack:
        stack.callback(link.restore)
        yield link, Ends(link, stack)


@contextlib.contextmanager
def ends(spec: LinkSpec, backend: Backend) -> Iterator[tuple[Emulation, Ends]]:
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(emulate(spec, backend=backend, calibrated=False))
        yield link, Ends(link, stack)


def exchange_s(edge: socket.socket, cloud: socket.socket) -> float:
    begun_s = time.perf_counter()
    edge.sendall(b"?")
    assert cloud.recv(1) == b"?"
    cloud.sendall(b"!")
    assert edge.recv(1) == b"!"
    return time.perf_counter() - begun_s


def send_aside(end: socket.socket, data: bytes) -> threading.Thread:
    """Send more than buffers hold, while the caller reads at the other end."""
    thread = threading.Thread(target=end.sendall, args=(data,), daemon=True)
    thread.start()
    return thread


def drain(end: socket.socket, nbytes: int) -> float:
    """Reads so much; the moment of the last byte."""
    while nbytes:
        nbytes -= len(end.recv(min(nbytes, 1 << 16)))
    return time.monotonic()


def test_round_trips_take_the_delay(shared: tuple[Emulation, Ends]) -> None:
    link, both = shared
    edge, cloud = both.pair()
    taken_s = [exchange_s(edge, cloud) for _ in range(20)]
    # How little more they take, `benchmarks/emulation.py` measures.
    assert link.spec.rtt_s <= statistics.median(taken_s) + 0.0001


def test_the_rate_bounds_what_comes_through_and_a_new_one_holds_for_what_waits(
    shared: tuple[Emulation, Ends], backend: Backend
) -> None:
    link, both = shared
    link.set(spec_for(backend, 0.5e6))
    edge, cloud = both.pair()
    begun_s = time.monotonic()
    send_aside(edge, bytes(2_300_000))
    drain(cloud, 50_000)
    link.set(spec_for(backend, 40e6))
    taken_s = drain(cloud, 2_250_000) - begun_s  # 0.5 s at 40 Mbit/s, 37 s at 0.5 Mbit/s
    at_first_s = 50_000 * 8 / (0.5e6 * GOODPUT_SHARE)
    assert at_first_s <= taken_s < at_first_s + 25


def test_calibration_finds_what_was_configured(backend: Backend) -> None:
    with emulate(spec_for(backend), backend=backend) as link:
        found = link.validity()
        assert found.backend == link.backend == backend
        assert found.calibration is not None
        assert abs(found.calibration.uplink_error) < 0.1
        assert abs(found.calibration.downlink_error) < 0.1
        assert found.calibration.rtt_measured_s >= found.calibration.rtt_configured_s - 0.001
        assert found.valid == (not found.why)
        assert link.describe()["validity"]["backend"] == backend


@pytest.mark.parametrize("kind", CUTS)
def test_a_link_is_cut_in_every_way_and_restored(
    shared: tuple[Emulation, Ends], kind: Cut
) -> None:
    link, both = shared
    edge, cloud = both.pair()
    exchange_s(edge, cloud)
    link.cut(kind)
    if kind == "black-hole":
        edge.sendall(b"lost or held")
        cloud.settimeout(0.2)
        with pytest.raises(TimeoutError):
            cloud.recv(1)
    else:
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - the first that notices
            edge.sendall(b"x")
            edge.recv(1)
    if kind == "refuse":
        with pytest.raises(ConnectionRefusedError):
            both.endpoint()
    link.restore()
    exchange_s(*both.pair())


def test_a_reset_reaches_both_ends_of_an_idle_connection_at_once() -> None:
    need("tun")
    with ends(spec_for("tun"), "tun") as (link, both):
        pairs = [both.pair() for _ in range(5)]
        for edge, cloud in pairs:
            exchange_s(edge, cloud)
        link.cut("reset")
        for each in (end for pair in pairs for end in pair):
            with pytest.raises(ConnectionResetError):
                each.recv(1)


def test_new_connections_over_a_reset_link_break_when_they_are_used(
    shared: tuple[Emulation, Ends],
) -> None:
    link, both = shared
    link.cut("reset")
    with pytest.raises(ConnectionError):  # noqa: PT012 - the first that notices
        edge = both.endpoint()
        edge.sendall(b"data")
        edge.recv(1)


def test_tcp_survives_a_black_hole_and_lost_packets() -> None:
    need("tun")
    lossy = LinkSpec(50e6, 50e6, 0.002, loss=Loss.random(0.03), seed=5)
    with ends(lossy, "tun") as (link, both):
        edge, cloud = both.pair()
        data = os.urandom(300_000)
        link.cut("black-hole")
        edge.sendall(data[:1000])
        link.restore()
        send_aside(edge, data[1000:])
        got = bytearray()
        while len(got) < len(data):
            got += cloud.recv(1 << 16)
        assert got == data
        stats = link.stats()
        assert stats.uplink.lost_packets > 0
        assert stats.uplink.cut_packets > 0


def test_a_trace_starts_when_told_and_its_outage_holds_everything(
    shared: tuple[Emulation, Ends], backend: Backend
) -> None:
    link, both = shared
    low_bps = 150e3 if backend == "kernel" else 0.0
    trace = Trace("outage", [0.0, 0.3, 60.0], [low_bps, 20e6])
    link.set(LinkSpec(trace, 20e6, link.spec.delay_s))
    edge, cloud = both.pair()
    exchange_s(edge, cloud)  # before the start, the mean holds
    before_s = time.monotonic()
    origin_s = link.start_trace()
    assert before_s <= origin_s <= time.monotonic()  # one clock, whichever process told it
    send_aside(edge, bytes(60_000))
    assert 0.3 <= drain(cloud, 60_000) - origin_s < 30  # the outage's end, not the trace's


def test_congestion_control_is_pinned_on_both_ends() -> None:
    need("tun")
    spec = LinkSpec(20e6, 20e6, 0.001, congestion="reno")
    with ends(spec, "tun") as (link, both):
        for each in both.pair():
            name = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            assert name.rstrip(b"\0") == b"reno"
        assert link.congestion == link.validity().congestion == "reno"


def test_a_control_that_the_kernel_lacks_is_refused_in_a_sentence() -> None:
    need("tun")
    for name in ("nonesuch", "cubic; true"):
        spec = LinkSpec(1e6, 1e6, 0.001, congestion=name)
        with (
            pytest.raises(UsageError, match="congestion must"),
            emulate(spec, backend="auto", calibrated=False),
        ):
            pass


@pytest.mark.parametrize("backend", ["kernel", "proxy"])
def test_what_a_backend_cannot_do_is_refused_and_the_link_lives_on(
    links: Callable[[str], Emulation], backend: Backend
) -> None:
    need(backend)
    link = links(backend)
    with pytest.raises(UsageError, match="tun"):
        link.set(LinkSpec(1e6, 1e6, 0.01, loss=Loss.random(0.1)))
    with pytest.raises(UsageError, match="cut must"):
        link.cut("sever")  # type: ignore[arg-type]
    assert link.stats().uplink.queued_nbytes >= 0


def test_an_unknown_backend_is_named() -> None:
    with (
        pytest.raises(UsageError, match="backend must be one of"),
        emulate(LinkSpec(1e6, 1e6, 0.01), backend="pigeon"),  # type: ignore[arg-type]
    ):
        pass


def test_several_links_at_once_do_not_meet(
    shared: tuple[Emulation, Ends], backend: Backend
) -> None:
    first, one = shared
    with ends(spec_for(backend), backend) as (_, other):
        first.cut("black-hole")
        exchange_s(*other.pair())
        first.restore()
        exchange_s(*one.pair())


def test_programs_run_at_either_end_by_prefix() -> None:
    need("tun")
    show = ["ip", "-br", "-4", "addr", "show", "link0"]
    with emulate(LinkSpec(1e6, 1e6, 0.001), backend="tun", calibrated=False) as link:
        said = [
            subprocess.run([*prefix, *show], capture_output=True, text=True, check=True).stdout
            for prefix in (link.edge_prefix, link.cloud_prefix)
        ]
        assert "10.77.0.1 " in said[0]
        assert link.cloud_address + " " in said[1]
        assert link.cloud_listen == f"{link.cloud_address}:0"
        assert link.reach("10.77.0.2:50051") == "10.77.0.2:50051"


def seen_devices() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def gone(pid: int) -> bool:
    """Whether a process of ours has ended, within the time that ending takes."""
    until_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        os.sched_yield()
    return False


def test_nothing_is_left_behind_and_nothing_was_touched(backend: Backend) -> None:
    before = (
        seen_devices(),
        set(os.listdir("/run/netns") if os.path.exists("/run/netns") else ()),
    )
    with emulate(spec_for(backend), backend=backend, calibrated=False) as link:
        assert seen_devices() == before[0]
        pid, namespace = link.pid, link.edge_namespace
    assert gone(pid)
    assert namespace is None or not os.path.exists(namespace)
    after = (
        seen_devices(),
        set(os.listdir("/run/netns") if os.path.exists("/run/netns") else ()),
    )
    assert before == after


HOLDER = """
import os, sys
from midstream_lab.emulation.emulate import emulate
from midstream_lab.emulation.model.spec import LinkSpec
spec = LinkSpec(1e7, 1e7, float(sys.argv[2]))
with emulate(spec, backend=sys.argv[1], calibrated=False) as link:
    if not os.fork():  # a child that has inherited the pipe must not keep the link up
        sys.stdin.readline()
        os._exit(0)
    print(link.pid, link.edge_namespace, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_link_goes_with_its_parent_however_that_ends(
    backend: Backend, number: signal.Signals
) -> None:
    arguments = [sys.executable, "-c", HOLDER, backend, str(spec_for(backend).delay_s)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        assert holder.stdout is not None
        pid, namespace = holder.stdout.readline().split()
        assert not namespace.startswith("/proc") or os.path.exists(namespace)
        holder.send_signal(number)
        holder.wait(TIMEOUT_S)
        assert gone(int(pid))
        assert not namespace.startswith("/proc") or not os.path.exists(namespace)


def test_a_link_ends_on_sigterm_and_says_so_to_who_asks(backend: Backend) -> None:
    with emulate(spec_for(backend), backend=backend, calibrated=False) as link:
        os.kill(link.pid, signal.SIGTERM)
        assert gone(link.pid)
        with pytest.raises(MidstreamError, match="must live on"):
            link.stats()
