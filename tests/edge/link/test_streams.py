"""A connection's life in virtual time: links that go dark, break, refuse and come back."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Literal, cast

import pytest
from tests.edge.link.idle_tcp import idle_tcp

from midstream_edge.link.channel import Stream
from midstream_edge.link.failure_detector import (
    ACK_S,
    LOOK_S,
    MOST_S,
    PENDING_SPACING_S,
    PING_S,
    SPACINGS_S,
    SUSPECT_S,
)
from midstream_edge.link.monitored_stream import MonitoredStream
from midstream_edge.link.observations import LinkState
from midstream_edge.link.reconnect import ReconnectSchedule
from midstream_edge.link.streams import MonitoredStreams
from midstream_edge.link.tcp_info import TcpInfo
from midstream_wire.errors import CloudUnavailable
from midstream_wire.frames import Ping, Pong, Welcome

RTT_S = 0.04
#: A fresh channel: TCP's handshake, HTTP/2's, and the welcome.
OPENING_S = 4 * RTT_S
#: The last thing heard may be a ping's time old, and the stream is looked at now and then.
NOTICED_S = PING_S + ACK_S + RTT_S + 2 * LOOK_S

IDLE = idle_tcp(RTT_S)


class Wire:
    """A stream over the virtual link."""

    peer_address = None  # no handshakes beside it: those are real sockets

    def __init__(self, life: Life, monitored: MonitoredStream) -> None:
        self._life = life
        self.monitored = monitored
        self.unheard: list[Ping] = []
        self.tcp = IDLE

    def send_background(self, frames: Iterable[Ping]) -> None:
        """Send pings; their pongs come a round trip later, if the link lets them."""
        self.unheard.extend(frames)
        self._life.at(RTT_S, self.answer)

    def answer(self) -> None:
        if self._life.link != "up" or self.monitored.ended:
            return
        for ping in self.unheard:
            if self._life.streams.hear(self.monitored, self._life.now_s):
                exchange = self.monitored.pings.receive(
                    Pong(ping.id, b"", self._life.now_s, self._life.now_s)
                )
                assert exchange is not None
        self.unheard.clear()

    def tcp_info(self) -> TcpInfo:
        return replace(self.tcp, in_flight_nbytes=100) if self.unheard else self.tcp


class Life:
    """A connection's streams, driven as its keeper drives them, by a clock of their own.

    `moves` are the changes of its state and when they came; `tries_s` when channels were
    opened.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, draw: float = 0.0) -> None:
        self.now_s = 0.0
        self.link: Literal["up", "dark", "refused"] = "up"
        self.moves: list[tuple[float, LinkState]] = []
        self.tries_s: list[float] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        monkeypatch.setattr("midstream_edge.link.pings.time", clock)
        self.streams = MonitoredStreams("server", 0.0, on_change=lambda: None)
        self.streams.attempts = ReconnectSchedule(0.0, draw=lambda: draw)

    def at(self, after_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + after_s, next(self._serial), call))

    def run(self, for_s: float) -> None:
        """Let time pass, with requests that go out all the while."""
        until_s = self.now_s + for_s
        while self.now_s < until_s:
            while self._events and self._events[0][0] <= self.now_s:
                heapq.heappop(self._events)[2]()
            self.streams.used_s = self.now_s
            if (monitored := self.streams.next_trial(self.now_s)) is not None:
                self._open(monitored)
            for over in self.streams.sweep(self.now_s):
                assert over.ended is not None
                self.streams.note_failure(over, over.ended, self.now_s)
            if not self.moves or self.moves[-1][1] != self.streams.state:
                self.moves.append((self.now_s, self.streams.state))
            pause_s = self.streams.pause_s(self.now_s)
            next_s = self._events[0][0] if self._events else math.inf
            due_s = self.now_s + (math.inf if pause_s is None else max(pause_s, 1e-3))
            self.now_s = min(until_s, due_s, max(next_s, self.now_s + 1e-6))

    def turn(self, link: Literal["up", "dark", "refused"]) -> None:
        """Change the link; what TCP holds goes out again once it is up."""
        self.link = link
        present = self.streams.present
        if link == "up" and present is not None:
            self.at(RTT_S, cast(Wire, present.stream).answer)

    def reset(self) -> None:
        """The far end resets the stream in use."""
        assert self.streams.present is not None
        self._fail(self.streams.present)

    def since(self, moment_s: float) -> list[tuple[float, LinkState]]:
        """Changes from that moment on, as seconds after it."""
        return [(at_s - moment_s, state) for at_s, state in self.moves if at_s >= moment_s]

    def _open(self, monitored: MonitoredStream) -> None:
        self.tries_s.append(self.now_s)
        monitored.stream = cast(Stream, Wire(self, monitored))
        if self.link == "refused":
            self.at(RTT_S, lambda: self._fail(monitored))
        elif self.link == "up":
            self.at(OPENING_S, lambda: self._greet(monitored))

    def _greet(self, monitored: MonitoredStream) -> None:
        if self.link == "up":
            self.streams.greet(monitored, Welcome("server", 8, 1 << 20), self.now_s)

    def _fail(self, monitored: MonitoredStream) -> None:
        self.streams.finish(monitored, CloudUnavailable("gone"), self.now_s)


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Life:
    """A connection that has stood for ten seconds."""
    life = Life(monkeypatch)
    life.run(10.0)
    assert life.moves == [(0.0, "down"), (pytest.approx(OPENING_S), "connected")]
    return life


@pytest.mark.parametrize("phase_s", [0.0, 0.13, 0.31, 0.47])
def test_a_dark_link_is_suspect_at_once_and_given_up_three_seconds_later(
    life: Life, phase_s: float
) -> None:
    life.run(phase_s)
    dark_s, first = life.now_s, life.streams.present
    life.turn("dark")
    life.run(30.0)
    (suspect_s, suspect), (down_s, down) = life.since(dark_s)
    assert (suspect, down) == ("suspect", "down")
    assert ACK_S <= suspect_s <= NOTICED_S
    assert SUSPECT_S <= down_s - suspect_s <= SUSPECT_S + 2 * LOOK_S
    assert first is not None
    assert first.lost
    back_s = life.now_s
    life.turn("up")
    life.run(5.0)
    [(again_s, state)] = life.since(back_s)
    assert state == "connected"
    assert again_s <= PENDING_SPACING_S + OPENING_S + LOOK_S
    assert life.streams.welcomes == 2
    assert life.streams.present is not first


def test_a_suspected_stream_that_speaks_again_is_used_on(life: Life) -> None:
    dark_s, first = life.now_s, life.streams.present
    life.turn("dark")
    life.run(1.5)
    life.turn("up")
    life.run(10.0)
    (suspect_s, _), (again_s, state) = life.since(dark_s)
    assert (suspect_s <= NOTICED_S, state) == (True, "connected")
    assert 1.5 < again_s <= 1.5 + RTT_S + LOOK_S
    assert life.streams.present is first
    assert life.streams.welcomes == 1
    assert life.streams.trials == []  # begun while it was in doubt, and left again


def test_a_reset_is_mended_on_a_fresh_channel_without_a_wait(life: Life) -> None:
    for count in range(2, 5):
        broken_s = life.now_s
        life.reset()
        life.run(2.0)
        (down_s, down), (again_s, again) = life.since(broken_s)
        assert (down, again) == ("down", "connected")
        assert down_s == 0.0
        assert again_s <= OPENING_S + 0.01
        assert life.streams.welcomes == count


def test_refusals_are_answered_with_attempts_ever_more_rarely_until_one_is_welcomed(
    life: Life,
) -> None:
    life.tries_s.clear()
    life.turn("refused")
    life.reset()
    life.run(200.0)
    assert life.moves[-1][1] == "down"
    pauses_s = [later - sooner for sooner, later in itertools.pairwise(life.tries_s)]
    assert pauses_s[:3] == pytest.approx(SPACINGS_S, abs=0.01)
    assert pauses_s == sorted(pauses_s, key=lambda pause_s: round(pause_s, 2))
    assert max(pauses_s) <= MOST_S + LOOK_S
    back_s = life.now_s
    life.turn("up")
    life.run(10.0)
    [(again_s, state)] = life.since(back_s)
    assert state == "connected"
    assert again_s <= MOST_S + OPENING_S + LOOK_S


def test_a_server_that_starts_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(monkeypatch)
    life.link = "refused"
    life.run(8.0)
    assert life.moves == [(0.0, "down")]
    life.turn("up")
    life.run(2.0)
    assert life.moves[-1][1] == "connected"
    assert life.moves[-1][0] - 8.0 <= SPACINGS_S[-1] + OPENING_S + LOOK_S


def test_many_channels_are_under_way_only_one_a_second_while_none_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    life = Life(monkeypatch)
    life.link = "dark"
    life.run(1.5)
    assert len(life.streams.trials) == 2
    left = life.streams.leave(life.now_s)
    assert len(left) == 2
    assert all(each.ended for each in left)
    assert life.streams.trials == []


def test_a_busy_link_that_is_slow_is_not_suspect_and_a_late_answer_does_not_make_it_so(
    life: Life,
) -> None:
    """Its bytes are acknowledged a packet every 0.12 s, and no frame comes for 20 s."""
    busy_s = life.now_s
    present = life.streams.present
    assert present is not None
    wire = cast(Wire, present.stream)
    life.link = "dark"  # no pong comes: it waits behind what was sent before
    for step in range(1, 168):
        acked_nbytes = 1000 + 1448 * step
        wire.tcp = replace(IDLE, acked_nbytes=acked_nbytes, unsent_nbytes=1_000_000)
        wire.tcp = replace(wire.tcp, in_flight_nbytes=14_480)
        life.run(0.12)
        life.streams.doubt(life.now_s, since_s=busy_s)
    assert life.now_s - busy_s > 20.0
    assert life.since(busy_s) == []
