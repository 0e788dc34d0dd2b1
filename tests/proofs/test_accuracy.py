"""Codecs keep what trained networks answer: a small version of benchmarks/accuracy.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from midstream_lab.networks import PICTURE_FEED
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.execution.crossing import decode_crossing, encode_crossing
from midstream_partitioner.graph.cuts import Cut, position_cuts
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.inputs.samples import list_pictures, read_picture
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import with_transforms
from midstream_partitioner.transforms.klt import klt, spectrum_of
from midstream_wire.tensors import Array

PICTURES, FITTED = 300, 200
FACE, OVERLAP, SAME = 0.7, 0.3, 0.9


def cut_behind(network: Network, node: str) -> Cut:
    """The position right behind the node called `node`."""
    nodes = network.graph.nodes
    return next(
        cut
        for cut in position_cuts(network.graph)
        if cut.runs and nodes[cut.runs[-1] - 1].name == node
    )


def sent(
    chain: Chain, k: int, codec: str, samples: Sequence[dict[str, Array]]
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Each sample's payload in bytes, and what the tail makes of it."""
    last = len(chain.partition.segments)
    for sample in samples:
        crossing = encode_crossing(chain, k, codec, chain.run(sample, 0, k))
        yield crossing.nbytes, chain.run(decode_crossing(chain, k, crossing), k, last)


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of boxes [A, 4] and [B, 4]: [A, B]."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    opposite = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.maximum(opposite - corner, np.float32(0)).prod(axis=2)
    areas_a, areas_b = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (a, b))
    shares: Array = common / (areas_a[:, None] + areas_b[None] - common)
    return shares


def faces(outputs: dict[str, Array]) -> Array:
    """Boxes [N, 4] of faces, without those that overlap a better one."""
    scores, boxes = outputs["scores"][0, :, 1], outputs["boxes"][0]
    order = np.argsort(-scores, kind="stable")[: np.count_nonzero(scores > FACE)]
    near = overlaps(boxes[order], boxes[order]) > OVERLAP
    kept: list[int] = []
    for index in range(len(order)):
        if not near[index, kept].any():
            kept.append(index)
    best: Array = boxes[order][kept]
    return best


@pytest.fixture(scope="module")
def resnet(data_folder: Path) -> tuple[Chain, list[dict[str, Array]], Array]:
    """ResNet-20 cut behind its last block, test pictures, the unsplit network's answers."""
    model = data_folder / "models" / "resnet20-cifar10.onnx"
    network = load_network(model, feed=PICTURE_FEED)
    plain = partition(network, [cut_behind(network, "node_relu_18")])
    training = np.load(data_folder / "cifar10" / "cifar10-train-10000.npz")["images"]
    head = Chain(plain, last=1)
    (tensor,) = plain.cuts[1].tensors
    features = head.run({"image": training[:: len(training) // FITTED]}, 0, 1)[tensor]
    mean, basis = spectrum_of([features]).keep(16)
    transform = klt(plain, 1, tensor, mean, basis, nonnegative=True)
    chain = Chain(with_transforms(plain, [transform]))
    tests = np.load(data_folder / "cifar10" / "cifar10-test-2000.npz")["images"][:PICTURES]
    expected = chain.run({"image": tests}, 0, 2)["logits"].argmax(axis=1)
    return chain, [{"image": picture[None]} for picture in tests], expected


@pytest.mark.parametrize(
    ("codec", "most_bits", "least_agreement"),
    [("ec:0.5", 2.3, 0.99), ("ec:2", 1.1, 0.97), ("klt:16+ec:0.5", 1.0, 0.97)],
)
def test_a_classifiers_last_block_keeps_its_answers_at_a_thirtieth_of_its_bits(
    resnet: tuple[Chain, list[dict[str, Array]], Array],
    codec: str,
    most_bits: float,
    least_agreement: float,
) -> None:
    chain, pictures, expected = resnet
    answers = list(sent(chain, 1, codec, pictures))
    bits = 8 * np.mean([nbytes for nbytes, _ in answers]) / (64 * 8 * 8)
    agreement = np.mean(
        [
            outputs["logits"].argmax() == label
            for (_, outputs), label in zip(answers, expected, strict=True)
        ]
    )
    assert bits <= most_bits
    assert agreement >= least_agreement


def test_a_detector_finds_its_faces_again_in_less_than_webp_needs(data_folder: Path) -> None:
    model = data_folder / "models" / "ultraface-rfb-320.onnx"
    network = load_network(model, feed=Feed(kind="image", mean=(127.0,), std=(128.0,)))
    chain = Chain(partition(network, [cut_behind(network, "Relu_23")]))
    whole = Chain(partition(network, ()))
    photos = [
        {"image": read_picture(path, (240, 320), resize="stretch")[None]}
        for path in list_pictures(data_folder / "photos")
    ]
    expected = [faces(whole.run(photo, 0, 1)) for photo in photos]

    def found(outputs: Sequence[dict[str, Array]]) -> float:
        again = sum(
            np.count_nonzero(overlaps(a, faces(b)).max(axis=1) >= SAME)
            for a, b in zip(expected, outputs, strict=True)
        )
        return again / sum(map(len, expected))

    split = list(sent(chain, 1, "ec:0.35", photos))
    nearly = list(sent(whole, 0, "webp:95", photos))
    pictures = list(sent(whole, 0, "webp:97", photos))
    assert found([outputs for _, outputs in split]) >= 0.98
    assert found([outputs for _, outputs in nearly]) < 0.98, "then a smaller one would do"
    assert found([outputs for _, outputs in pictures]) >= 0.98
    assert all(a < b for (a, _), (b, _) in zip(split, pictures, strict=True))
    assert sum(a for a, _ in split) < 0.6 * sum(b for b, _ in pictures)
