"""The main job on embedded defaults: a photo through a network cut in two, three links."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image

from midstream.loaders import open_partition
from midstream_lab.networks import digits_split
from midstream_lab.processes.pair import CloudSetting, EdgeSetting, Say, run_pairs
from midstream_lab.traces.conditions import CONDITIONS
from midstream_partitioner.costs.budget import UNLABELLED
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.execution.crossing import decode_crossing, encode_crossing
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.partition.folder import save_partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.plan import Candidate
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.profiling.calibrator import calibrate
from midstream_partitioner.profiling.dataset import Data
from midstream_partitioner.profiling.profiler import profile_segments
from midstream_partitioner.scratch import scratch_folder
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array

NETWORK = "resnet18"
EDGE_SLOWDOWN = 8.0
NETWORKS = ("3g", "lte", "wifi")
FIRST_RUNG = ("raw", "lossless", "half", "int8", "int8c")


@final
@dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 of the digits network on pictures it never saw, whole and split at one cut."""

    cut: str
    codec: str
    whole: float
    split: float
    pictures: int


@final
@dataclass(frozen=True, slots=True)
class Joint:
    """The best cut inside the network over one link, within the budget of accuracy.

    Once with the codecs of the first rung alone, once with every codec: cut and codec are
    chosen together.
    """

    network: str
    plain: Candidate
    joint: Candidate

    @property
    def saving(self) -> float:
        """Return how many times smaller the joint plan's payload is."""
        return self.plain.placement.payload_nbytes / self.joint.placement.payload_nbytes


def photo(name: str = "china.jpg") -> str:
    """The path of a photograph that comes with scikit-learn."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise UsageError(
            "the demo needs scikit-learn's sample photo: pip install 'midstream[lab]'"
        )
    return str(Path(found.origin).parent / "datasets" / "images" / name)


def run_networks(*, requests: int, say: Say) -> list[dict[str, Any]]:
    """A trial of ResNet-18 on the photo under every network of the demo."""
    edge = EdgeSetting(slowdown=EDGE_SLOWDOWN, requests=requests, input=photo())
    with scratch_folder("midstream-demo-") as temporary:
        folder = temporary / f"{NETWORK}.midstream"
        say(
            f"cutting {NETWORK} (random weights: times and exactness are real, labels are not)"
        )
        save_partition(open_partition(NETWORK), folder)
        conditions = [CONDITIONS[name] for name in NETWORKS]
        return run_pairs(folder, conditions, cloud=CloudSetting(), edge=edge, say=say)


def lesson(documents: Sequence[dict[str, Any]]) -> str:
    """Return what a reader should learn from the trials, in words."""
    free = [_chosen(document, "is_chosen") for document in documents]
    private = [_chosen(document, "is_private_choice") for document in documents]
    names = [document["network"]["name"] for document in documents]
    freely = _told(names, [entry["label"] for entry in free])
    kept = _told(names, [entry["label"] for entry in private])
    inside = any(entry["cut"] not in ("edge-only", "cloud-only") for entry in free)
    moral = (
        "which cut is best depends on the link"
        if inside
        else "a photo compresses better than its activations: the picture is hard to beat"
    )
    return f"Freely: {freely}; {moral}. When the photo may not leave the device: {kept}."


def _chosen(document: dict[str, Any], mark: str) -> dict[str, Any]:
    found: dict[str, Any] = next(e for e in document["placements"] if e[mark])
    return found


def _told(names: Sequence[str], labels: Sequence[str]) -> str:
    """ "edge-only on 3g, cloud-only jpeg:90 on lte and wifi": each choice once."""
    where: dict[str, list[str]] = {}
    for name, label in zip(names, labels, strict=True):
        where.setdefault(label, []).append(name)
    return ", ".join(f"{label} on {' and '.join(places)}" for label, places in where.items())


def joint_plans(*, say: Say) -> list[Joint]:
    """Return what choosing cut and codec together saves on ResNet-18, calibrated on crops of a
    photo.

    The photo is another one than the trials send. The budget bounds how far the answer of the
    worst crop moves: with random weights no accuracy means anything.
    """
    say("calibrating codecs on crops of another photo, for choosing cut and codec together")
    part = open_partition(NETWORK)
    chain = Chain(part)
    crops = _crops(photo("flower.jpg"), part)
    codecs = (*FIRST_RUNG, *(f"ec:{step:g}" for step in (0.125, 0.25, 0.5, 1)))
    calibration = calibrate(chain, Data("flower.jpg", crops), codecs=codecs)
    cloud = profile_segments(chain, crops, this_device(), runs=5, codecs=codecs)
    edge = cloud.slowed(EDGE_SLOWDOWN)

    def best(allowed: Sequence[str], link: Link) -> Candidate:
        limits = Constraints(
            min_depth=1,
            codecs=tuple(allowed),
            max_error=UNLABELLED.max_error,
        )
        planner = Planner(part, edge, cloud, constraints=limits, calibration=calibration)
        made = planner.plan(link)
        return next(c for c in made.candidates if c.cut not in (EDGE_ONLY, CLOUD_ONLY))

    return [
        Joint(
            name, best(FIRST_RUNG, CONDITIONS[name].link), best(codecs, CONDITIONS[name].link)
        )
        for name in NETWORKS
    ]


def _crops(path: str, part: Partition, count: int = 6) -> tuple[dict[str, Array], ...]:
    """Square crops of the picture at `path`, from different places and at different sizes."""
    (spec,) = part.inputs
    side = int(spec.shape[1])
    found = []
    with Image.open(path) as picture:
        for number in range(count):
            size = min(picture.size) - 40 * number
            left = (picture.width - size) * number // max(1, count - 1)
            box = (left, 0, left + size, size)
            crop = picture.convert("RGB").crop(box).resize((side, side))
            found.append({spec.name: np.asarray(crop)[None]})
    return tuple(found)


def digits_accuracy(codecs: Sequence[str] = ("raw", "half", "int8")) -> list[Accuracy]:
    """The trained digits network on its held-out third, whole and at its deepest inner cut."""
    images, labels = digits_split()
    part = open_partition("digits")
    chain = Chain(part)
    last, k = len(part.segments), max(1, len(part.segments) - 1)
    name = part.inputs[0].name
    batch = images.astype(np.float32).reshape(len(images), 1, 8, 8)
    whole = _top1(chain.run({name: batch}, 0, last)[part.outputs[0].name], labels)
    found = []
    for codec in codecs:
        state = chain.run({name: batch}, 0, k)
        state |= decode_crossing(chain, k, encode_crossing(chain, k, codec, state))
        made = chain.run(state, k, last)[part.outputs[0].name]
        label = part.cuts[k].label
        found.append(Accuracy(label, codec, whole, _top1(made, labels), len(labels)))
    return found


def _top1(scores: Any, labels: Any) -> float:
    return float(np.mean(np.argmax(scores, axis=-1) == labels))
