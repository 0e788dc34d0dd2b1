"""What benchmarks/accuracy.py measures: trained networks, with inputs for each purpose.

The data is looked for in ../shared/data or $MIDSTREAM_DATA.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import final

import minilm as text_encoder
import numpy as np
from accuracy_judges import (
    CHOSEN,
    CLASSIFIED,
    DETECTED,
    EMBEDDED,
    HEIGHT,
    WIDTH,
    Budget,
    Judge,
    classifier_judge,
    detector_judge,
    embedding_judge,
)

from midstream_lab.networks import DIGITS_FEED, NETWORKS, PICTURE_FEED, digits_split
from midstream_partitioner.execution.chain import Chain, State
from midstream_partitioner.graph.cuts import Cut, position_cuts
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.inputs.samples import list_pictures, read_picture
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.machine import usable_cores
from midstream_partitioner.partition.cutting import partition
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array

DATA = Path(
    os.environ.get("MIDSTREAM_DATA") or Path(__file__).resolve().parents[2] / "shared/data"
)


@final
@dataclass(frozen=True, slots=True)
class CodecChoice:
    """Other inputs than the tests, to choose codecs on: their judge, and what to keep to."""

    inputs: Array
    judge: Judge
    budget: Budget


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """A trained network, inputs to measure on, others to fit transforms to, and a judge."""

    name: str
    title: str
    network: Network
    cuts: tuple[Cut, ...]
    tests: Array
    fitted: Array | None
    batch: int
    judge: Judge
    budget: Budget
    metric: str
    drawn: Mapping[str, float]  # metrics, and from where on
    is_pictures: bool
    choice: CodecChoice | None = None

    def batches(self, inputs: Array) -> Iterator[State]:
        return batches_of(self.network, inputs, self.batch)


@lru_cache(1)
def subject_called(name: str, samples: int | None) -> Subject:
    """One of SUBJECTS, with so many tests or all; each process keeps the last.

    Raises `UsageError` where its data is absent.
    """
    return SUBJECTS[name](samples)


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


def batches_of(network: Network, inputs: Array, size: int) -> Iterator[State]:
    """`inputs` as the network's only input, `size` samples at a time."""
    name = network.graph.inputs[0]
    for start in range(0, len(inputs), size):
        yield {name: inputs[start : start + size]}


def answers_of(network: Network, inputs: Array, size: int) -> list[State]:
    """What the unsplit network makes of `inputs`, `size` samples at a time."""
    whole = Chain(partition(network, ()), threads=usable_cores())
    return [whole.run(state, 0, 1) for state in batches_of(network, inputs, size)]


def data_file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        raise UsageError(f"no {path}: name the data's folder in MIDSTREAM_DATA")
    return path


# --- classifiers: ResNet-20 on CIFAR-10, and the digits ------------------------------------

#: Training pictures that transforms are fitted to. Codecs are chosen on others.
FITTED = 500
#: Inputs, and the class of each.
Labelled = tuple[Array, Array]


def classifier(
    name: str,
    title: str,
    network: Network,
    *,
    tests: Labelled,
    fitted: Array,
    others: Labelled,
) -> Subject:
    batch = 100
    output = network.graph.outputs[0]
    judge, chooser = (
        classifier_judge(labels, answers_of(network, inputs, batch), output)
        for inputs, labels in (tests, others)
    )
    return Subject(
        name=name,
        title=title,
        network=network,
        cuts=blocks_of(network.graph),
        tests=tests[0],
        fitted=fitted,
        batch=batch,
        judge=judge,
        choice=CodecChoice(others[0], chooser, CHOSEN),
        budget=CLASSIFIED,
        metric="agreement",
        drawn={"agreement": 85.0, "top1": 70.0},
        is_pictures=network.feed.kind == "image",
    )


def resnet20(samples: int | None) -> Subject:
    network = load_network(data_file("models/resnet20-cifar10.onnx"), feed=PICTURE_FEED)
    test = np.load(data_file("cifar10/cifar10-test-2000.npz"))
    training = np.load(data_file("cifar10/cifar10-train-10000.npz"))
    images, labels = training["images"], training["labels"]
    drawn = np.random.default_rng(0).permutation(len(images))
    others = drawn[FITTED : FITTED + 2000][:samples]
    return classifier(
        "resnet20",
        "ResNet-20 on CIFAR-10",
        network,
        tests=(test["images"][:samples], test["labels"][:samples]),
        fitted=images[np.sort(drawn[:FITTED])],
        others=(images[others], labels[others]),
    )


def digits(samples: int | None) -> Subject:
    reference = NETWORKS["digits"]
    images, labels = digits_split()
    trained_on, told = digits_split(held_out=False)
    return classifier(
        "digits",
        reference.title,
        load_network(reference.build(), feed=DIGITS_FEED, name="digits"),
        tests=(images[:samples], labels[:samples]),
        fitted=trained_on[:FITTED],
        others=(trained_on[FITTED:], told[FITTED:]),
    )


# --- a detector: UltraFace on photos -------------------------------------------------------


def ultraface(samples: int | None) -> Subject:
    feed = Feed(kind="image", mean=(127.0,), std=(128.0,))
    network = load_network(data_file("models/ultraface-rfb-320.onnx"), feed=feed)
    photos = np.stack(
        [
            read_picture(path, (HEIGHT, WIDTH), resize="stretch")
            for path in list_pictures(data_file("photos"))[:samples]
        ]
    )
    return Subject(
        name="ultraface",
        title="UltraFace RFB-320 on photographs",
        network=network,
        cuts=blocks_of(network.graph),
        tests=photos,
        fitted=None,
        batch=1,
        judge=detector_judge(answers_of(network, photos, 1)),
        budget=DETECTED,
        metric="found",
        drawn={"found": 80.0},
        is_pictures=True,
    )


# --- a transformer: MiniLM on passages of text ---------------------------------------------


def minilm(samples: int | None) -> Subject:
    folder = text_encoder.folder()
    network = load_network(text_encoder.build(folder), name="minilm")
    tokens = text_encoder.passages(folder)
    drawn = np.random.default_rng(0).permutation(len(tokens))
    tests, fitted = tokens[drawn[:100]][:samples], tokens[drawn[100:200]]
    layers = ("embeddings.LayerNorm", *(f"layer.{at}.output.LayerNorm" for at in range(6)))
    return Subject(
        name="minilm",
        title="MiniLM-L6 on passages of 128 tokens",
        network=network,
        cuts=tuple(
            cut
            for cut in position_cuts(network.graph)
            if cut.runs and network.graph.nodes[cut.runs[-1] - 1].name.endswith(layers)
        ),
        tests=tests,
        fitted=fitted,
        batch=10,
        judge=embedding_judge(answers_of(network, tests, 10)),
        budget=EMBEDDED,
        metric="cosine",
        drawn={"cosine": 95.0},
        is_pictures=False,
    )


SUBJECTS: dict[str, Callable[[int | None], Subject]] = {
    "resnet20": resnet20,
    "ultraface": ultraface,
    "digits": digits,
    "minilm": minilm,
}
