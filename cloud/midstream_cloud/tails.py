"""Running tails: a pool of workers that take from a queue what is fair and still in time.

The core of the cloud: payloads in, encoded outputs and timings out, with nothing of the
transport in it. The worker that runs a tail decodes what it runs on, so that decoding, too,
takes as many cores as there are workers.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import final

from midstream_cloud.budget import Budget, Claim
from midstream_cloud.estimates import Estimates, Kind, Points, expected
from midstream_cloud.helpers import Decoding
from midstream_cloud.models import Model
from midstream_cloud.work_queue import WorkQueue
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

#: Longest predicted wait in the queue, whatever a request's deadline.
MAX_WAIT_S = 60.0

#: Where no bound is given, a request may take so many times its model's longest tail, as its
#: profile measured that, and this much in any case.
WORK_TIMES, LEAST_WORK_S = 4.0, 1.0


@final
@dataclass(frozen=True, slots=True)
class Job:
    """One request's tail: which segments, on what, and by when.

    Clock readings: `received_s` when the last piece had arrived, `deadline_s` from when on
    nobody waits for the answer. `transform` names what the tensors went through, and have to
    go back. `peer` is who asks, and shares the workers fairly with other peers.
    `received_nbytes` of payload came. `stop` ends the run when it is told, and `claim` is to
    what the request holds.
    """

    model: Model
    first_segment: int
    incoming: Incoming
    received_s: float
    deadline_s: float | None = None
    transform: str = ""
    peer: str = ""
    received_nbytes: int = 0
    stop: Stop = field(default_factory=Stop)
    claim: Claim = field(default_factory=lambda: Budget(sys.maxsize).claim())

    @property
    def kind(self) -> Kind:
        """Return what decides how long it takes, besides the size of what came."""
        digest = self.model.partition.digest
        return digest, self.first_segment, self.transform, self.incoming.codec_ids

    @property
    def points(self) -> Points:
        """Return what such tails took when they were measured."""
        return self.model.tail_points(self.first_segment, self.transform)

    @property
    def crossing_nbytes(self) -> int:
        """Return the bytes that its tail runs on, as far as they are known."""
        return self.model.crossing_nbytes(
            self.first_segment, self.transform, self.incoming.nbytes
        )

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

    @property
    def nbytes(self) -> int:
        """Return the bytes of all payloads."""
        return sum(len(part) for parts in self.payloads.values() for part in parts)


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Queued:
    """A job that waits, and the future of its answer."""

    job: Job
    future: Future[Answer]


@final
class Tails:
    """`workers` threads that run tails, and a queue of at most `max_queued` jobs.

    No job may take more than `max_work_s`, as measured of its model's tails; without it, the
    bound is a few times the longest of these.
    """

    def __init__(
        self,
        *,
        workers: int,
        max_queued: int = 64,
        max_work_s: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._max_work_s = max_work_s
        self._clock = clock
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="tail")
        self._decoding = Decoding(workers)
        self._lock = threading.Lock()
        self._queue: WorkQueue[_Queued] = WorkQueue(
            workers=workers, max_queued=max_queued, max_wait_s=MAX_WAIT_S
        )
        self._queued: dict[int, _Queued] = {}  # what waits, by the id of its future
        self._estimates = Estimates()

    def submit(self, job: Job) -> Future[Answer]:
        """Queue a job and take it over: without an answer it is dropped, wherever it ends.

        The claim of a job that is answered covers the answer, until its caller drops it.
        `CloudRefused`, here or from the future: RESOURCE_EXHAUSTED when it is too much work or
        the queue is full, DEADLINE_EXCEEDED as soon as it is clear that the answer would come
        too late, UNAVAILABLE when the server stops before the job's turn.
        """
        try:
            return self._queue_up(job)
        except BaseException:
            job.drop()
            raise

    def abandon(self, job: Job, future: Future[Answer]) -> None:
        """Drop `job`, submitted as `future`, or end its run: nobody waits for its answer."""
        if not future.cancel():
            job.stop.tell()
        future.add_done_callback(lambda _: job.drop())

    def decode_ahead(self, incoming: Incoming) -> None:
        """Decode what has arrived of a request while the rest is under way.

        Faults of the payload are reported when the tail is to run.
        """
        with contextlib.suppress(RuntimeError, MemoryError):  # no thread: it is done later
            self._pool.submit(incoming.advance)

    def tidy(self) -> Future[None] | None:
        """Have a worker give memory that nothing uses back to the system, if there is one."""
        with contextlib.suppress(RuntimeError, MemoryError):
            return self._pool.submit(_release_memory)
        return None

    def close(self) -> None:
        """Take nothing more and refuse what is queued; does not wait for what runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            waiting = [*self._queued.values()]
        for queued in waiting:
            if self._withdraw(queued.future):
                self._refuse(queued, _stopping())
        self._decoding.close()

    def _queue_up(self, job: Job) -> Future[Answer]:
        future: Future[Answer] = Future()
        queued = _Queued(job, future)
        future.add_done_callback(lambda _: self._note_done(queued))
        with self._lock:
            nbytes = job.crossing_nbytes
            self._check_work(job, nbytes)
            cost_s = self._estimates.of(job.kind, nbytes, job.points)
            dropped = self._queue.offer(
                queued,
                peer=job.peer,
                cost_s=cost_s,
                deadline_s=job.deadline_s,
                now_s=self._clock(),
            )
            self._queued[id(future)] = queued
        for each in dropped:
            self._leave_out(each.item, late=each.late)
        try:
            self._pool.submit(self._run_next)
        except (RuntimeError, MemoryError) as error:  # no thread to be had, or stopping
            if self._withdraw(future):
                raise CloudRefused(
                    Code.RESOURCE_EXHAUSTED,
                    "a tail needs a thread, and the server has none to give "
                    f"({error}): run the rest on the edge",
                    kind="threads",
                ) from None
        return future

    def _check_work(self, job: Job, nbytes: int) -> None:
        """Refuse a tail on `nbytes` that is too much by its model's profile.

        What such tails have taken is left out: one slow start would refuse them for ever.
        """
        cost_s = expected(job.points, nbytes)
        most_s = self._max_work_s
        if most_s is None:
            most_s = max(LEAST_WORK_S, WORK_TIMES * job.model.longest_tail_s)
        if cost_s > most_s:
            raise CloudRefused(
                Code.RESOURCE_EXHAUSTED,
                f"a request may take {most_s:.3g} s of a worker here (not {cost_s:.3g} s, as "
                "predicted): send smaller ones, or run the rest on the edge",
                kind="work",
            )

    def _note_done(self, queued: _Queued) -> None:
        if queued.future.cancelled():
            self._withdraw(queued.future)
            queued.job.drop()

    def _withdraw(self, future: Future[Answer]) -> bool:
        """Take a job out of the queue; False if it runs already, or has ended."""
        with self._lock:
            queued = self._queued.pop(id(future), None)
            return queued is not None and self._queue.withdraw(queued)

    def _leave_out(self, queued: _Queued, *, late: bool) -> None:
        """Refuse a job that the queue has dropped."""
        with self._lock:
            self._queued.pop(id(queued.future), None)
        waited_s = self._clock() - queued.job.received_s
        self._refuse(queued, _left_out(waited_s, late=late))

    def _refuse(self, queued: _Queued, why: CloudRefused) -> None:
        """Drop a job that has left the queue without a run, and report why."""
        queued.job.drop()
        if queued.future.set_running_or_notify_cancel():
            queued.future.set_exception(why)

    def _run_next(self) -> None:
        """Run what the queue gives, if it has anything left."""
        with self._lock:
            queued, dropped = self._queue.take(self._clock())
            if queued is not None:
                del self._queued[id(queued.future)]
        for each in dropped:
            self._leave_out(each, late=True)
        if queued is None:
            return
        answer: Answer | BaseException | None = None
        if queued.future.set_running_or_notify_cancel():
            try:
                answer = self._run(queued.job)
            except BaseException as error:
                queued.job.drop()
                answer = error
        with self._lock:  # before anyone who is told asks for more
            self._queue.finish(queued, self._clock())
        if isinstance(answer, Answer):
            queued.future.set_result(answer)
        elif answer is not None:
            queued.future.set_exception(answer)

    def _run(self, job: Job) -> Answer:
        answer = self._answer(job)
        job.incoming.drop()
        job.claim.hold(answer.nbytes)
        return answer

    def _answer(self, job: Job) -> Answer:
        started_s = self._clock()
        queue_s = started_s - job.received_s
        nbytes = job.crossing_nbytes
        tensors = job.tensors(self._decoding.decode)
        if job.transform:  # how much a prior has packed is known only now
            self._check_work(job, sum(array.nbytes for array in tensors.values()))
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
    gc.collect()  # errors hold the frames that raised them, and these hold messages
    release_working_memory()
    release_freed_memory()


def _stopping() -> CloudRefused:
    return CloudRefused(
        Code.UNAVAILABLE,
        "the server has stopped before this request's turn: send it to another one, or run "
        "the rest on the edge",
    )


def _left_out(waited_s: float, *, late: bool) -> CloudRefused:
    if late:
        return CloudRefused(
            Code.DEADLINE_EXCEEDED,
            f"the answer would have come too late, after a wait of {waited_s:.3f} s: allow "
            "more time, or run the rest on the edge",
        )
    return CloudRefused(
        Code.RESOURCE_EXHAUSTED,
        f"the queue is full, and after {waited_s:.3f} s this request made room for a peer "
        "that waits for less: send fewer, or run the rest on the edge",
        kind="queue",
    )
