"""How benchmarks/accuracy.py measures: codecs at one cut, and the choice among them.

Tensors go through the codec one sample at a time, as a session sends them, and payloads are
counted whole. Transforms are fitted to other samples than those measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
from accuracy_judges import Metrics
from accuracy_subjects import Subject

from midstream_partitioner.codec_spec import parse_codec
from midstream_partitioner.execution.chain import Chain, State
from midstream_partitioner.execution.crossing import decode_crossing, encode_crossing
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition, with_transforms
from midstream_partitioner.partition.transform import (
    PRIOR,
    SHAPED,
    Transform,
    is_packing,
    transformable,
)
from midstream_partitioner.profiling.fit_transforms import Responses
from midstream_partitioner.transforms.construct import make_packing
from midstream_partitioner.transforms.fit_prior import can_have_prior, deviation_of, fit_prior
from midstream_partitioner.transforms.klt import channel_axis, klt, spectrum_of
from midstream_partitioner.transforms.noise_shaping import SAMPLES as METRIC_SAMPLES
from midstream_partitioner.transforms.noise_shaping import Metric, fit_metric
from midstream_partitioner.transforms.nonnegative import is_nonnegative
from midstream_wire.tensors import Array

MAX_NBYTES = 1 << 28

EXACT = ("raw", "lossless")
FIRST_RUNG = ("half", "int8", "int8c")
STEPS = ("0.25", "0.35", "0.4", "0.45", "0.5", "0.7", "1", "1.4", "1.7", "2", "2.5")
CONTEXT_STEPS = ("0.35", "0.4", "0.45", "0.5", "0.7", "1", "1.4", "1.7", "2")
QUANTIZED = (
    *(f"ec:{step}" for step in STEPS),
    "ecc:0.5",
    "ecc:1",
    *(f"ctx:{step}" for step in CONTEXT_STEPS),
)
#: Shares of the channels that transforms keep, and the codecs behind them.
KEPT = (1.0, 0.25, 0.22)
TRANSFORMED = tuple("ec:0.35 ec:0.5 ec:0.7 ec:1 ctx:0.35 ctx:0.4 ctx:0.5 ctx:0.7".split())
#: Steps of priors, in hundredths of a standard deviation.
PRIOR_STEPS = (30, 35, 40, 45, 50, 55, 60, 70, 100, 140, 170, 200)
SHAPED_STEPS = (50, 55, 60, 65, 70, 75, 80, 100, 140, 200, 250, 300, 400)
PRIORS = (
    *(f"prior:{step}+raw" for step in PRIOR_STEPS),
    *(f"shaped:{step}+raw" for step in SHAPED_STEPS),
)
#: The step whose errors metrics are made for, in standard deviations.
METRIC_DIAL = 0.7
QUALITIES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 93, 95, 96, 97, 98, 99, 100)
PICTURES = ("png", *(f"{kind}:{q}" for kind in ("jpeg", "webp") for q in QUALITIES))

#: Groups of codecs for tensors; one is chosen of each.
KINDS = ("first rung", "ec, ecc", "ctx", "transform", "prior", "shaped")


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One codec at one cut. Payloads are means and the largest, in bytes per sample."""

    network: str
    position: int
    cut: str
    label: str
    codec: str
    elements: int
    payload_nbytes: float
    payload_worst_nbytes: int
    bits_per_element: float
    in_budget: bool
    metrics: Metrics
    payloads: tuple[int, ...] = field(repr=False, compare=False)


@final
@dataclass(frozen=True, slots=True)
class Choosing:
    """The codec chosen of a group: its row where it was chosen, and its row on the tests."""

    kind: str
    chosen: Row
    tested: Row


def kind_of(codec: str) -> str:
    """The group of a codec: one of KINDS, or a picture's format."""
    transform, kind = parse_codec(codec)
    if transform:
        return transform.partition(":")[0] if is_packing(transform) else "transform"
    if kind.family in ("ec", "ecc"):
        return "ec, ecc"
    if kind.family in ("ctx", "png", "jpeg", "webp"):
        return kind.family
    return "first rung"


def best_of(rows: Iterable[Row]) -> Row | None:
    """The smallest payload that keeps to the budget."""
    return min(
        (row for row in rows if row.in_budget),
        key=lambda row: row.payload_nbytes,
        default=None,
    )


def measure(subject: Subject, k: int, codecs: Sequence[str] | None) -> Iterator[Row]:
    """Rows of every codec at cut `k`; `codecs` replaces the ladder."""
    chain, wanted = prepared(subject, k, codecs)
    yield from rows_of(subject, chain, k, wanted)


def choose(subject: Subject, k: int, codecs: Sequence[str] | None) -> Iterator[Choosing]:
    """Of each group of codecs at cut `k` the one chosen, where one keeps to the budget."""
    choice = subject.choice
    assert choice is not None, "asked for only where there is one"
    chain, wanted = prepared(subject, k, codecs)
    elsewhere = replace(subject, tests=choice.inputs, judge=choice.judge, budget=choice.budget)
    rows = list(rows_of(elsewhere, chain, k, [each for each in wanted if each not in EXACT]))
    best = {kind: best_of(row for row in rows if kind_of(row.codec) == kind) for kind in KINDS}
    found = {kind: row for kind, row in best.items() if row is not None}
    tested = rows_of(subject, chain, k, [row.codec for row in found.values()])
    for (kind, chosen), row in zip(found.items(), tested, strict=True):
        yield Choosing(kind, chosen, row)


def prepared(
    subject: Subject, k: int, codecs: Sequence[str] | None
) -> tuple[Chain, list[str]]:
    """(the network with what was fitted at cut `k`, the codecs to be measured there)"""
    plain = partition(subject.network, subject.cuts)
    chain = Chain(plain)
    wanted = wanted_at(subject, plain, k, codecs)
    names = dict.fromkeys(name for name, _ in map(parse_codec, wanted) if name)
    if subject.fitted is None or not names:
        return chain, wanted
    fitted = heads_of(subject, subject.fitted, chain, k)
    return Chain(with_transforms(plain, fit(chain, k, fitted, [*names]))), wanted


def wanted_at(
    subject: Subject, part: Partition, k: int, codecs: Sequence[str] | None
) -> list[str]:
    """The codecs to be measured at cut `k`: the ladder, or those of `codecs` that can be."""
    moved = [] if subject.fitted is None else transformed_at(part, k)
    if not codecs:
        is_input = subject.is_pictures and not k
        return [*EXACT, *(PICTURES if is_input else (*FIRST_RUNG, *QUANTIZED)), *moved]
    possible = {kind_of(each) for each in moved}
    return [each for each in codecs if not parse_codec(each)[0] or kind_of(each) in possible]


def transformed_at(part: Partition, k: int) -> list[str]:
    """ "klt:N+ec:D" and the like, for cuts of one tensor with channels."""
    crossing = part.crossing(k)
    if not k or len(crossing) > 1 or not transformable(crossing[0]):
        return []
    channels = crossing[0].shape[channel_axis(len(crossing[0].shape))]
    assert isinstance(channels, int), "the networks here have fixed channels"
    moved = [f"klt:{round(share * channels)}+{kind}" for share in KEPT for kind in TRANSFORMED]
    return [*moved, *(PRIORS if can_have_prior(crossing[0]) else ())]


def fit(
    chain: Chain, k: int, fitted: Sequence[State], names: Sequence[str]
) -> Iterator[Transform]:
    """The transforms called `names` at cut `k`; the shaped ones share a metric."""
    part = chain.partition
    (tensor,) = part.cuts[k].tensors
    arrays = [state[tensor] for state in fitted]
    if sizes := numbers_of("klt", names):
        spectrum = spectrum_of(arrays)
        nonnegative = is_nonnegative(part, tensor)
        for size in sizes:
            yield klt(part, k, tensor, *spectrum.keep(size), nonnegative=nonnegative)
    shaped = numbers_of(SHAPED, names)
    metric = metric_of(chain, k, fitted) if shaped else None
    steps = [
        *((step, None) for step in numbers_of(PRIOR, names)),
        *((step, metric) for step in shaped if metric is not None),
    ]
    for step, used in steps:
        prior = fit_prior(arrays, step / 100, metric=used)
        yield make_packing(part.cuts[k].id, step / 100, tensor, prior)


def numbers_of(kind: str, names: Iterable[str]) -> list[int]:
    """Every N of the transforms "kind:N" among `names`."""
    return [
        int(name.removeprefix(f"{kind}:")) for name in names if name.startswith(f"{kind}:")
    ]


def metric_of(chain: Chain, k: int, fitted: Sequence[State]) -> Metric | None:
    """What the next segment notices of errors in the only tensor at cut `k`."""
    (tensor,) = chain.partition.cuts[k].tensors
    first = fitted[0]
    singles = [
        {name: array[at : at + 1] for name, array in first.items()}
        for at in range(METRIC_SAMPLES)
    ]
    return fit_metric(
        [single[tensor] for single in singles],
        METRIC_DIAL * deviation_of([state[tensor] for state in fitted]),
        [Responses(chain, k, single, tensor) for single in singles],
    )


def heads_of(subject: Subject, inputs: Array, chain: Chain, k: int) -> list[State]:
    """What crosses cut `k` for `inputs`, in batches."""
    return [chain.run(each, 0, k) for each in subject.batches(inputs)]


def rows_of(subject: Subject, chain: Chain, k: int, codecs: Sequence[str]) -> Iterator[Row]:
    """Send every test's tensors through each codec, and judge what the tail makes of them."""
    part = chain.partition
    cut = part.cuts[k]
    states = heads_of(subject, subject.tests, chain, k)
    elements = sum(states[0][name][0].size for name in cut.tensors)
    for codec in codecs:
        outputs = []
        payloads: list[int] = []
        for state in states:
            received, nbytes = through(chain, k, codec, state)
            payloads += nbytes
            outputs.append(chain.run(received, k, len(part.segments)))
        metrics = subject.judge(outputs)
        mean = float(np.mean(payloads))
        yield Row(
            network=subject.name,
            position=k,
            cut=cut.id,
            label=cut.label,
            codec=codec,
            elements=elements,
            payload_nbytes=mean,
            payload_worst_nbytes=max(payloads),
            bits_per_element=8 * mean / elements,
            in_budget=subject.budget.admits(metrics),
            metrics=metrics,
            payloads=tuple(payloads),
        )


def through(
    chain: Chain, k: int, codec: str, state: State
) -> tuple[dict[str, Array], list[int]]:
    """What the tail receives of a batch, and each sample's payload in bytes.

    Every sample goes through transform and codec by itself.
    """
    names = [spec.name for spec in chain.partition.crossing(k)]
    nbytes = []
    received = {name: np.empty_like(state[name]) for name in names}
    for index in range(len(state[names[0]])):
        single = {name: state[name][index : index + 1] for name in names}
        sent = encode_crossing(chain, k, codec, single)
        nbytes.append(sent.nbytes)
        for name, array in decode_crossing(chain, k, sent, max_nbytes=MAX_NBYTES).items():
            received[name][index] = array[0]
    return received, nbytes
