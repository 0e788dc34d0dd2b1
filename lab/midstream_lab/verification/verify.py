"""Does a split network give the whole network's answer? Cut by cut, on a user's own model.

For each cut: the head, what crosses through the codec and back, the tail; and beside it the
unsplit network on the same input. onnxruntime fuses across what a cut keeps apart, so the two
agree to the network's own rounding (`tolerances`); the placements of one partition run the
same segments, so they agree bit by bit. The whole network is always onnxruntime's, on the CPU.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import or_
from typing import final

import numpy as np
import onnx

from midstream_lab.verification.checks import Check, Verification, finite
from midstream_lab.verification.tolerances import limits_of, own_rounding, unit_of
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.codec_spec import full_id, is_lossless, parse_codec
from midstream_partitioner.compare import EXACT, Apart, apart, relative_error
from midstream_partitioner.execution.chain import ONNXRUNTIME, Chain, State
from midstream_partitioner.execution.crossing import decode_crossing, encode_crossing
from midstream_partitioner.graph.cuts import Cut
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.onnx_tools.random_nodes import RandomNodes
from midstream_partitioner.onnx_tools.serializing import serialized
from midstream_partitioner.partition.cutting import fuse, partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.profiling.profiler import Progress, no_progress
from midstream_wire.errors import MidstreamError, ModelError, UsageError
from midstream_wire.tensors import Array

#: What helps where the whole network is too large for one message.
_TOO_LARGE = "verify its partition, or store its weights in float16"

Answer = dict[str, Array]


def verify_cuts(
    network: Network,
    *,
    cuts: Sequence[Cut],
    inputs: Sequence[State],
    codec: str = "raw",
    threads: int = 1,
    tolerance: float | None = None,
    backend: Backend = ONNXRUNTIME,
    progress: Progress = no_progress,
) -> Verification:
    """Split `network` at each of `cuts` on its own, and compare with the unsplit network.

    Only one split is in memory at a time. `tolerance` bounds the relative error; None takes
    the network's own rounding for a lossless codec (`tolerances`), and of a lossy one only
    minds the largest entry. An interrupt ends it early, with the cuts checked so far.
    """
    name = full_id(codec)
    if parse_codec(name)[0]:
        raise UsageError(
            f"the transform of {name} belongs to a partition, and this is a bare model: "
            "give the folder of the partition that was calibrated"
        )
    bench = _Bench.of(
        serialized(network.model, what="a model verified whole", advice=_TOO_LARGE),
        network.graph.outputs,
        inputs,
        threads,
        backend,
    )
    compared = []
    with contextlib.suppress(KeyboardInterrupt):
        for done, cut in enumerate(cuts):
            progress(done, len(cuts))
            split = partial(_split, network, cut, inputs, bench=bench, codec=name)
            compared.append(_compare(cut, split, bench.expected))
        progress(len(cuts), len(cuts))
    found = bench.judge(compared, name, tolerance, planned=len(cuts))
    return replace(found, random_operators=RandomNodes.of(network.model).operators)


def verify_partition(
    part: Partition,
    *,
    inputs: Sequence[State],
    codec: str = "raw",
    threads: int = 1,
    tolerance: float | None = None,
    backend: Backend = ONNXRUNTIME,
    progress: Progress = no_progress,
) -> Verification:
    """Try every placement of the chain against the unsplit network, fused from the segments.

    `tolerance` as in `verify_cuts`, and interrupts too. With a lossless codec all placements
    must besides give the same bits as the chain does on its own. With a transform, the cuts
    that have it are tried; `UsageError` if none has.
    """
    name = full_id(codec)
    able = _able(part, parse_codec(name)[0])
    last = len(part.segments)
    names = [spec.name for spec in part.outputs]
    whole = fuse(part, 0, last)
    drawn = RandomNodes.of(onnx.load_model_from_string(whole)).operators
    bench = _Bench.of(whole, names, inputs, threads, backend)
    chain = Chain(part, threads=threads, backend=backend)
    states: list[State] = list(inputs)
    bits = [_bits(dict(sample) | chain.run(sample, 0, last), names) for sample in inputs]
    compared = []
    with contextlib.suppress(KeyboardInterrupt):
        for k, cut in enumerate(part.cuts):
            progress(k, last + 1)
            if k:
                states = [chain.run(state, k - 1, k) for state in states]
            if k not in able:
                continue
            placed = partial(_place, chain, inputs, states, k=k, codec=name)
            alike = is_lossless(name) and backend.repeats and not drawn
            wanted = bits if alike else None
            compared.append(_compare(cut, placed, bench.expected, wanted))
        progress(last + 1, last + 1)
    found = bench.judge(compared, name, tolerance, planned=len(able))
    return replace(found, random_operators=drawn)


@final
@dataclass(frozen=True, slots=True)
class _Crossing:
    """One input's way through a split: the answer, and the bytes that crossed."""

    answer: Answer
    raw_nbytes: int
    payload_nbytes: int


def _split(
    network: Network, cut: Cut, inputs: Sequence[State], *, bench: _Bench, codec: str
) -> list[_Crossing]:
    """Split `network` at `cut` alone, and run every input through it."""
    part = partition(network, [cut])
    chain = Chain(part, threads=bench.threads, backend=bench.backend)
    k = part.index_of(cut.id)
    states = [chain.run(sample, 0, k) for sample in inputs]
    return _place(chain, inputs, states, k=k, codec=codec)


def _place(
    chain: Chain, inputs: Sequence[State], states: Sequence[State], *, k: int, codec: str
) -> list[_Crossing]:
    """Return what comes of every input, whose state in front of segment `k` is known."""
    return [_cross(chain, *pair, k, codec) for pair in zip(inputs, states, strict=True)]


def _cross(chain: Chain, sample: State, state: State, k: int, codec: str) -> _Crossing:
    """Return what the edge's caller gets: outputs made in the head, and those of the reply."""
    part = chain.partition
    sent = encode_crossing(chain, k, codec, state)
    raw = sum(state[spec.name].nbytes for spec in part.crossing(k))
    reply = chain.run(decode_crossing(chain, k, sent), k, len(part.segments))
    made = {spec.name: reply[spec.name] for spec in part.outputs_from(k)}
    known = {**sample, **state, **made}
    for spec in part.outputs:
        spec.check(known[spec.name])
    return _Crossing({spec.name: known[spec.name] for spec in part.outputs}, raw, sent.nbytes)


@final
@dataclass(frozen=True, slots=True)
class _Compared:
    """One cut against the whole, before anybody has said what passes."""

    cut: Cut
    raw_nbytes: int = 0
    payload_nbytes: int = 0
    outputs: Mapping[str, Apart] = field(default_factory=dict)
    failure: str | None = None

    @property
    def worst(self) -> Apart:
        return reduce(or_, self.outputs.values(), Apart(0.0, 0.0, 0.0))

    def beyond(self, limits: Mapping[str, float]) -> str | None:
        """Say which output lies beyond its limit, and how far."""
        for name, found in self.outputs.items():
            if not found.relative <= limits[name]:
                return (
                    f"the relative error must be at most {limits[name]:.2g}, and is "
                    f"{found.relative:.3g} in {name} ({found.absolute:.3g} in absolute terms)"
                )
        return None

    def moved(self, limits: Mapping[str, float]) -> str | None:
        """Say where the largest entry stands elsewhere, and was not level with that."""
        for name, found in self.outputs.items():
            bound = 2 * limits[name] if math.isfinite(limits[name]) else EXACT
            if found.moved > bound:
                return (
                    f"the largest entry of {name} must stay where it is, and another is the "
                    "largest now: say with --tolerance what passes"
                )
        return None

    def check(self, limits: Mapping[str, float]) -> Check:
        """Judge by what passes, output by output."""
        if self.failure is not None and not self.outputs:
            return Check(
                self.cut.id, self.cut.label, self.cut.nbytes, 0, math.inf, False, self.failure,
                math.inf,
            )  # fmt: skip
        moved = self.moved(limits)
        return Check(
            cut=self.cut.id,
            label=self.cut.label,
            raw_nbytes=self.raw_nbytes,
            payload_nbytes=self.payload_nbytes,
            relative_error=self.worst.relative,
            argmax_equal=moved is None,
            failure=self.beyond(limits) or self.failure or moved,
            absolute_error=self.worst.absolute,
        )


def _compare(
    cut: Cut,
    split: Callable[[], Sequence[_Crossing]],
    expected: Sequence[Answer],
    bits: Sequence[Sequence[bytes]] | None = None,
) -> _Compared:
    """Hold what `split` gives against `expected`; with `bits`, bit by bit as well."""
    try:
        found = split()
    except MidstreamError as reason:
        return _Compared(cut, failure=str(reason))
    answers = [each.answer for each in found]
    outputs = {
        name: reduce(
            or_, (apart(e[name], a[name]) for e, a in zip(expected, answers, strict=True))
        )
        for name in expected[0]
    }
    other = bits is not None and bits != [_bits(answer, answer) for answer in answers]
    return _Compared(
        cut,
        max(each.raw_nbytes for each in found),
        max(each.payload_nbytes for each in found),
        outputs,
        "all placements must give the same bits, and this one gives others" if other else None,
    )


@final
@dataclass(frozen=True, slots=True)
class _Bench:
    """The unsplit network: its answers, and how far these can be relied on."""

    model: bytes
    inputs: Sequence[State]
    expected: Sequence[Answer]
    threads: int
    backend: Backend

    @classmethod
    def of(
        cls,
        model: bytes,
        names: Sequence[str],
        inputs: Sequence[State],
        threads: int,
        backend: Backend,
    ) -> _Bench:
        """Run the network; `UsageError` where there is nothing to compare with."""
        if not inputs:
            raise UsageError("a verification needs at least one input, and there is none")
        whole = Executor(model, threads=threads)

        def answer(sample: State) -> Answer:
            known = {**sample, **whole.run(sample)}
            return {name: known[name] for name in names}

        expected = [answer(sample) for sample in inputs]
        if not relative_error(expected[0], answer(inputs[0])) <= EXACT:
            raise ModelError(
                "the unsplit model must answer the same input alike each time, and this one "
                "does not, so nothing can be verified: take out what draws random numbers"
            )
        bench = cls(model, inputs, expected, threads, backend)
        if len(bench.silent) == len(names):
            raise UsageError(
                f"the outputs must hold numbers to compare, and {', '.join(names)} hold none "
                "on these inputs: give others with --input"
            )
        return bench

    @property
    def silent(self) -> tuple[str, ...]:
        """Outputs that are empty, or NaN throughout, on every input."""
        return tuple(
            name
            for name in self.expected[0]
            if all(np.isnan(answer[name]).all() for answer in self.expected)
        )

    def judge(
        self,
        compared: Sequence[_Compared],
        codec: str,
        tolerance: float | None,
        *,
        planned: int,
    ) -> Verification:
        """Say what passes; the network's own rounding is measured where that decides."""
        names, own = list(self.expected[0]), None
        given = tolerance if is_lossless(codec) or tolerance is not None else math.inf
        unit = max(unit_of(self.model), self.backend.unit)
        limits = dict.fromkeys(names, unit if given is None else given)
        if given is None and any(each.beyond(limits) for each in compared):
            own = own_rounding(self.model, self.inputs, self.expected, threads=self.threads)
            limits = limits_of(max(limits.values()), own)
        return Verification(
            codec=codec,
            backend=self.backend.name,
            tolerance=finite(max(limits.values())),
            rows=tuple(each.check(limits) for each in compared),
            planned=planned,
            own_rounding=None if own is None else max(own.values()),
            silent=self.silent,
        )


def _able(part: Partition, transform: str) -> frozenset[int]:
    """The cuts of `part` that have a transform of this name; all of them for ""."""
    everywhere = range(len(part.cuts))
    able = frozenset(k for k in everywhere if transform in ("", *part.transforms_at(k)))
    if not able:
        known = dict.fromkeys(each.name for each in part.transforms)
        raise UsageError(
            f"a transform must be one of {', '.join(known) or 'none'}, which {part.name} has "
            f"been calibrated for (not {transform!r})"
        )
    return able


def _bits(answer: State, names: Sequence[str] | Answer) -> list[bytes]:
    return [answer[name].tobytes() for name in names]
