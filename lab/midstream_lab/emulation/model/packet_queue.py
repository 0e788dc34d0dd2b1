"""One direction of the link as a function of the times it is told: no clock, no device.

Like `emulation.proxy.rate_limiter.Shaper`, for packets: they are dropped when the queue is
full, lost on the line, and the rate follows a trace exactly between two calls.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import final

from midstream_lab.emulation.model.impairments import Jitter, Losses
from midstream_lab.emulation.model.rates import Rates
from midstream_lab.emulation.model.spec import LinkSpec, Rate


@final
@dataclass(slots=True)
class Counters:
    """Packets and bytes of one direction, since the start."""

    delivered_packets: int = 0
    delivered_nbytes: int = 0
    dropped_packets: int = 0  # the queue was full
    dropped_nbytes: int = 0
    lost_packets: int = 0  # the loss model struck
    lost_nbytes: int = 0
    cut_packets: int = 0  # the link was cut
    cut_nbytes: int = 0
    most_queued_nbytes: int = 0


@final
class Line:
    """A queue in bytes, a line with a rate behind it, and a flight of the delay behind that.

    A packet starts when it is there and the line is free, occupies the line for its bits, and
    is due after the delay, never before the one ahead of it. Departures are computed when a
    packet reaches the head of the queue: a new rate holds for all that waits, also for the
    rest of the packet being sent.
    """

    def __init__(self, spec: LinkSpec, rate: Rate, name: str) -> None:
        self.counters = Counters()
        self.queued_nbytes = 0
        self._name = name
        self._queue: deque[tuple[float, bytes]] = deque()  # arrival, packet
        self._flight: deque[tuple[float, bytes]] = deque()  # due, packet
        self._free_s = -math.inf  # when the line has sent its last bit
        self._bits_left: float | None = None  # of the packet at the head, once begun
        self._line_s = math.inf  # when the queue has to be looked at next
        self._configure(spec, rate)

    @property
    def next_s(self) -> float:
        """`pop` has nothing before this moment; infinite while empty."""
        if self._flight:
            return self._flight[0][0]
        return self._line_s + self._least_delay_s

    def push(self, packet: bytes, now_s: float) -> None:
        """A packet arrives; it is dropped when the queue has no room for it."""
        self._advance(now_s)
        nbytes = len(packet)
        queued_nbytes = self.queued_nbytes + nbytes
        if queued_nbytes > self._limit_nbytes:
            self.counters.dropped_packets += 1
            self.counters.dropped_nbytes += nbytes
            return
        self.queued_nbytes = queued_nbytes
        if queued_nbytes > self.counters.most_queued_nbytes:
            self.counters.most_queued_nbytes = queued_nbytes
        self._queue.append((now_s, packet))
        if len(self._queue) == 1:
            self._advance(now_s)

    def pop(self, now_s: float) -> list[tuple[float, bytes]]:
        """Return what has come through by `now_s`, in order, each with the moment it was
        due.
        """
        self._advance(now_s)
        flight = self._flight
        arrived = []
        while flight and flight[0][0] <= now_s:
            arrived.append(flight.popleft())
        for _, packet in arrived:
            self.counters.delivered_packets += 1
            self.counters.delivered_nbytes += len(packet)
        return arrived

    def set(self, spec: LinkSpec, rate: Rate, now_s: float) -> None:
        """Change the link; what is in flight keeps its time, and nothing overtakes it.

        A trace holds its mean until it is started. Loss and jitter begin anew from the seed.
        """
        self._settle(now_s)
        self._configure(spec, rate)
        self._advance(now_s)

    def start_trace(self, now_s: float) -> None:
        self._settle(now_s)
        self._rates.start(now_s)
        self._until_s = -math.inf
        self._advance(now_s)

    def flush(self) -> None:
        """Forget what waits and what flies: the link was cut."""
        for _, packet in (*self._queue, *self._flight):
            self.cut(packet)
        self._queue.clear()
        self._flight.clear()
        self._bits_left = None
        self._line_s = math.inf
        self.queued_nbytes = 0

    def cut(self, packet: bytes) -> None:
        """Count a packet that meets a cut link."""
        self.counters.cut_packets += 1
        self.counters.cut_nbytes += len(packet)

    def _configure(self, spec: LinkSpec, rate: Rate) -> None:
        self._rates = Rates(rate)
        self._rate_bps, self._until_s = 0.0, -math.inf  # looked up when first needed
        self._delay_s = spec.delay_s
        self._limit_nbytes = spec.queue_nbytes
        seed = f"{spec.seed}/{self._name}"
        self._losses = Losses(spec.loss, f"{seed}/loss") if spec.loss else None
        self._jitter = Jitter(spec.jitter_s, f"{seed}/jitter") if spec.jitter_s else None
        self._least_delay_s = spec.delay_s - spec.jitter_s

    def _advance(self, now_s: float) -> None:
        """Send what can be sent by `now_s`, over every change of rate on the way."""
        queue = self._queue
        while queue:
            arrival_s, packet = queue[0]
            free_s = self._free_s
            start_s = arrival_s if arrival_s > free_s else free_s
            if start_s >= self._until_s:
                self._rate_bps, self._until_s = self._rates.at(start_s)
            bits = self._bits_left if self._bits_left is not None else len(packet) * 8.0
            rate_bps = self._rate_bps
            departure_s = start_s + bits / rate_bps if rate_bps > 0 else math.inf
            if departure_s > self._until_s:
                if self._until_s > now_s:
                    self._line_s = self._until_s
                    return
                self._bits_left = bits - (self._until_s - start_s) * rate_bps
                self._free_s = self._until_s
                continue
            if departure_s > now_s:
                self._line_s = departure_s
                return
            queue.popleft()
            self._bits_left = None
            self._free_s = departure_s
            self.queued_nbytes -= len(packet)
            self._send(packet, departure_s)
        self._line_s = math.inf

    def _send(self, packet: bytes, departure_s: float) -> None:
        if self._losses is not None and self._losses.strikes():
            self.counters.lost_packets += 1
            self.counters.lost_nbytes += len(packet)
            return
        due_s = departure_s + self._delay_s
        if self._jitter is not None:
            due_s += self._jitter.at(departure_s)
        if self._flight and self._flight[-1][0] > due_s:  # the delay was made shorter
            due_s = self._flight[-1][0]
        self._flight.append((due_s, packet))

    def _settle(self, now_s: float) -> None:
        """Book what the line has sent of the packet at the head by `now_s`."""
        self._advance(now_s)
        if not self._queue:
            return
        arrival_s, packet = self._queue[0]
        start_s = max(arrival_s, self._free_s)
        if start_s < now_s:
            bits = self._bits_left if self._bits_left is not None else len(packet) * 8.0
            self._bits_left = max(0.0, bits - (now_s - start_s) * self._rate_bps)
            self._free_s = now_s
