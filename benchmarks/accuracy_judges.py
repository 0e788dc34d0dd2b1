"""What outputs are worth, for benchmarks/accuracy.py: metrics, and what codecs must keep to.

A judge knows what the unsplit network makes of its inputs, takes the outputs for all of them,
in batches, and gives the metrics by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from midstream_partitioner.execution.chain import State
from midstream_wire.tensors import Array

Metrics = dict[str, float]
Judge = Callable[[Sequence[State]], Metrics]


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """What a codec must keep to: a least value per metric (losses are negated)."""

    least: Mapping[str, float]
    text: str

    def admits(self, metrics: Metrics) -> bool:
        return all(metrics[name] >= value - 1e-9 for name, value in self.least.items())


def joined(batches: Sequence[State], output: str) -> Array:
    """One output for the samples of all batches: [N, ...]."""
    return np.concatenate([batch[output] for batch in batches])


# --- classifiers ---------------------------------------------------------------------------

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


def classifier_judge(labels: Array, expected: Sequence[State], output: str) -> Judge:
    """Top-1 and agreement in percent, and the relative deviation of the logits."""
    unsplit = joined(expected, output)
    reference = unsplit.argmax(axis=1)
    top1 = 100 * float((reference == labels).mean())

    def judge(batches: Sequence[State]) -> Metrics:
        logits = joined(batches, output)
        answers = logits.argmax(axis=1)
        error = np.linalg.norm(logits - unsplit, axis=1) / np.linalg.norm(unsplit, axis=1)
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


# --- a detector ----------------------------------------------------------------------------

DETECTED = Budget({"found": 98.0}, "at least 98 % of the boxes found again")

#: Scores from here on are faces; of boxes that overlap more than this, the best stays.
LEAST_SCORE, MOST_OVERLAP = 0.7, 0.3
#: A box is found again where one overlaps it by at least this, invented where none does so
#: by the other.
SAME_BOX, NEAR_BOX = 0.9, 0.5
WIDTH, HEIGHT = 320, 240


def detector_judge(expected: Sequence[State]) -> Judge:
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
            np.count_nonzero(nearest_of(b, a) < NEAR_BOX)
            for a, b in zip(boxes, left, strict=True)
        )
        return {
            "found": 100 * sum(found) / sum(map(len, boxes)),
            "found_before_nms": 100 * sum(found_raw) / sum(map(len, raw)),
            "found_worst_photo": 100 * min(shares),
            "invented": float(invented),
        }

    return judge


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


def found_again(expected: Array, came: Array) -> int:
    """How many boxes of `expected` have one of `came` on them."""
    return int(np.count_nonzero(nearest_of(expected, came) >= SAME_BOX))


def nearest_of(boxes: Array, others: Array) -> Array:
    """The greatest overlap of each of `boxes` with any of `others`; 0 where there are none."""
    greatest: Array = np.max(overlaps(boxes, others), axis=1, initial=0)
    return greatest


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of boxes [A, 4] and [B, 4], left, top, right, bottom: [A, B]."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    opposite = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.maximum(opposite - corner, np.float32(0)).prod(axis=2)
    areas_a, areas_b = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (a, b))
    union = areas_a[:, None] + areas_b[None] - common
    shares: Array = common / np.maximum(union, np.float32(1e-12))
    return shares


# --- an encoder of text --------------------------------------------------------------------

EMBEDDED = Budget(
    {"cosine": 99.5, "cosine_worst": 99.0},
    "a mean cosine of at least 0.995 and 0.99 at worst",
)


def embedding_judge(expected: Sequence[State]) -> Judge:
    """Cosine (times 100) with the embeddings of the unsplit network, mean and worst.

    And the share of passages whose nearest other passage stays the same, in percent.
    """
    unsplit = joined(expected, "embedding")
    reference = nearest_other(unsplit)

    def judge(batches: Sequence[State]) -> Metrics:
        came = joined(batches, "embedding")
        cosines = (came * unsplit).sum(axis=1)
        return {
            "cosine": 100 * float(cosines.mean()),
            "cosine_worst": 100 * float(cosines.min()),
            "same_nearest": 100 * float((nearest_other(came) == reference).mean()),
        }

    return judge


def nearest_other(embeddings: Array) -> Array:
    """The row, for each of `embeddings` [N, C] of norm 1, that is most like it: [N]."""
    alike = embeddings @ embeddings.T
    np.fill_diagonal(alike, -np.inf)
    found: Array = alike.argmax(axis=1)
    return found
