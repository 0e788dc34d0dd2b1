"""What a server counts, and what of it is logged."""

from __future__ import annotations

from tests.clock import Clock

from midstream_cloud.statistics import LOG_EVERY_S, Statistics, kind_of
from midstream_wire.errors import CloudRefused, CodecError, ProtocolError
from midstream_wire.frames import Code, ServerTimings


def test_every_refusal_is_counted_and_one_of_a_kind_logged_at_a_time() -> None:
    clock, lines = Clock(100.0), list[str]()
    counts = Statistics(clock=clock, log=lines.append)
    for n in range(1000):
        counts.refuse(CloudRefused(Code.RESOURCE_EXHAUSTED, f"no {n}", kind="queue"), "peer")
    counts.refuse(ProtocolError("nonsense"), "peer")
    assert counts.refused == {"queue": 1000, "invalid": 1}
    assert lines == ["refused [queue] peer: no 0", "refused [invalid] peer: nonsense"]
    clock.now_s += LOG_EVERY_S
    counts.refuse(CloudRefused(Code.RESOURCE_EXHAUSTED, "again", kind="queue"), "peer")
    assert lines[-1] == "refused [queue] peer: again (999 more of this kind before)"


def test_what_a_peer_says_cannot_command_the_terminal_of_the_log() -> None:
    lines = list[str]()
    counts = Statistics(log=lines.append)
    counts.refuse(CodecError("\x1b[2J\n" + "x" * 100_000), "ipv4:1.2.3.4:5\x1b[31m")
    (line,) = lines
    assert "\x1b" not in line
    assert "\n" not in line
    assert len(line) < 5000


def test_a_refusal_has_its_own_kind_or_that_of_its_status() -> None:
    assert kind_of(CloudRefused(Code.RESOURCE_EXHAUSTED, "", kind="memory")) == "memory"
    assert kind_of(CloudRefused(Code.DEADLINE_EXCEEDED, "")) == "late"
    assert kind_of(CloudRefused(99, "")) == "other"
    assert kind_of(MemoryError()) == "memory"
    assert kind_of(ZeroDivisionError()) == "internal"


def test_sessions_and_answers_add_up() -> None:
    counts = Statistics()
    counts.open_session()
    counts.open_session()
    counts.close_session()
    counts.answer(ServerTimings(queue_s=0.1, decode_s=0.2, tail_s=0.3), 10, 4)
    assert (counts.sessions_opened, counts.sessions_open, counts.answered) == (2, 1, 1)
    assert (counts.received_nbytes, counts.sent_nbytes, counts.tail_s) == (10, 4, 0.3)
