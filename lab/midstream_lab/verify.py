"""Does a split network give the whole network's answer? Cut by cut, on a user's own model.

For each cut: the head, what crosses through the codec and back, the tail; and beside it the
unsplit network on the same input. onnxruntime fuses across what a cut keeps apart, so the two
agree to rounding (`compare.EXACT`); the placements of one partition run the same segments, so
they agree bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, final

from midstream_partitioner.chain import Chain, State
from midstream_partitioner.compare import EXACT, argmax_equal, relative_error
from midstream_partitioner.crossing import (
    decode_crossing,
    encode_crossing,
    full_id,
    is_lossless,
    parse_codec,
)
from midstream_partitioner.cuts import Cut
from midstream_partitioner.intake import Network
from midstream_partitioner.measure import Progress, no_progress
from midstream_partitioner.partition import Partition, fuse, partition
from midstream_partitioner.runtime import Executor
from midstream_wire.errors import MidstreamError, UsageError
from midstream_wire.tensors import Array

Answer = dict[str, Array]


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One cut, over all inputs: the worst error and the largest payload.

    `relative_error` is the largest difference over all outputs, each relative to the output's
    own largest magnitude; infinite where the split gave no answer. `failure` says why the cut
    does not pass, and is None if it does.
    """

    cut: str
    label: str
    raw_nbytes: int
    payload_nbytes: int
    relative_error: float
    argmax_equal: bool
    failure: str | None


@final
@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and what came of it."""

    codec: str
    tolerance: float | None
    rows: tuple[Check, ...]

    @property
    def checked(self) -> int:
        return len(self.rows)

    @property
    def max_relative_error(self) -> float:
        return max((row.relative_error for row in self.rows), default=0.0)

    @property
    def argmax_equal(self) -> bool:
        return all(row.argmax_equal for row in self.rows)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(row for row in self.rows if row.failure is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an error that is not finite is null."""
        return {
            "codec": self.codec,
            "tolerance": self.tolerance,
            "cuts": len(self.rows),
            "checked": self.checked,
            "max_relative_error": _finite(self.max_relative_error),
            "argmax_equal": self.argmax_equal,
            "failures": [{"cut": row.cut, "reason": row.failure} for row in self.failures],
            "rows": [
                asdict(row) | {"relative_error": _finite(row.relative_error)}
                for row in self.rows
            ],
        }


def verify_cuts(
    network: Network,
    *,
    cuts: Sequence[Cut],
    inputs: Sequence[State],
    codec: str = "raw",
    threads: int = 1,
    tolerance: float | None = None,
    progress: Progress = no_progress,
) -> Verification:
    """Split `network` at each of `cuts` on its own, and compare with the unsplit network.

    Only one split is in memory at a time. `tolerance` bounds the relative error; None takes
    `EXACT` for a lossless codec, and only reports the error of a lossy one.
    """
    name = full_id(codec)
    if parse_codec(name)[0]:
        raise UsageError(
            f"the transform of {name} belongs to a partition, and this is a bare network: "
            "give the folder of the partition that was calibrated"
        )
    limit = _limit(name, tolerance)
    whole = Executor(network.model.SerializeToString(), threads=threads)
    expected = [dict(sample) | whole.run(sample) for sample in inputs]
    names = network.graph.outputs
    wanted = [{name: answer[name] for name in names} for answer in expected]
    rows = []
    for done, cut in enumerate(cuts):
        progress(done, len(cuts))
        split = partial(_split, network, cut, inputs, threads=threads, codec=name)
        rows.append(_check(cut, split, wanted, limit))
    progress(len(cuts), len(cuts))
    return Verification(name, _finite(limit), tuple(rows))


def verify_partition(
    part: Partition,
    *,
    inputs: Sequence[State],
    codec: str = "raw",
    threads: int = 1,
    tolerance: float | None = None,
    progress: Progress = no_progress,
) -> Verification:
    """Try every placement of the chain against the unsplit network, fused from the segments.

    `tolerance` as in `verify_cuts`. With a lossless codec all placements must besides give
    the same bits as the chain does on its own. With a transform, the cuts that have it are
    tried; `UsageError` if none has.
    """
    name = full_id(codec)
    able = _able(part, parse_codec(name)[0])
    limit = _limit(name, tolerance)
    last = len(part.segments)
    names = [spec.name for spec in part.outputs]
    whole = Executor(fuse(part, 0, last), threads=threads)
    answers = [dict(sample) | whole.run(sample) for sample in inputs]
    expected = [{name: answer[name] for name in names} for answer in answers]
    del whole
    chain = Chain(part, threads=threads)
    states: list[State] = list(inputs)
    bits = [_bits(dict(sample) | chain.run(sample, 0, last), names) for sample in inputs]
    rows = []
    for k, cut in enumerate(part.cuts):
        progress(k, last + 1)
        if k:
            states = [chain.run(state, k - 1, k) for state in states]
        if k not in able:
            continue
        placed = partial(_place, chain, inputs, states, k=k, codec=name)
        rows.append(_check(cut, placed, expected, limit, bits if is_lossless(name) else None))
    progress(last + 1, last + 1)
    return Verification(name, _finite(limit), tuple(rows))


@final
@dataclass(frozen=True, slots=True)
class _Crossing:
    """One input's way through a split: the answer, and the bytes that crossed."""

    answer: Answer
    raw_nbytes: int
    payload_nbytes: int


def _split(
    network: Network, cut: Cut, inputs: Sequence[State], *, threads: int, codec: str
) -> list[_Crossing]:
    """Split `network` at `cut` alone, and run every input through it."""
    part = partition(network, [cut])
    chain, k = Chain(part, threads=threads), part.index_of(cut.id)
    states = [chain.run(sample, 0, k) for sample in inputs]
    return _place(chain, inputs, states, k=k, codec=codec)


def _place(
    chain: Chain, inputs: Sequence[State], states: Sequence[State], *, k: int, codec: str
) -> list[_Crossing]:
    """What comes of every input, whose state in front of segment `k` is known."""
    return [_cross(chain, *pair, k, codec) for pair in zip(inputs, states, strict=True)]


def _cross(chain: Chain, sample: State, state: State, k: int, codec: str) -> _Crossing:
    """What the edge's caller gets: outputs made in the head, and those of the reply."""
    part = chain.partition
    sent = encode_crossing(chain, k, codec, state)
    raw = sum(state[spec.name].nbytes for spec in part.crossing(k))
    reply = chain.run(decode_crossing(chain, k, sent), k, len(part.segments))
    made = {spec.name: reply[spec.name] for spec in part.outputs_from(k)}
    known = {**sample, **state, **made}
    return _Crossing({spec.name: known[spec.name] for spec in part.outputs}, raw, sent.nbytes)


def _check(
    cut: Cut,
    split: Callable[[], Sequence[_Crossing]],
    expected: Sequence[Answer],
    limit: float,
    bits: Sequence[Sequence[bytes]] | None = None,
) -> Check:
    """Compare what `split` gives with `expected`; with `bits`, bit by bit as well."""
    try:
        found = split()
    except MidstreamError as reason:
        return Check(cut.id, cut.label, cut.nbytes, 0, math.inf, False, str(reason))
    pairs = list(zip(expected, (each.answer for each in found), strict=True))
    error = max((relative_error(*pair) for pair in pairs), default=0.0)
    failure = None
    if not error <= limit:
        failure = f"the relative error must be at most {limit:g}, and is {error:.3g}"
    elif bits is not None and bits != [_bits(answer, answer) for _, answer in pairs]:
        failure = "all placements must give the same bits, and this one gives others"
    return Check(
        cut=cut.id,
        label=cut.label,
        raw_nbytes=max((each.raw_nbytes for each in found), default=0),
        payload_nbytes=max((each.payload_nbytes for each in found), default=0),
        relative_error=error,
        argmax_equal=all(argmax_equal(*pair) for pair in pairs),
        failure=failure,
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


def _limit(codec: str, tolerance: float | None) -> float:
    if tolerance is not None:
        return tolerance
    return EXACT if is_lossless(codec) else math.inf


def _bits(answer: State, names: Sequence[str] | Answer) -> list[bytes]:
    return [answer[name].tobytes() for name in names]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
