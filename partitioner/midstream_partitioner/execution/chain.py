"""Running a partition's segments one after the other, on either side of the link."""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from midstream_partitioner.backends.backend import Backend, Runner, Value
from midstream_partitioner.backends.onnxruntime_backend import OnnxRuntime
from midstream_partitioner.backends.stopping import Stop
from midstream_partitioner.execution.auto_fuse import Fuser, Span
from midstream_partitioner.execution.resident_memory import Meter
from midstream_partitioner.execution.transform_runner import Adapter, Compiled
from midstream_partitioner.partition.background import fuse_beside
from midstream_partitioner.partition.cutting import fuse
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.scratch import Scratch
from midstream_wire.allocator import release_freed_memory
from midstream_wire.errors import ModelError, TensorError
from midstream_wire.tensors import Array

State = Mapping[str, Array]

#: What runs segments unless a chain is told otherwise.
ONNXRUNTIME = OnnxRuntime()


@final
class Chain:
    """Compiled segments [first, last) of a partition. `run` may be called from many threads.

    `slowdown` > 1 emulates a device that is slower by that factor: every run is followed by a
    wait, during which the processor is free for others. `keep_pace` makes it exact.
    With `weigh`, `held_nbytes` tells what memory they take; with `within_nbytes`, as many of
    them are held as that much allows. `backend` runs the segments; transforms are always
    onnxruntime's, on the CPU, so that both sides make the same of the same tensors.
    """

    def __init__(
        self,
        partition: Partition,
        *,
        first: int = 0,
        last: int | None = None,
        threads: int = 1,
        slowdown: float = 1.0,
        backend: Backend = ONNXRUNTIME,
        weigh: bool = False,
        within_nbytes: int | None = None,
    ) -> None:
        self.partition = partition
        self.backend = backend
        self.first = first
        self.last = len(partition.segments) if last is None else last
        self.threads = threads
        self.slowdown = slowdown
        self._pace_s: Sequence[float] = ()
        #: By count, the resident bytes of the first segments held; empty if not weighed.
        self.held_nbytes: tuple[int, ...] = ()
        self._links: dict[Span, Runner] = {}
        self._compile(weigh=weigh, within_nbytes=within_nbytes)
        self._transforms = Compiled(threads)
        self._fuser: Fuser | None = None
        self.fuses_after = 0
        self._adapters: dict[tuple[int, str], Adapter] = {}

    def _compile(self, *, weigh: bool, within_nbytes: int | None) -> None:
        meter = Meter() if weigh or within_nbytes is not None else None
        held = [0]
        for index in range(self.first, self.last):
            runner = self.backend.compile(
                self.partition.segments[index].compilable, threads=self.threads
            )
            if meter is not None:
                # Memory that was freed before is taken up again without growth.
                least = self.partition.weight_nbytes(self.first, index + 1)
                held.append(max(held[-1], least, meter.grown_nbytes() or 0))
                if within_nbytes is not None and held[-1] > within_nbytes:
                    self.last = index
                    held.pop()
                    break
            self._links[index, index + 1] = runner
        self.held_nbytes = tuple(held) if meter is not None else ()

    def keep(self, last: int) -> None:
        """Hold segments below `last` alone, and give the others' memory back."""
        self.last = max(self.first, min(self.last, last))
        self._links = {at: link for at, link in self._links.items() if at[1] <= self.last}
        release_freed_memory()

    def at_speed(self, slowdown: float) -> Chain:
        """The same compiled segments at another speed; what is fused later is not shared."""
        twin = copy.copy(self)
        twin.slowdown = slowdown
        twin._pace_s = ()
        twin._adapters = {}
        twin.fuse_stable(self.fuses_after)
        return twin

    def keep_pace(self, segments_s: Sequence[float]) -> None:
        """Have an emulated device take as long for each segment as is said here.

        A wait of some times what a run took multiplies what disturbed the run as well; a run
        that ends at a given time is not disturbed as long as there is anything left to wait.
        Without effect on a device that is not emulated. `segments_s` begins at segment 0.
        """
        self._pace_s = tuple(segments_s)

    def fuse(self, first: int, last: int) -> None:
        """Compile segments [first, last) into one more executor, used where a run covers them.

        Slightly faster than the chain for a plan that stays; takes the weights once more, and
        answers are equal to rounding instead of bit-identical.
        """
        if last - first > 1:
            self._check_range(first, last)
            self._join(first, last, fuse(self.partition, first, last))

    def fuse_stable(self, after: int, *, gently: bool = True) -> None:
        """From now on `fuse`, in the background, what `after` runs in a row have asked for.

        It is made in a process of its own, compiled from a file, run once, and then used from
        one run to the next; what was fused before is undone first. 0: no more of this.
        """
        self.fuses_after = after
        me = weakref.ref(self)  # a cycle would keep the weights until a garbage collection

        def fuse(span: Span, state: State) -> None:
            if (chain := me()) is not None:
                chain._fuse_beside(span, state, gently=gently)

        def unfuse(span: Span) -> None:
            if (chain := me()) is not None:
                chain.unfuse(*span)

        self._fuser = Fuser(after, fuse=fuse, unfuse=unfuse) if after > 0 else None

    def wait_fused(self, timeout_s: float) -> bool:
        """Wait until nothing is being fused in the background; whether it is so in time."""
        return self._fuser is None or self._fuser.wait(timeout_s)

    def unfuse(self, first: int, last: int) -> None:
        """Undo `fuse`: what runs now is not disturbed."""
        if last - first > 1:
            self._links = {at: link for at, link in self._links.items() if at != (first, last)}

    def release(self) -> None:
        """Give the weights back, whoever still refers to this; it runs nothing any more."""
        self._links, self._adapters, self.last = {}, {}, self.first
        self.fuse_stable(0)

    def _fuse_beside(self, span: Span, state: State, *, gently: bool) -> None:
        """Fuse a span that runs on `state`. Raises as `beside.fuse_beside`."""
        scratch = Scratch("midstream-fused-")
        file = scratch.path / "fused.onnx"
        fuse_beside(self.partition, *span, into=file, gently=gently)
        self._join(*span, file, state)

    def _join(
        self, first: int, last: int, model: bytes | Path, state: State | None = None
    ) -> None:
        link = self.backend.compile(model, threads=self.threads)
        if state is not None:
            link.run(
                self._uploaded(state)
            )  # the first run takes several times as long as the others
        self._links = self._links | {(first, last): link}

    def run(
        self, state: State, first: int, last: int, *, stop: Stop | None = None
    ) -> dict[str, Array]:
        """Run segments [first, last) on `state`: the inputs, or what crosses cut `first`.

        Returns what crosses cut `last`, and the network's outputs made so far. Raises
        `TensorError` when `state` does not fit, `ModelError` for segments not held here, and
        `Stopped` once `stop` is told.
        """
        self._check_range(first, last)
        started = time.perf_counter()
        span, arrays = (first, last), dict(state)
        self._check_state(arrays, first)
        links, values = self._links, dict[str, Value]()
        outputs = {spec.name for spec in self.partition.outputs}
        while first < last:
            reach = max(end for start, end in links if start == first and end <= last)
            link = links[first, reach]
            needed = {name: arrays[name] for name in link.inputs if name not in values}
            values |= self._uploaded(needed)
            made = link.run(values, stop=stop)
            alive = outputs.union(self.partition.cuts[reach].tensors)
            values = {name: v for name, v in (values | made).items() if name in alive}
            # What came in and goes on is the array that it was.
            passed = alive.difference(made)
            arrays = {name: array for name, array in arrays.items() if name in passed}
            first = reach
        download = self.backend.download
        arrays |= {name: download(v) for name, v in values.items() if name not in arrays}
        if self.slowdown > 1.0:
            took_s = time.perf_counter() - started
            whole_s = sum(self._pace_s[slice(*span)]) or self.slowdown * took_s
            wait = time.sleep if stop is None else stop.pause
            wait(max(0.0, whole_s - took_s))
        if self._fuser is not None:
            self._fuser.note(span, state)
        return arrays

    def _uploaded(self, state: State) -> dict[str, Value]:
        return {name: self.backend.upload(array) for name, array in state.items()}

    def transform(self, k: int, name: str) -> Adapter:
        """Return what goes over cut `k` under the transform called `name`; "" changes nothing.

        Compiled when it is first used. Raises `UsageError` for one that the cut has not.
        """
        found = self._adapters.get((k, name))
        if found is None:  # two threads may both make one: they are alike
            found = Adapter(
                self.partition, k, name, compiled=self._transforms, slowdown=self.slowdown
            )
            self._adapters[k, name] = found
        return found

    def _check_range(self, first: int, last: int) -> None:
        if not self.first <= first <= last <= self.last:
            raise ModelError(
                f"segments [{first}, {last}) must lie within [{self.first}, {self.last}), "
                "which are held here: load more of them, or plan within these"
            )

    def _check_state(self, arrays: State, first: int) -> None:
        # An input that no node uses crosses no cut, so the cloud does not have it either.
        for spec in self.partition.crossing(first):
            if spec.name not in arrays:
                came = ", ".join(sorted(arrays)) or "nothing"
                raise TensorError(
                    f"the tensor {spec.name!r} ({spec}) must be given; {came} came: name the "
                    "inputs as the model does"
                )
            spec.check(arrays[spec.name])
