"""The core of simulations: order, closed forms of queues, a link by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_lab.simulation.kernel.event_queue import Core, Steps
from midstream_lab.simulation.kernel.random_streams import Draws
from midstream_lab.simulation.model.arrivals import (
    Bursts,
    Closed,
    Diurnal,
    Every,
    Open,
    Poisson,
)
from midstream_lab.simulation.model.cloud import Autoscaling, Replicas, balancer
from midstream_lab.simulation.model.congestion_window import FIRST_SEGMENTS
from midstream_lab.simulation.model.link_spec import Network, steady
from midstream_lab.simulation.model.replica import Batching, Replica
from midstream_lab.simulation.model.tcp_flow import SEGMENT_PAYLOAD_NBYTES, Line
from midstream_lab.traces.conditions import condition
from midstream_lab.traces.trace import Trace
from midstream_wire.errors import UsageError


@dataclass
class Piece:
    """A bit of work for a replica."""

    service_s: float
    kind: int = 0
    queued_s: float = -1.0
    started_s: float = -1.0
    ended_s: float = -1.0


def test_events_happen_in_order_and_equals_as_they_were_scheduled() -> None:
    core, seen = Core(), list[str]()
    for at_s, name in ((2.0, "c"), (1.0, "a"), (2.0, "d"), (1.0, "b"), (math.inf, "never")):
        core.at(at_s, seen.append, name)
    core.run(1.5)
    assert (seen, core.now_s) == (["a", "b"], 1.5)
    core.run()
    assert (seen, core.now_s) == (["a", "b", "c", "d"], 2.0)


def test_a_process_goes_on_after_each_pause() -> None:
    core, seen = Core(), []

    def steps() -> Steps:
        for pause_s in (0.5, 0.0, 2.0):
            yield pause_s
            seen.append(core.now_s)

    core.at(1.0, lambda _: core.process(steps()))
    core.run()
    assert seen == [1.5, 1.5, 3.5]


@dataclass
class Queue:
    """A replica fed by a Poisson process; what waits and stays, without the first tenth."""

    rate_hz: float
    mean_s: float
    workers: int = 1
    random: bool = True
    count: int = 150_000
    done: list[Piece] = field(default_factory=list)

    def run(self) -> tuple[float, float]:
        core, draws = Core(), Draws(7)
        replica: Replica = Replica(core, self._end, workers=self.workers, most_queued=10**9)
        self._core = core

        def feed(number: int) -> None:
            service_s = draws.exponential(self.mean_s) if self.random else self.mean_s
            assert replica.take(Piece(service_s))
            if number < self.count:
                core.at(core.now_s + draws.exponential(1 / self.rate_hz), feed, number + 1)

        core.at(0.0, feed, 1)
        core.run()
        kept = self.done[self.count // 10 :]
        waits = [piece.started_s - piece.queued_s for piece in kept]
        stays = [piece.ended_s - piece.queued_s for piece in kept]
        return float(np.mean(waits)), float(np.mean(stays))

    def _end(self, piece: object) -> None:
        assert isinstance(piece, Piece)
        piece.ended_s = self._core.now_s
        self.done.append(piece)


def erlang_c(servers: int, load: float) -> float:
    """The probability to wait (Erlang 1917), `load` = rate times service time."""
    terms = [load**n / math.factorial(n) for n in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_worker_waits_as_the_closed_form_says(load: float) -> None:
    """M/M/1: W = rho / (mu - lambda)."""
    wait_s, stay_s = Queue(rate_hz=load, mean_s=1.0).run()
    assert wait_s == pytest.approx(load / (1 - load), rel=0.06)
    assert stay_s == pytest.approx(1 / (1 - load), rel=0.05)


@pytest.mark.parametrize(("workers", "load"), [(2, 0.7), (4, 0.8), (16, 0.9)])
def test_several_workers_wait_as_the_closed_form_says(workers: int, load: float) -> None:
    """M/M/c: W = C(c, a) / (c mu - lambda)."""
    rate_hz = workers * load
    wait_s, _ = Queue(rate_hz=rate_hz, mean_s=1.0, workers=workers).run()
    assert wait_s == pytest.approx(erlang_c(workers, rate_hz) / (workers - rate_hz), rel=0.1)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_even_service_times_wait_half_as_long(load: float) -> None:
    """M/D/1 (Pollaczek and Khinchine): W = rho / (2 mu (1 - rho))."""
    wait_s, _ = Queue(rate_hz=load, mean_s=1.0, random=False).run()
    assert wait_s == pytest.approx(load / (2 * (1 - load)), rel=0.06)


def served(batching: Batching, *pieces: tuple[float, Piece], workers: int = 1) -> Replica:
    core = Core()

    def end(piece: object) -> None:
        assert isinstance(piece, Piece)
        piece.ended_s = core.now_s

    replica = Replica(core, end, workers=workers, batching=batching, most_queued=4)
    for at_s, piece in pieces:
        core.at(at_s, replica.take, piece)
    core.run()
    return replica


def test_a_batch_waits_for_its_like_and_costs_less_than_its_parts() -> None:
    first, other, second = Piece(1.0), Piece(1.0, kind=1), Piece(2.0)
    batching = Batching(most=2, wait_s=0.5, marginal=0.25)
    replica = served(batching, (0.0, first), (0.1, other), (0.2, second))
    assert (first.started_s, second.started_s) == (0.2, 0.2)  # it is full
    assert (first.ended_s, second.ended_s) == (2.7, 2.7)  # 0.2 + 2.0 * 1.25
    assert (other.started_s, other.ended_s) == (2.7, 3.7)
    assert (replica.served, replica.batches, replica.busy_s) == (3, 2, 3.5)


def test_a_batch_that_does_not_fill_starts_after_its_wait() -> None:
    first, other = Piece(1.0), Piece(1.0, kind=1)
    served(Batching(most=2, wait_s=0.5, marginal=0.25), (0.0, first), (0.1, other))
    assert (first.started_s, other.started_s) == (0.5, 1.5)


def test_a_full_batch_waits_no_longer() -> None:
    pieces = [Piece(1.0) for _ in range(2)]
    served(Batching(most=2, wait_s=9.0, marginal=0.0), *((0.0, piece) for piece in pieces))
    assert [piece.ended_s for piece in pieces] == [1.0, 1.0]


def test_a_full_queue_and_a_dead_replica_take_nothing() -> None:
    replica = served(Batching(), *((0.0, Piece(1.0)) for _ in range(7)))
    assert replica.served == 5  # one that runs, four that wait
    replica.crash()
    assert not replica.take(Piece(1.0))
    replica.restart()
    assert replica.take(Piece(1.0))


@pytest.mark.parametrize("kind", ["round-robin", "least-outstanding", "power-of-two"])
def test_balancers_spread_what_comes(kind: str) -> None:
    core = Core()
    replicas = [Replica(core, lambda _: None) for _ in range(4)]
    chooser = balancer(kind, Draws(1))  # type: ignore[arg-type]
    for _ in range(400):
        chooser.choose(replicas).load += 1
    loads = [replica.load for replica in replicas]
    assert sum(loads) == 400
    assert max(loads) - min(loads) <= (0 if kind != "power-of-two" else 10)


@pytest.mark.parametrize(
    "arrivals",
    [Every(0.5), Poisson(2.0), Bursts(8.0, on_s=5.0, off_s=15.0), Diurnal(2.0, 0.9, 200.0)],
)
def test_requests_come_as_often_as_their_process_says(arrivals: Open) -> None:
    draws = Draws(3)
    at_s, count = arrivals.first_s(draws), 0
    while at_s < 10_000:
        count += 1
        at_s, before_s = arrivals.next_s(at_s, draws), at_s
        assert at_s > before_s
    assert count == pytest.approx(20_000, rel=0.1)


def test_a_diurnal_process_sleeps_at_night() -> None:
    draws, arrivals = Draws(3), Diurnal(10.0, 0.9, 1000.0)
    at_s, hours = 0.0, [0, 0]
    while at_s < 20_000:
        at_s = arrivals.next_s(at_s, draws)
        hours[250 <= at_s % 1000 < 750] += 1
    # The mean of 1 -+ 0.9 cos over half a period is 1 -+ 0.573.
    assert hours[1] / hours[0] == pytest.approx(1.573 / 0.427, rel=0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Every(0.0),
        lambda: Poisson(math.inf),
        lambda: Closed(-1.0),
        lambda: Bursts(1.0, 0.0, 1.0),
        lambda: Diurnal(1.0, 1.5),
        lambda: Batching(most=0),
        lambda: Replicas(count=0),
        lambda: Autoscaling(least=3, most=2),
    ],
)
def test_figures_that_cannot_be_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(UsageError):
        make()


def line(network: Network) -> Line:
    return Line(network, network.payload_up)


def fast(rate_bps: float, rtt_s: float = 0.1, **fields: float) -> Network:
    return Network(steady(rate_bps), steady(rate_bps), rtt_s, fixed_s=0.0, **fields)  # type: ignore[arg-type]


def test_a_small_transfer_takes_its_bits_and_half_a_round_trip() -> None:
    assert line(fast(8e6)).send(1.0, 1000) == pytest.approx(1.0 + 0.001 + 0.05)


def test_a_large_transfer_starts_slowly_and_then_fills_the_line() -> None:
    first = FIRST_SEGMENTS * SEGMENT_PAYLOAD_NBYTES
    link = line(fast(1e9))
    # Ten segments, then twenty, then the rest: two round trips more than a full line takes.
    arrived_s = link.send(0.0, 5 * first)
    assert arrived_s == pytest.approx(0.05 + 0.2 + 2 * first * 8 / 1e9, abs=1e-4)
    # The window has grown, so the same again takes no round trip more...
    again_s = link.send(1.0e-9 + arrived_s, first * 4)
    assert again_s - arrived_s == pytest.approx(0.05 + first * 32 / 1e9, rel=1e-3)
    # ...and after a long rest all is as at first.
    late_s = link.send(100.0, 5 * first)
    assert late_s - 100.0 == pytest.approx(arrived_s)


@given(st.floats(1e5, 1e9), st.floats(0.0, 0.3), st.integers(1, 3_000_000))
def test_slow_start_costs_no_more_than_its_round_trips(
    rate_bps: float, rtt_s: float, nbytes: int
) -> None:
    """Where no queue overflows, and by Reno: Cubic may end slow start early (HyStart)."""
    network = replace(fast(rate_bps, rtt_s), congestion="reno", queue_nbytes=10**9)
    took_s = line(network).send(0.0, nbytes) - rtt_s / 2
    rounds = math.ceil(math.log2(nbytes / (FIRST_SEGMENTS * SEGMENT_PAYLOAD_NBYTES) + 1))
    assert nbytes * 8 / rate_bps * (1 - 1e-9) <= took_s
    assert took_s <= nbytes * 8 / rate_bps + rounds * rtt_s + 1e-9


def test_transfers_keep_their_order_and_wait_for_the_line() -> None:
    link = line(fast(8e6))
    first_s, second_s = link.send(0.0, 1000), link.send(0.0, 1000)
    assert second_s - first_s == pytest.approx(0.001)
    assert link.backlog_nbytes(0.0) == 2000
    assert link.backlog_nbytes(0.0005 + 0.1) == pytest.approx(1000, abs=501)
    assert link.backlog_nbytes(0.2) == 0


def test_no_more_waits_than_was_handed_over() -> None:
    """Slow start leaves the line idle between windows."""
    link = line(fast(100e6))
    arrives_s = link.send(0.0, 602_112)
    assert link.backlog_nbytes(0.01) == 602_112
    seen_s = 0.1 + 0.5 * (arrives_s - 0.05)
    assert link.backlog_nbytes(seen_s) == pytest.approx(301_056, rel=0.01)
    assert link.passed_nbytes(0.0, seen_s) == pytest.approx(301_056, rel=0.01)
    assert link.backlog_nbytes(arrives_s + 0.06) == 0


def test_of_what_is_given_up_a_window_is_gone_and_the_rest_leaves_the_line_to_the_next() -> (
    None
):
    link = line(fast(8e6))
    arrives_s = link.send(0.0, 3 * FIRST_SEGMENTS * SEGMENT_PAYLOAD_NBYTES)
    link.stop(0.004, arrives_s)
    window_s = FIRST_SEGMENTS * SEGMENT_PAYLOAD_NBYTES * 8 / 8e6
    assert link.send(0.004, 1000) == pytest.approx(0.004 + window_s + 0.001 + 0.05)


def test_a_burst_beyond_the_queue_loses_packets_and_comes_in_rounds_from_then_on() -> None:
    """As measured over the emulator: 265 KB into a queue of 256 KiB at 300 Mbit/s and 40 ms
    take one more round trip than 205 KB."""
    link = line(fast(300e6, 0.04))
    link.send(0.0, 600_000)  # slow start

    def took_s(at_s: float, nbytes: int) -> float:
        return link.send(at_s, nbytes) - at_s

    assert took_s(0.5, 205_000) == pytest.approx(0.02 + 205_000 * 8 / 300e6)
    took = [took_s(0.6 + number / 4, 265_000) for number in range(9)]
    assert max(took[:2]) > 0.15  # the end of a burst was lost, and nothing followed to tell
    assert all(0.06 < each < 0.07 for each in took[3:])
    assert took_s(2.75, 180_000) < 0.03


def test_a_long_transfer_over_a_small_queue_takes_as_many_rounds_as_windows() -> None:
    """Measured over the emulator: 800 KB at 300 Mbit/s and 40 ms took 130 to 170 ms there and
    back once the first losses were over."""
    link = line(fast(300e6, 0.04))
    took_s = [link.send(at_s, 800_000) - at_s + 0.02 for at_s in np.arange(40) * 0.3]
    assert 0.13 < sum(took_s[8:]) / 32 < 0.18


def test_an_outage_holds_everything_up_and_shows() -> None:
    trace = Trace("out", (0.0, 1.0, 3.0, 4.0), (8e6, 0.0, 8e6))
    network = Network(trace, trace, 0.0, fixed_s=0.0)
    link = line(network)
    assert link.send(1.5, 1000) == pytest.approx(3.001)
    assert link.silent_s(2.5) == pytest.approx(1.0)
    assert link.silent_s(3.0005) == 0.0
    shifted = Line(network, network.payload_up, offset_s=1.0, scale=2.0)
    assert shifted.send(0.5, 1000) == pytest.approx(2.0005)


def test_loss_slows_long_transfers_down() -> None:
    """Mathis et al. for Reno; RFC 9438 for Cubic; BBR goes on."""
    assert fast(1e9, loss=0.01, congestion="reno").tcp_bps() == pytest.approx(  # type: ignore[arg-type]
        1.22 / math.sqrt(0.01) * 1448 * 8 / 0.1
    )
    assert fast(1e9, loss=0.0001).tcp_bps() == pytest.approx(
        1.054 * (0.1 / 0.0001) ** 0.75 * 1448 * 8 / 0.1
    )
    assert fast(1e9, loss=0.01, congestion="bbr").tcp_bps() == math.inf  # type: ignore[arg-type]
    lossy = Network.of(condition("lte"), loss=0.01)
    assert lossy.payload_up.mean_bps == pytest.approx(lossy.tcp_bps())
    assert lossy.first_look().uplink_bps == pytest.approx(lossy.tcp_bps())


def test_a_network_of_a_condition_carries_its_payload() -> None:
    look = Network.of(condition("lte")).first_look()
    assert look.uplink_bps == pytest.approx(12e6)
    assert look.rtt_s == 0.07
