"""One direction of a link, as a function of the times it is told.

No clock and no socket in here: whoever owns a `Shaper` tells it the time. What comes out late
because the owner woke late was still due when it was due, so errors of a timer do not add up.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar, final

T = TypeVar("T")

#: An owner that reads its source late finds bytes that had been waiting. Where it says so, up
#: to this much of the line's idle time was no idleness but its own lateness.
SLACK_S = 0.005


@final
@dataclass(slots=True)
class _Queued(Generic[T]):
    item: T
    nbytes: int
    bits_left: float
    since_s: float


@final
class Shaper(Generic[T]):
    """A queue, a line of `rate_bps` behind it, and a flight of `delay_s` behind that.

    An item starts when it is there and the line is free, occupies the line for its bits, and
    is due `delay_s` after its last bit. First in, first out.
    """

    def __init__(self, rate_bps: float, delay_s: float) -> None:
        self._rate_bps = rate_bps
        self._delay_s = delay_s
        self._queue: deque[_Queued[T]] = deque()
        self._flight: deque[tuple[float, T]] = deque()
        self._free_s = float("-inf")  # when the line has sent, or will have sent, its last bit
        self._paused_s: float | None = None
        self.queued_nbytes = 0

    @property
    def rate_bps(self) -> float:
        return self._rate_bps

    @property
    def delay_s(self) -> float:
        return self._delay_s

    @property
    def next_s(self) -> float | None:
        """Return when `pop` has something to do next; None while empty or paused."""
        if self._paused_s is not None:
            return None
        times = [self._flight[0][0]] if self._flight else []
        if self._queue:
            times.append(self._departure_s(self._queue[0]))
        return min(times, default=None)

    def push(self, item: T, nbytes: int, now_s: float, *, waited: bool = False) -> None:
        """Queue an item; `waited` when it was there before `now_s` (see `SLACK_S`)."""
        since_s = now_s - SLACK_S if waited else now_s
        self._queue.append(_Queued(item, nbytes, nbytes * 8.0, since_s))
        self.queued_nbytes += nbytes

    def pop(self, now_s: float) -> list[tuple[float, T]]:
        """Return what has come out by `now_s`, in order, each with the time it was due."""
        if self._paused_s is not None:
            return []
        self._advance(now_s)
        arrived = []
        while self._flight and self._flight[0][0] <= now_s:
            arrived.append(self._flight.popleft())
        return arrived

    def set(self, rate_bps: float, delay_s: float, now_s: float) -> None:
        """Change the line: bytes still queued, even half sent, go on at the new rate; what is
        in flight keeps its time, and nothing overtakes it.
        """
        self._settle(now_s)
        self._rate_bps = rate_bps
        self._delay_s = delay_s

    def pause(self, now_s: float) -> None:
        """Stop the world: nothing leaves the queue, and what is in flight hangs in the air."""
        if self._paused_s is None:
            self._settle(now_s)
            self._paused_s = now_s

    def resume(self, now_s: float) -> None:
        """Go on where `pause` stopped."""
        if self._paused_s is None:
            return
        gone_s = now_s - self._paused_s
        self._flight = deque((due_s + gone_s, item) for due_s, item in self._flight)
        self._paused_s = None
        self._settle_start(now_s)

    def _departure_s(self, head: _Queued[T]) -> float:
        return max(head.since_s, self._free_s) + head.bits_left / self._rate_bps

    def _advance(self, now_s: float) -> None:
        while self._queue:
            head = self._queue[0]
            departure_s = self._departure_s(head)
            if departure_s > now_s:
                return
            self._queue.popleft()
            self.queued_nbytes -= head.nbytes
            self._free_s = departure_s
            due_s = departure_s + self._delay_s
            if self._flight:
                due_s = max(due_s, self._flight[-1][0])
            self._flight.append((due_s, head.item))

    def _settle(self, now_s: float) -> None:
        """Book what the line has sent of its item by `now_s`."""
        if self._paused_s is not None:
            return
        self._advance(now_s)
        if self._queue:
            head = self._queue[0]
            sending_s = max(0.0, now_s - max(head.since_s, self._free_s))
            head.bits_left = max(0.0, head.bits_left - sending_s * self._rate_bps)
            self._settle_start(now_s)

    def _settle_start(self, now_s: float) -> None:
        if self._queue:
            self._queue[0].since_s = max(self._queue[0].since_s, now_s)
