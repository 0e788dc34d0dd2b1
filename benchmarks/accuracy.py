"""What activation codecs cost in bytes and in accuracy, on trained networks.

    python benchmarks/accuracy.py [--network resnet20|ultraface|digits|minilm] [--json FILE]
                                  [--draw FOLDER] [--samples N]
    python benchmarks/accuracy.py --choose --network resnet20 [--cuts 5,6,10] [--json FILE]

Every codec at every cut of interest, and JPEG, WebP and PNG of the input over their whole
range of quality. Tensors go through the codec one sample at a time, as a session sends them;
payloads are counted whole, with headers and checksums. Transforms are fitted to other samples
than those measured. docs/codecs-results.md has the results.

With --choose, codecs are measured on training pictures that nothing was fitted to; of each
group the smallest that keeps to a stricter budget there is chosen, and that one alone is
measured on the test pictures: what a table says of it is not picked from what it tells.

The data is looked for in ../shared/data or $MIDSTREAM_DATA; what is absent is skipped.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, final

import numpy as np
import onnxruntime
import PIL
import zstandard
from PIL import Image

from midstream_lab.networks import DIGITS_FEED, NETWORKS, PICTURE_FEED, digits_split
from midstream_partitioner.chain import Chain
from midstream_partitioner.crossing import decode_crossing, encode_crossing, parse_codec
from midstream_partitioner.cuts import Cut, position_cuts
from midstream_partitioner.feed import Feed
from midstream_partitioner.fitting import Responses
from midstream_partitioner.graph import Graph
from midstream_partitioner.intake import Network, load_network
from midstream_partitioner.klt import channel_axis, klt, spectrum_of
from midstream_partitioner.partition import Partition, partition
from midstream_partitioner.prior_fitting import can_have_prior, deviation_of, fit_prior
from midstream_partitioner.samples import list_pictures, read_picture
from midstream_partitioner.shaping import fit_metric
from midstream_partitioner.signs import is_nonnegative
from midstream_partitioner.transforms import (
    Transform,
    is_packing,
    make_packing,
    transformable,
    with_transforms,
)
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array

State = Mapping[str, Array]
Metrics = dict[str, float]

DATA = Path(
    os.environ.get("MIDSTREAM_DATA") or Path(__file__).resolve().parents[2] / "shared/data"
)
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
QUALITIES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 93, 95, 96, 97, 98, 99, 100)
PICTURES = ("png", *(f"{kind}:{q}" for kind in ("jpeg", "webp") for q in QUALITIES))


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """What a codec must keep to: a least value per metric (losses are negated)."""

    least: Mapping[str, float]
    text: str

    def admits(self, metrics: Metrics) -> bool:
        return all(metrics[name] >= value - 1e-9 for name, value in self.least.items())


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """Other inputs than the tests, to choose codecs on: their judge, and what to keep to."""

    inputs: Array
    judge: Callable[[Sequence[State]], Metrics]
    budget: Budget


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """A trained network, inputs to measure on, others to fit transforms to, and a judge.

    `judge` takes the outputs of all inputs, in batches, and gives the metrics by name.
    """

    name: str
    title: str
    network: Network
    cuts: tuple[Cut, ...]
    tests: Array
    fitted: Array | None
    batch: int
    judge: Callable[[Sequence[State]], Metrics]
    budget: Budget
    metric: str
    drawn: Mapping[str, float]  # metrics, and from where on
    is_pictures: bool
    choice: Choice | None = None


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


def blocks_of(graph: Graph) -> tuple[Cut, ...]:
    """Cuts behind an activation or a pooling where one map (or vector) of features crosses.

    What detection heads have made so far may cross beside it.
    """
    found = {}
    for cut in position_cuts(graph):
        if cut.is_cloud_only or cut.is_edge_only:
            continue
        last = graph.nodes[cut.runs[-1] - 1]
        maps = [name for name in cut.tensors if len(graph.tensors[name].nominal) != 3]
        if last.op_type in ("Relu", "ReduceMean", "MaxPool") and maps == [*last.outputs]:
            found[maps[0]] = cut
    return tuple(found.values())


# --- classifiers: ResNet-20 on CIFAR-10, and the digits ------------------------------------


def classifier_judge(labels: Array, expected: Array, output: str) -> Callable[..., Metrics]:
    """Top-1 and agreement in percent, and the relative deviation of the logits."""
    reference = expected.argmax(axis=1)
    top1 = 100 * float((reference == labels).mean())

    def judge(batches: Sequence[State]) -> Metrics:
        logits = np.concatenate([batch[output] for batch in batches])
        answers = logits.argmax(axis=1)
        error = np.linalg.norm(logits - expected, axis=1) / np.linalg.norm(expected, axis=1)
        reached = 100 * float((answers == labels).mean())
        return {
            "top1": reached,
            "top1_loss": top1 - reached,
            "top1_kept": reached - top1,
            "agreement": 100 * float((answers == reference).mean()),
            "relative_l2_mean": float(error.mean()),
            "relative_l2_worst": float(error.max()),
        }

    return judge


CLASSIFIED = Budget(
    {"top1_kept": -0.5, "agreement": 98.5},
    "at most 0.5 point of top-1 lost and at least 98.5 % agreement with the float32 network",
)


#: What codecs keep to on pictures that the network was trained on, to be chosen: half as many
#: other answers. It is surer of these (3.5 % of ResNet-20's margins there are below 0.5, 4.8 %
#: of those of the test pictures), and the best of many is the best by luck, too.
CHOSEN = Budget(
    {"top1_kept": -0.5, "agreement": 99.25},
    "at most 0.5 point of top-1 lost and at least 99.25 % agreement on training pictures",
)


def classifier(name: str, title: str, network: Network, **data: Any) -> Subject:
    tests, labels = data["tests"], data["labels"]
    output = network.graph.outputs[0]
    whole = Chain(partition(network, ()), threads=os.cpu_count() or 1)

    def judge_of(inputs: Array, labels: Array) -> Callable[..., Metrics]:
        batches = batches_of(network, inputs, data["batch"])
        expected = [whole.run(state, 0, 1)[output] for state in batches]
        return classifier_judge(labels, np.concatenate(expected), output)

    others = data["others"]
    return Subject(
        name=name,
        title=title,
        network=network,
        cuts=blocks_of(network.graph),
        tests=tests,
        fitted=data["fitted"],
        batch=data["batch"],
        judge=judge_of(tests, labels),
        choice=Choice(others[0], judge_of(*others), CHOSEN),
        budget=CLASSIFIED,
        metric="agreement",
        drawn={"agreement": 85.0, "top1": 70.0},
        is_pictures=network.feed.kind == "image",
    )


def resnet20(samples: int | None) -> Subject:
    network = load_network(model_file("resnet20-cifar10"), feed=PICTURE_FEED)
    test = np.load(data_file("cifar10/cifar10-test-2000.npz"))
    training = np.load(data_file("cifar10/cifar10-train-10000.npz"))
    images, told = training["images"], training["labels"]
    drawn = np.random.default_rng(0).permutation(len(images))
    others = drawn[500:2500][:samples]
    return classifier(
        "resnet20",
        "ResNet-20 on CIFAR-10",
        network,
        tests=test["images"][:samples],
        labels=test["labels"][:samples],
        fitted=images[np.sort(drawn[:500])],
        others=(images[others], told[others]),
        batch=100,
    )


def digits(samples: int | None) -> Subject:
    reference = NETWORKS["digits"]
    network = load_network(reference.build(), feed=DIGITS_FEED, name="digits")
    images, labels = digits_split()
    trained_on, told = digits_split(held_out=False)
    return classifier(
        "digits",
        reference.title,
        network,
        tests=images[:samples],
        labels=labels[:samples],
        fitted=trained_on[:500],
        others=(trained_on[500:], told[500:]),
        batch=100,
    )


# --- a detector: UltraFace on photos --------------------------------------------------------

#: Scores from here on are faces; of boxes that overlap more than this, the best stays.
LEAST_SCORE, MOST_OVERLAP = 0.7, 0.3
#: A box is found again where one overlaps it by at least this.
SAME_BOX = 0.9
WIDTH, HEIGHT = 320, 240


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of boxes [A, 4] and [B, 4], left, top, right, bottom: [A, B]."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    opposite = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.maximum(opposite - corner, np.float32(0)).prod(axis=2)
    areas_a, areas_b = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (a, b))
    union = areas_a[:, None] + areas_b[None] - common
    shares: Array = common / np.maximum(union, np.float32(1e-12))
    return shares


def confident(outputs: State) -> Array:
    """Boxes in pixels whose score is above LEAST_SCORE, best first: [N, 4]."""
    scores, boxes = outputs["scores"][0, :, 1], outputs["boxes"][0]
    kept = np.flatnonzero(scores > LEAST_SCORE)
    order = kept[np.argsort(-scores[kept], kind="stable")]
    in_pixels: Array = boxes[order] * np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)
    return in_pixels


def suppressed(boxes: Array) -> Array:
    """`boxes`, best first, without those that overlap a better one by over MOST_OVERLAP."""
    near = overlaps(boxes, boxes) > MOST_OVERLAP
    kept: list[int] = []
    for index in range(len(boxes)):
        if not near[index, kept].any():
            kept.append(index)
    return boxes[kept]


def nearest_of(boxes: Array, others: Array) -> Array:
    """The greatest overlap of each of `boxes` with any of `others`; 0 where there are none."""
    if not len(others):
        return np.zeros(len(boxes))
    greatest: Array = overlaps(boxes, others).max(axis=1)
    return greatest


def found_again(expected: Array, came: Array) -> int:
    """How many boxes of `expected` have one of `came` on them."""
    return int(np.count_nonzero(nearest_of(expected, came) >= SAME_BOX))


def detector_judge(expected: Sequence[State]) -> Callable[..., Metrics]:
    """Percent of boxes found again, after suppression and (raw) before; the worst photo's."""
    raw = [confident(each) for each in expected]
    boxes = [suppressed(each) for each in raw]

    def judge(batches: Sequence[State]) -> Metrics:
        came = [confident(each) for each in batches]
        left = [suppressed(each) for each in came]
        found = [found_again(a, b) for a, b in zip(boxes, left, strict=True)]
        found_raw = [found_again(a, b) for a, b in zip(raw, came, strict=True)]
        shares = [n / len(each) for n, each in zip(found, boxes, strict=True) if len(each)]
        invented = sum(
            np.count_nonzero(nearest_of(b, a) < 0.5) for a, b in zip(boxes, left, strict=True)
        )
        return {
            "found": 100 * sum(found) / sum(map(len, boxes)),
            "found_before_nms": 100 * sum(found_raw) / sum(map(len, raw)),
            "found_worst_photo": 100 * min(shares),
            "invented": float(invented),
        }

    return judge


def ultraface(samples: int | None) -> Subject:
    feed = Feed(kind="image", mean=(127.0,), std=(128.0,))
    network = load_network(model_file("ultraface-rfb-320"), feed=feed)
    photos = np.stack(
        [
            read_picture(path, (HEIGHT, WIDTH), resize="stretch")
            for path in list_pictures(data_file("photos"))[:samples]
        ]
    )
    whole = Chain(partition(network, ()), threads=os.cpu_count() or 1)
    expected = [whole.run(state, 0, 1) for state in batches_of(network, photos, 1)]
    return Subject(
        name="ultraface",
        title="UltraFace RFB-320 on photographs",
        network=network,
        cuts=blocks_of(network.graph),
        tests=photos,
        fitted=None,
        batch=1,
        judge=detector_judge(expected),
        budget=Budget({"found": 98.0}, "at least 98 % of the boxes found again"),
        metric="found",
        drawn={"found": 80.0},
        is_pictures=True,
    )


# --- a transformer: MiniLM on passages of text ---------------------------------------------


def embedding_judge(expected: Array) -> Callable[..., Metrics]:
    """Cosine (times 100) with the embeddings of the unsplit network, mean and worst.

    And the share of passages whose nearest other passage stays the same, in percent.
    """

    def nearest(embeddings: Array) -> Array:
        alike = embeddings @ embeddings.T
        np.fill_diagonal(alike, -np.inf)
        found: Array = alike.argmax(axis=1)
        return found

    def judge(batches: Sequence[State]) -> Metrics:
        came = np.concatenate([batch["embedding"] for batch in batches])
        cosines = (came * expected).sum(axis=1)
        return {
            "cosine": 100 * float(cosines.mean()),
            "cosine_worst": 100 * float(cosines.min()),
            "same_nearest": 100 * float((nearest(came) == nearest(expected)).mean()),
        }

    return judge


def minilm(samples: int | None) -> Subject:
    import minilm as package

    folder = package.folder()
    network = load_network(package.build(folder), name="minilm")
    tokens = package.passages(folder)
    drawn = np.random.default_rng(0).permutation(len(tokens))
    tests, fitted = tokens[drawn[:100]][:samples], tokens[drawn[100:200]]
    whole = Chain(partition(network, ()), threads=os.cpu_count() or 1)
    expected = [
        whole.run(state, 0, 1)["embedding"] for state in batches_of(network, tests, 10)
    ]
    layers = ("embeddings.LayerNorm", *(f"layer.{at}.output.LayerNorm" for at in range(6)))
    cuts = tuple(
        cut
        for cut in position_cuts(network.graph)
        if cut.runs and network.graph.nodes[cut.runs[-1] - 1].name.endswith(layers)
    )
    return Subject(
        name="minilm",
        title="MiniLM-L6 on passages of 128 tokens",
        network=network,
        cuts=cuts,
        tests=tests,
        fitted=fitted,
        batch=10,
        judge=embedding_judge(np.concatenate(expected)),
        budget=Budget(
            {"cosine": 99.5, "cosine_worst": 99.0},
            "a mean cosine of at least 0.995 and 0.99 at worst",
        ),
        metric="cosine",
        drawn={"cosine": 95.0},
        is_pictures=False,
    )


# --- measuring -------------------------------------------------------------------------------


def data_file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        raise UsageError(f"no {path}: name the data's folder in MIDSTREAM_DATA")
    return path


def model_file(name: str) -> Path:
    return data_file(f"models/{name}.onnx")


def batches_of(network: Network, inputs: Array, size: int) -> Iterator[State]:
    """`inputs` as the network's only input, `size` samples at a time."""
    name = network.graph.inputs[0]
    for start in range(0, len(inputs), size):
        yield {name: inputs[start : start + size]}


def measure(subject: Subject, k: int, codecs: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of every codec at cut `k`; `codecs` replaces the ladder."""
    chain, wanted = prepared(subject, k, codecs)
    states = heads_of(subject, subject.tests, chain, k)
    for codec in wanted:
        yield measure_codec(subject, chain, k, codec=codec, states=states)


def prepared(
    subject: Subject, k: int, codecs: Sequence[str] | None = None
) -> tuple[Chain, list[str]]:
    """(the network with what was fitted at cut `k`, the codecs to be measured there)"""
    plain = partition(subject.network, subject.cuts)
    chain = Chain(plain)
    moved = [] if subject.fitted is None else transforms_for(plain, k)
    wanted = [*ladder(subject, k), *moved]
    if codecs:
        wanted = [each for each in codecs if moved or not parse_codec(each)[0]]
    fitted = heads_of(subject, subject.fitted, chain, k) if moved else None
    return Chain(with_transforms(plain, fit(chain, k, fitted, wanted))), wanted


def choose(subject: Subject, k: int, codecs: Sequence[str] | None) -> Iterator[Choosing]:
    """Of each group of codecs at cut `k` the one chosen, where one keeps to the budget."""
    choice = subject.choice
    assert choice is not None, "asked for only where there is one"
    chain, wanted = prepared(subject, k, codecs)
    wanted = [each for each in wanted if each not in EXACT]
    elsewhere = replace(subject, tests=choice.inputs, judge=choice.judge, budget=choice.budget)
    states = heads_of(subject, choice.inputs, chain, k)
    rows = [measure_codec(elsewhere, chain, k, codec=codec, states=states) for codec in wanted]
    tests = heads_of(subject, subject.tests, chain, k)
    for kind in KINDS:
        best = best_of(row for row in rows if kind_of(row.codec) == kind)
        if best is not None:
            row = measure_codec(subject, chain, k, codec=best.codec, states=tests)
            yield Choosing(kind, best, row)


def heads_of(subject: Subject, inputs: Array | None, chain: Chain, k: int) -> list[State]:
    """What crosses cut `k` for `inputs`, in batches."""
    assert inputs is not None, "asked for only where there are inputs"
    return [
        chain.run(each, 0, k) for each in batches_of(subject.network, inputs, subject.batch)
    ]


def ladder(subject: Subject, k: int) -> tuple[str, ...]:
    """The codecs without a transform that are measured at cut `k`."""
    if k or not subject.is_pictures:
        return (*EXACT, *FIRST_RUNG, *QUANTIZED)
    return (*EXACT, *PICTURES)


def transforms_for(part: Partition, k: int) -> list[str]:
    """ "klt:N+ec:D" and the like, for cuts of one tensor with channels."""
    crossing = part.crossing(k)
    if not k or len(crossing) > 1 or not transformable(crossing[0]):
        return []
    channels = crossing[0].shape[channel_axis(len(crossing[0].shape))]
    assert isinstance(channels, int), "the networks here have fixed channels"
    moved = [f"klt:{round(share * channels)}+{kind}" for share in KEPT for kind in TRANSFORMED]
    return [*moved, *(PRIORS if can_have_prior(crossing[0]) else ())]


def fit(
    chain: Chain, k: int, fitted: Sequence[State] | None, codecs: Iterable[str]
) -> Iterator[Transform]:
    """The transforms that `codecs` name at cut `k`."""
    part = chain.partition
    names = dict.fromkeys(parse_codec(each)[0] for each in codecs)
    sizes = [int(name.removeprefix("klt:")) for name in names if name.startswith("klt:")]
    packings = [name for name in names if is_packing(name)]
    if not (sizes or packings) or fitted is None:
        return
    (tensor,) = part.cuts[k].tensors
    yield from packings_of(chain, k, fitted, packings)
    spectrum = spectrum_of(state[tensor] for state in fitted)
    nonnegative = is_nonnegative(part, tensor)
    for size in sizes:
        yield klt(part, k, tensor, *spectrum.keep(size), nonnegative=nonnegative)


def packings_of(
    chain: Chain, k: int, fitted: Sequence[State], names: Sequence[str]
) -> Iterator[Transform]:
    """The priors called `names`; the shaped ones share a metric."""
    (tensor,) = chain.partition.cuts[k].tensors
    arrays = [state[tensor] for state in fitted]
    metric = None
    if any(name.startswith("shaped:") for name in names):
        first = fitted[0]
        singles = [
            {name: array[at : at + 1] for name, array in first.items()} for at in range(24)
        ]
        metric = fit_metric(
            [single[tensor] for single in singles],
            0.7 * deviation_of(arrays),
            [Responses(chain, k, single, tensor) for single in singles],
        )
    for name in names:
        kind, _, step = name.partition(":")
        if kind == "prior" or metric is not None:
            dial = int(step) / 100
            used = metric if kind == "shaped" else None
            prior = fit_prior(arrays, dial, metric=used)
            yield make_packing(chain.partition.cuts[k].id, dial, tensor, prior)


def measure_codec(
    subject: Subject, chain: Chain, k: int, *, codec: str, states: Sequence[State]
) -> Row:
    """Send every sample's tensors through `codec`, and judge what the tail makes of them."""
    part = chain.partition
    payloads: list[int] = []
    outputs = []
    for state in states:
        received, nbytes = through(chain, k, codec, state)
        payloads += nbytes
        outputs.append(chain.run(received, k, len(part.segments)))
    metrics = subject.judge(outputs)
    cut = part.cuts[k]
    elements = sum(array[0].size for name, array in states[0].items() if name in cut.tensors)
    return Row(
        network=subject.name,
        position=k,
        cut=cut.id,
        label=cut.label,
        codec=codec,
        elements=elements,
        payload_nbytes=float(np.mean(payloads)),
        payload_worst_nbytes=max(payloads),
        bits_per_element=8 * float(np.mean(payloads)) / elements,
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
    count = len(state[names[0]])
    nbytes = []
    received = {name: np.empty_like(state[name]) for name in names}
    for index in range(count):
        single = {name: state[name][index : index + 1] for name in names}
        sent = encode_crossing(chain, k, codec, single)
        nbytes.append(sent.nbytes)
        for name, array in decode_crossing(chain, k, sent, max_nbytes=MAX_NBYTES).items():
            received[name][index] = array[0]
    return received, nbytes


# --- telling ---------------------------------------------------------------------------------


def best_of(rows: Iterable[Row]) -> Row | None:
    """The smallest payload that keeps to the budget."""
    return min(
        (row for row in rows if row.in_budget),
        key=lambda row: row.payload_nbytes,
        default=None,
    )


def kind_of(codec: str) -> str:
    """How the tables group codecs."""
    transform, kind = parse_codec(codec)
    if transform:
        return transform.partition(":")[0] if is_packing(transform) else "transform"
    if kind.family in ("ec", "ecc"):
        return "ec, ecc"
    if kind.family in ("ctx", "png", "jpeg", "webp"):
        return kind.family
    return "first rung"


KINDS = ("first rung", "ec, ecc", "ctx", "transform", "prior", "shaped")


def summary(rows: Sequence[Row], subject: Subject) -> Iterator[str]:
    """Markdown: for every cut the smallest payload in budget, per group of codecs."""
    yield f"Smallest payload per sample with {subject.budget.text}:"
    yield ""
    yield f"| cut | elements | {' | '.join(KINDS)} |"
    yield f"|---|---|{'---|' * len(KINDS)}"
    if subject.is_pictures:
        for kind in ("png", "jpeg", "webp"):
            best = best_of(row for row in rows if kind_of(row.codec) == kind)
            yield f"| input as {kind} | | {brief(best, subject)} | | | | | |"
    for position in sorted({row.position for row in rows}):
        here = [row for row in rows if row.position == position]
        groups = [[row for row in here if kind_of(row.codec) == kind] for kind in KINDS]
        cells = " | ".join(brief(best_of(group), subject) for group in groups)
        yield f"| {here[0].label} | {here[0].elements:,} | {cells} |"


def brief(row: Row | None, subject: Subject) -> str:
    if row is None:
        return "–"
    return (
        f"{row.payload_nbytes:,.0f} B, {row.bits_per_element:.2f} b/el ({row.codec}; "
        f"{row.metrics[subject.metric]:.1f} %)"
    )


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Markdown: every row with all its metrics."""
    names = [name for name in rows[0].metrics if name != "top1_kept"]
    yield f"| cut | codec | b/el | bytes | worst | {' | '.join(names)} | |"
    yield "|---|---|" + "---|" * (len(names) + 4)
    for row in rows:
        values = " | ".join(f"{row.metrics[name]:.4g}" for name in names)
        yield (
            f"| {row.label} | {row.codec} | {row.bits_per_element:.2f} | "
            f"{row.payload_nbytes:,.0f} | {row.payload_worst_nbytes:,} | {values} | "
            f"{'in budget' if row.in_budget else ''} |"
        )


def draw(rows: Sequence[Row], subject: Subject, path: Path) -> None:
    """Bytes per sample against accuracy: a line per cut, and the input's codecs."""
    from matplotlib.figure import Figure

    height = max(6.2, 4.4 * len(subject.drawn))
    figure = Figure(figsize=(11, height), layout="constrained")
    panels = figure.subplots(len(subject.drawn), squeeze=False)[:, 0]
    for axes, (metric, lowest) in zip(panels, subject.drawn.items(), strict=True):
        draw_panel(axes, rows, metric)
        if metric in subject.budget.least:
            axes.axhline(subject.budget.least[metric], color="black", linewidth=0.8, ls="--")
        best = max(row.metrics[metric] for row in rows)
        axes.set(
            xscale="log", ylabel=f"{metric}, %", ylim=(lowest, best + 0.03 * (best - lowest))
        )
        axes.grid(alpha=0.3, which="both", linewidth=0.4)
    panels[-1].set_xlabel("bytes per sample")
    against = ", and picture codecs of the input" if subject.is_pictures else ""
    title = f"{subject.title}: ec at every cut (dotted: ctx){against}"
    panels[0].set_title(title, fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=7, loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    with Image.open(drawn) as image:  # few colours: a third of the bytes
        image.convert("RGB").quantize(96).save(path, optimize=True)


def draw_panel(axes: Any, rows: Sequence[Row], metric: str) -> None:
    positions = sorted({row.position for row in rows if row.position})
    for rank, position in enumerate(positions):
        color = _shade(0.95 * rank / max(1, len(positions) - 1))
        here = [row for row in rows if row.position == position]
        steps = [row for row in here if row.codec.startswith("ec:")]
        line(axes, steps, metric, label=here[0].label, color=color, marker="o")
        contexts = [row for row in here if row.codec.startswith("ctx:")]
        line(axes, contexts, metric, color=color, linestyle=":")
    for kind, color in (("jpeg", "#cc3311"), ("webp", "#ee7733"), ("png", "#aa3377")):
        here = [row for row in rows if kind_of(row.codec) == kind]
        line(axes, here, metric, label=f"input as {kind}", color=color, marker="s")


def line(axes: Any, rows: Sequence[Row], metric: str, **style: Any) -> None:
    ordered = sorted(rows, key=lambda row: row.payload_nbytes)
    if ordered:
        sizes = [row.payload_nbytes for row in ordered]
        values = [row.metrics[metric] for row in ordered]
        axes.plot(sizes, values, markersize=3, linewidth=1.2, **style)


def _shade(position: float) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](position)


def machine() -> dict[str, str]:
    return {
        "date": datetime.date.today().isoformat(),
        "system": platform.platform(),
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "zstandard": zstandard.__version__,
        "pillow": PIL.__version__,
    }


SUBJECTS: dict[str, Callable[[int | None], Subject]] = {
    "resnet20": resnet20,
    "ultraface": ultraface,
    "digits": digits,
    "minilm": minilm,
}


def comparison(found: Sequence[Choosing]) -> Iterator[str]:
    """Markdown: what was chosen on training pictures, and what that is on test pictures."""
    yield "| cut | group | chosen | there | b/el | bytes | agreement | top-1 lost | |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for each in found:
        there, here = each.chosen, each.tested
        yield (
            f"| {here.label} | {each.kind} | `{here.codec}` | {there.bits_per_element:.2f}, "
            f"{there.metrics['agreement']:.2f} %, {there.metrics['top1_loss']:+.2f} | "
            f"{here.bits_per_element:.3f} | {here.payload_nbytes:,.0f} | "
            f"{here.metrics['agreement']:.2f} % | {here.metrics['top1_loss']:+.2f} | "
            f"{'in budget' if here.in_budget else ''} |"
        )


@lru_cache(1)
def subject_called(name: str, samples: int | None) -> Subject:
    """One of SUBJECTS; each process keeps the last."""
    return SUBJECTS[name](samples)


def measure_cut(
    name: str, samples: int | None, k: int, codecs: Sequence[str] | None
) -> list[Row]:
    """What a worker does: all rows of one cut."""
    return list(measure(subject_called(name, samples), k, codecs))


def choose_at(
    name: str, samples: int | None, k: int, codecs: Sequence[str] | None
) -> list[Choosing]:
    """What a worker does with --choose: all groups of one cut."""
    return list(choose(subject_called(name, samples), k, codecs))


def choose_all(
    subject: Subject, samples: int | None, cuts: Sequence[int], codecs: Sequence[str] | None
) -> list[Choosing]:
    """The codecs chosen at `cuts`, a process for every processor."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(choose_at, subject.name, samples, k, codecs) for k in cuts]
        return [found for each in waiting for found in each.result()]


def measure_all(
    subject: Subject, samples: int | None, codecs: Sequence[str] | None
) -> list[Row]:
    """All rows of all cuts, a process for every processor."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        waiting = [
            pool.submit(measure_cut, subject.name, samples, k, codecs)
            for k in range(len(subject.cuts) + 1)
        ]
        return [row for each in waiting for row in each.result()]


def read_rows(path: Path) -> list[Row]:
    """What --json wrote."""
    return [Row(**each) for each in json.loads(path.read_text())["rows"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=SUBJECTS, action="append", help="default: all")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    parser.add_argument("--draw", type=Path, help="draw a picture a network into this folder")
    parser.add_argument("--samples", type=int, help="only the first so many test samples")
    parser.add_argument("--rows", type=Path, help="tell of what --json wrote, measure nothing")
    parser.add_argument("--codecs", type=lambda text: text.split(","), help="only these")
    parser.add_argument("--choose", action="store_true", help="choose on training pictures")
    parser.add_argument(
        "--cuts",
        type=lambda text: [*map(int, text.split(","))],
        help="with --choose: only these",
    )
    chosen = parser.parse_args()
    documents = []
    kept = read_rows(chosen.rows) if chosen.rows else []
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    for name in chosen.network or SUBJECTS:
        try:
            subject = subject_called(name, chosen.samples)
        except UsageError as error:
            print(f"{name}: skipped, {error}", file=sys.stderr)
            continue
        began = time.perf_counter()
        if chosen.choose:
            if subject.choice is None:
                continue
            cuts = chosen.cuts or range(1, len(subject.cuts) + 1)
            found = choose_all(subject, chosen.samples, cuts, chosen.codecs)
            print(f"\n## {subject.title}\n")
            print("\n".join(comparison(found)), flush=True)
            documents += [asdict(each) for each in found]
            continue
        rows = [row for row in kept if row.network == name]
        if not chosen.rows:
            rows = measure_all(subject, chosen.samples, chosen.codecs)
        print(f"\n## {subject.title}\n")
        print("\n".join((*summary(rows, subject), "", *table(rows))))
        print(f"\n{len(rows)} rows in {time.perf_counter() - began:.0f} s", flush=True)
        documents += [asdict(row) for row in rows]
        if chosen.draw:
            draw(rows, subject, chosen.draw / f"codecs-{name}.png")
    if chosen.json:
        document = {"machine": machine(), "rows": documents}
        chosen.json.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
