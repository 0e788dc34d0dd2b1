"""The queue in front of the workers: bounded, honest about time, and empty when it says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from tests.clock import Clock
from tests.cloud.gate import PATIENCE_S, Gate

from midstream_cloud.budget import Budget
from midstream_cloud.repository import Model
from midstream_cloud.tails import Answer, Job, Tails
from midstream_partitioner.backends.stopping import Stop
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.partition import Partition
from midstream_wire.codecs import Decoder, codec, decode, encode_bytes
from midstream_wire.errors import CloudRefused, CodecError, TensorError
from midstream_wire.frames import Code, Piece
from midstream_wire.tensors import Array, TensorSpec
from midstream_wire.transfers import Incoming


@pytest.fixture
def tails(clock: Clock, gate: Gate) -> Iterator[Tails]:
    """One worker, two places in the queue."""
    tails = Tails(workers=1, max_queued=2, clock=clock)
    yield tails
    tails.close()
    gate.let.release(100)


@pytest.fixture
def gated(small: Partition, gate: Gate) -> Model:
    return Model("gated", small, cast(Chain, gate))


def _job(model: Model, clock: Clock, *, budget_s: float | None = None) -> Job:
    deadline_s = None if budget_s is None else clock.now_s + budget_s
    return Job(model, 1, _incoming({}), clock.now_s - 0.5, deadline_s)


def _incoming(arrays: Mapping[str, Array], codec_id: str = "raw") -> Incoming:
    """Payloads that have arrived whole."""
    specs = [TensorSpec(name, array.dtype.name, array.shape) for name, array in arrays.items()]
    incoming = Incoming(tuple(arrays), specs, max_nbytes=1 << 20, defer=True)
    for index, array in enumerate(arrays.values()):
        incoming.feed(Piece(index, encode_bytes(codec(codec_id), array)))
    return incoming


def _finish(gate: Gate, future: Future[Answer]) -> Answer:
    gate.let.release()
    return future.result(PATIENCE_S)


def _refusal(future: Future[Answer]) -> int:
    error = future.exception(PATIENCE_S)
    assert isinstance(error, CloudRefused)
    return error.code


def test_the_times_add_up(tails: Tails, gated: Model, gate: Gate, clock: Clock) -> None:
    first = tails.submit(_job(gated, clock))
    assert gate.begun.acquire(timeout=PATIENCE_S)
    second = tails.submit(_job(gated, clock))
    clock.now_s += 2.0
    timings = _finish(gate, first).timings
    assert (timings.decode_s, timings.queue_s, timings.tail_s) == (0.0, 0.5, 2.0)
    assert (timings.received_s, timings.finished_s) == (99.5, 102.0)
    assert gate.begun.acquire(timeout=PATIENCE_S)
    clock.now_s += 1.0
    timings = _finish(gate, second).timings
    assert (timings.queue_s, timings.tail_s) == (2.5, 1.0)


def test_a_full_queue_refuses_at_once_and_recovers(
    tails: Tails, gated: Model, gate: Gate, clock: Clock
) -> None:
    futures = [tails.submit(_job(gated, clock)) for _ in range(3)]
    with pytest.raises(CloudRefused, match="at most 2 requests may wait") as caught:
        tails.submit(_job(gated, clock))
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
    for future in futures:
        _finish(gate, future)
    futures = [tails.submit(_job(gated, clock)) for _ in range(3)]
    assert all(_finish(gate, future) for future in futures)


def test_a_wait_beyond_the_budget_is_refused_before_it_begins(
    tails: Tails, gated: Model, gate: Gate, clock: Clock
) -> None:
    learning = tails.submit(_job(gated, clock))
    assert gate.begun.acquire(timeout=PATIENCE_S)
    clock.now_s += 4.0
    _finish(gate, learning)  # this tail takes 4 s

    running = tails.submit(_job(gated, clock, budget_s=1.0))  # nobody waits: tried anyway
    with pytest.raises(CloudRefused, match="due later") as caught:
        tails.submit(_job(gated, clock, budget_s=8.3))  # a wait of 4 s, and its own 4.4
    assert caught.value.code == Code.DEADLINE_EXCEEDED
    patient = tails.submit(_job(gated, clock, budget_s=8.5))
    assert _finish(gate, running)
    assert _finish(gate, patient)


def test_a_request_whose_time_ran_out_in_the_queue_is_not_run(
    tails: Tails, gated: Model, gate: Gate, clock: Clock
) -> None:
    running = tails.submit(_job(gated, clock))
    assert gate.begun.acquire(timeout=PATIENCE_S)
    late = tails.submit(_job(gated, clock, budget_s=1.0))
    clock.now_s += 1.5
    _finish(gate, running)
    assert _refusal(late) == Code.DEADLINE_EXCEEDED
    assert gate.ran == 1


def test_a_cancelled_request_leaves_its_place_to_another(
    tails: Tails, gated: Model, gate: Gate, clock: Clock
) -> None:
    running, dropped, kept = (tails.submit(_job(gated, clock)) for _ in range(3))
    assert gate.begun.acquire(timeout=PATIENCE_S)
    assert dropped.cancel()
    assert not running.cancel()
    another = tails.submit(_job(gated, clock))
    for future in (running, kept, another):
        assert _finish(gate, future)
    assert gate.ran == 3


def test_large_outputs_are_compressed_where_it_is_worth_it(
    small: Partition, clock: Clock
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
    arrays: dict[str, Array] = {
        "zeros": np.zeros((1 << 20,), np.uint8),
        "noise": noise,
        "few": np.zeros((1000,), np.uint8),
    }
    sizes = {}
    for name, array in arrays.items():
        gate = Gate(array)
        gate.let.release()
        tails = Tails(workers=1, clock=clock)
        job = _job(Model("m", small, cast(Chain, gate)), clock)
        payload = b"".join(tails.submit(job).result(PATIENCE_S).payloads["y"])
        tails.close()
        spec = TensorSpec("y", array.dtype.name, array.shape)
        assert np.array_equal(decode(payload, spec, max_nbytes=1 << 20), array)
        sizes[name] = len(payload)
    assert sizes["zeros"] < 1 << 16
    assert 1 << 20 < sizes["noise"] < (1 << 20) + 200
    assert 1000 < sizes["few"] < 1100


def test_a_tail_that_runs_is_ended_when_nobody_wants_it(
    model: Model, crossing: Callable[[int], dict[str, Array]]
) -> None:
    slow = Model("slow", model.partition, model.chain.at_speed(1e6))
    tails = Tails(workers=1)
    job = Job(slow, 1, _incoming(crossing(1)), 0.0)
    future = tails.submit(job)
    job.stop.tell()  # before it runs, or in its emulated slowness
    assert _refusal(future) == Code.CANCELLED
    tails.close()


def test_the_time_of_large_inputs_is_not_held_against_small_ones(
    tails: Tails, gated: Model, gate: Gate, clock: Clock
) -> None:
    def job(rows: int, budget_s: float | None = None) -> Job:
        return replace(
            _job(gated, clock, budget_s=budget_s),
            incoming=_incoming({"x": np.zeros(rows, np.float32)}),
        )

    for rows, took_s in ((64, 4.0), (1, 0.1)):
        learning = tails.submit(job(rows))
        assert gate.begun.acquire(timeout=PATIENCE_S)
        clock.now_s += took_s
        _finish(gate, learning)
    running = tails.submit(job(1))
    waiting = tails.submit(job(1, budget_s=1.0))  # 0.1 s to wait, not 4
    assert _finish(gate, running)
    assert _finish(gate, waiting)


def test_what_came_is_decoded_by_the_worker_and_ahead_of_the_rest(
    tails: Tails, gated: Model, gate: Gate, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    decode = Decoder.advance

    def note(decoder: Decoder) -> None:
        names.append(threading.current_thread().name)
        decode(decoder)

    monkeypatch.setattr(Decoder, "advance", note)
    incoming = _incoming({"x": np.zeros(4, np.float32)})
    assert not names
    gate.let.release()
    tails.submit(Job(gated, 1, incoming, clock.now_s)).result(PATIENCE_S)
    assert names == ["tail_0"]

    ahead = _incoming({"x": np.zeros(4, np.float32)})
    tails.decode_ahead(ahead)
    gate.let.release()
    tails.submit(_job(gated, clock)).result(PATIENCE_S)  # by the only worker, after that
    monkeypatch.undo()
    assert names == ["tail_0"] * 2


def test_a_payload_that_is_damaged_fails_its_job_alone(
    tails: Tails, gated: Model, gate: Gate, clock: Clock
) -> None:
    payload = bytearray(encode_bytes(codec("raw"), np.zeros(4, np.float32)))
    payload[-1] ^= 1
    damaged = Incoming(("x",), [TensorSpec("x", "float32", (4,))], max_nbytes=16, defer=True)
    damaged.feed(Piece(0, bytes(payload)))
    tails.decode_ahead(damaged)  # says nothing
    failing = tails.submit(Job(gated, 1, damaged, clock.now_s))
    assert isinstance(failing.exception(PATIENCE_S), CodecError)
    assert gate.ran == 0
    assert _finish(gate, tails.submit(_job(gated, clock)))


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("Available memory of 304328448 is smaller than requested bytes of 619", MemoryError),
        ("Got invalid dimensions for input: x", TensorError),
    ],
)
def test_a_run_that_lacks_memory_is_told_from_one_that_cannot_be(
    tails: Tails, small: Partition, clock: Clock, reason: str, kind: type[Exception]
) -> None:
    class Failing:
        def run(self, state: object, first: int, last: int, *, stop: Stop) -> None:
            raise TensorError("the model cannot run on this input") from RuntimeError(reason)

    failing = Model("failing", small, cast(Chain, Failing()))
    future = tails.submit(_job(failing, clock))
    assert type(future.exception(PATIENCE_S)) is kind


def test_more_work_than_a_request_may_take_is_refused_by_what_the_profile_says(
    small: Partition, gate: Gate, clock: Clock
) -> None:
    x = np.zeros((1, 16), np.float32)
    tails = Tails(workers=1, max_work_s=0.5, clock=clock)
    timed = (((64, 0.1),),) * len(small.segments)
    told = Model("told", small, cast(Chain, gate), timed=timed)
    with closing(tails):
        job = Job(told, 1, _incoming({"x": x}), clock.now_s)
        assert _finish(gate, tails.submit(job))  # 64 bytes: 0.1 s
        batch = Job(told, 1, _incoming({"x": np.repeat(x, 6, axis=0)}), clock.now_s)
        with pytest.raises(CloudRefused, match=r"may take 0.5 s .* \(not 0.6 s") as caught:
            tails.submit(batch)
        assert caught.value.code == Code.RESOURCE_EXHAUSTED


def test_nobody_waits_for_ever_when_it_closes(
    tails: Tails, gated: Model, gate: Gate, clock: Clock
) -> None:
    budget = Budget(300)

    def job() -> Job:
        claim = budget.claim()
        claim.hold(100)
        return replace(_job(gated, clock), claim=claim)

    running = tails.submit(job())
    assert gate.begun.acquire(timeout=PATIENCE_S)
    waiting = [tails.submit(job()) for _ in range(2)]
    tails.close()
    assert [_refusal(future) for future in waiting] == [Code.UNAVAILABLE] * 2
    with pytest.raises(CloudRefused, match="the server has none to give"):
        tails.submit(job())
    assert budget.taken_nbytes == 100  # of the one that runs
    answer = _finish(gate, running)
    assert budget.taken_nbytes == answer.nbytes > 0


def test_a_job_that_is_cancelled_gives_back_what_it_held(
    tails: Tails, gated: Model, gate: Gate, clock: Clock
) -> None:
    budget = Budget(100)
    running = tails.submit(_job(gated, clock))
    assert gate.begun.acquire(timeout=PATIENCE_S)
    claim = budget.claim()
    claim.hold(100)
    assert tails.submit(replace(_job(gated, clock), claim=claim)).cancel()
    assert budget.taken_nbytes == 0
    assert _finish(gate, running)
