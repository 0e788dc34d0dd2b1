"""Running tails: a pool of workers behind a queue that refuses what it cannot serve in time.

The core of the cloud: payloads in, encoded outputs and timings out, with nothing of the
transport in it. The worker that runs a tail decodes what it runs on, so that decoding, too,
takes as many cores as there are workers.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import final

from midstream_cloud.budget import Budget, Claim
from midstream_cloud.estimates import Estimates, Kind
from midstream_cloud.helpers import Decoding
from midstream_cloud.models import Model
from midstream_partitioner.backends.onnxruntime_backend import release_working_memory
from midstream_partitioner.backends.refusals import lacks_memory
from midstream_partitioner.backends.stopping import Stop, Stopped
from midstream_wire.allocator import release_freed_memory
from midstream_wire.codecs import Decoder
from midstream_wire.errors import CloudRefused, TensorError
from midstream_wire.frames import Code, ServerTimings
from midstream_wire.limits import MAX_REQUEST_NBYTES
from midstream_wire.tensors import Array
from midstream_wire.transfers import Incoming, check_carried, encode_output

Clock = Callable[[], float]


@final
@dataclass(frozen=True, slots=True)
class Job:
    """One request's tail: which segments, on what, and by when.

    Clock readings: `received_s` when the last piece had arrived, `deadline_s` from when on
    nobody waits for the answer. `transform` names what the tensors went through, and have to
    go back. `stop` ends the run when it is told, and `claim` is to what the request holds.
    """

    model: Model
    first_segment: int
    incoming: Incoming
    received_s: float
    deadline_s: float | None = None
    transform: str = ""
    stop: Stop = field(default_factory=Stop)
    claim: Claim = field(default_factory=lambda: Budget(sys.maxsize).claim())

    @property
    def kind(self) -> Kind:
        """What decides how long it takes, besides the size of what came."""
        digest = self.model.partition.digest
        return digest, self.first_segment, self.transform, self.incoming.codec_ids

    def drop(self) -> None:
        """Forget what came, and give back what it held."""
        self.incoming.drop()
        self.claim.release()

    def tensors(
        self, decode: Callable[[Decoder], Array] = Decoder.result
    ) -> Mapping[str, Array]:
        """Decode what came, by `decode`: the tensors as they crossed the cut."""
        arrays = self.incoming.result(decode)
        if not self.transform:
            return arrays
        adapter = self.model.chain.transform(self.first_segment, self.transform)
        return adapter.decode(arrays)


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """Encoded outputs by name, ready to send, and where the time went."""

    payloads: Mapping[str, list[bytes | memoryview]]
    timings: ServerTimings


@final
class Tails:
    """`workers` threads that run tails, and a queue of at most `max_queued` jobs."""

    def __init__(
        self, *, workers: int, max_queued: int = 64, clock: Clock = time.monotonic
    ) -> None:
        self._workers = workers
        self._max_queued = max_queued
        self._clock = clock
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tail")
        self._decoding = Decoding(workers)
        self._lock = threading.Lock()
        self._unfinished = 0
        self._work_s = 0.0  # estimated, of all that is unfinished
        self._estimates = Estimates()

    def submit(self, job: Job) -> Future[Answer]:
        """Queue a job; its claim then covers its answer. `abandon` takes it back.

        `CloudRefused`, here or from the future: RESOURCE_EXHAUSTED when the queue is full,
        DEADLINE_EXCEEDED as soon as it is clear that the answer would come too late.
        """
        with self._lock:
            self._refuse_hopeless(job)
            points = () if job.transform else job.model.tail_points(job.first_segment)
            estimate_s = self._estimates.of(job.kind, job.incoming.nbytes, points)
            self._unfinished += 1
            self._work_s += estimate_s
        try:
            future = self._pool.submit(self._run, job)
        except (RuntimeError, MemoryError) as error:  # no thread to be had, or stopping
            job.stop.tell()  # the pool may have queued it all the same
            self._leave(estimate_s)
            raise CloudRefused(
                Code.RESOURCE_EXHAUSTED,
                f"a tail needs a thread, and the server has none to give ({error}): run the "
                "rest on the edge",
            ) from None
        future.add_done_callback(lambda _: self._leave(estimate_s))
        return future

    def abandon(self, job: Job, future: Future[Answer]) -> None:
        """Nobody wants the answer to `job`, submitted as `future`: drop it, or end its run."""
        if not future.cancel():
            job.stop.tell()
        future.add_done_callback(lambda _: job.drop())

    def decode_ahead(self, incoming: Incoming) -> None:
        """Decode what has arrived of a request while the rest is under way.

        What is wrong with it is said when its tail is to run.
        """
        with contextlib.suppress(RuntimeError, MemoryError):  # no thread: it is done later
            self._pool.submit(incoming.advance)

    def close(self) -> None:
        """Take nothing more and drop what is queued; does not wait for what runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._decoding.close()

    def _refuse_hopeless(self, job: Job) -> None:
        queued = self._unfinished - self._workers
        if queued >= self._max_queued:
            raise CloudRefused(
                Code.RESOURCE_EXHAUSTED,
                f"at most {self._max_queued} requests may wait for {self._workers} workers "
                f"({queued} do): send fewer, or run the rest on the edge",
            )
        # The job's own time is left out: an estimate spoilt by a cold start would refuse the
        # very runs that correct it.
        wait_s = self._work_s / self._workers if queued >= 0 else 0.0
        if job.deadline_s is not None and self._clock() + wait_s > job.deadline_s:
            raise _too_late(wait_s)

    def _leave(self, estimate_s: float) -> None:
        with self._lock:
            self._unfinished -= 1
            self._work_s = max(0.0, self._work_s - estimate_s) if self._unfinished else 0.0

    def tidy(self) -> Future[None] | None:
        """Have a worker give memory that nothing uses back to the system, if there is one."""
        with contextlib.suppress(RuntimeError, MemoryError):
            return self._pool.submit(_release_memory)
        return None

    def _run(self, job: Job) -> Answer:
        try:
            answer = self._answer(job)
            nbytes = sum(len(part) for parts in answer.payloads.values() for part in parts)
            job.claim.hold(nbytes)
        except BaseException:
            job.claim.release()
            raise
        finally:
            job.incoming.drop()
        return answer

    def _answer(self, job: Job) -> Answer:
        started_s = self._clock()
        queue_s = started_s - job.received_s
        if job.deadline_s is not None and started_s > job.deadline_s:
            raise _too_late(queue_s)
        nbytes = job.incoming.nbytes
        tensors = job.tensors(self._decoding.decode)
        decoded_s = self._clock()
        last = len(job.model.partition.segments)
        try:
            made = job.model.chain.run(tensors, job.first_segment, last, stop=job.stop)
        except Stopped:
            raise CloudRefused(
                Code.CANCELLED, "nobody waits for the answer any more"
            ) from None
        except TensorError as error:
            if not lacks_memory(error):
                raise
            raise MemoryError(str(error)) from error
        ran_s = self._clock()
        names = [spec.name for spec in job.model.returns(job.first_segment)]
        outputs = {name: made[name] for name in names}
        check_carried(outputs, max_nbytes=MAX_REQUEST_NBYTES)
        payloads = {name: encode_output(array) for name, array in outputs.items()}
        with self._lock:
            self._estimates.learn(job.kind, nbytes, ran_s - started_s)
        timings = ServerTimings(
            received_s=job.received_s,
            finished_s=self._clock(),
            queue_s=queue_s,
            decode_s=decoded_s - started_s,
            tail_s=ran_s - decoded_s,
        )
        return Answer(payloads, timings)


def _release_memory() -> None:
    release_working_memory()
    release_freed_memory()


def _too_late(wait_s: float) -> CloudRefused:
    return CloudRefused(
        Code.DEADLINE_EXCEEDED,
        f"the answer must be due later than the queue's wait of {wait_s:.3f} s: allow more "
        "time, or run the rest on the edge",
    )
