"""A partition's network, and the same network cut at other places, on either side alike."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import pytest

from midstream_partitioner.graph.cuts import cut_of, position_cuts
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.background import fuse_beside, recut_beside
from midstream_partitioner.partition.cutting import fuse, partition
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition, with_transforms
from midstream_partitioner.partition.recut import MOST_REQUESTED_CUTS, network_of, recut
from midstream_partitioner.transforms.klt import fit_klt, klt
from midstream_wire.errors import ModelError
from midstream_wire.tensors import Array

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"

RunPlaced = Callable[..., dict[str, Array]]


def written(network: Network) -> bytes:
    return network.model.SerializeToString(deterministic=True)


def runs_at(network: Network, *positions: int) -> list[tuple[int, ...]]:
    cuts = position_cuts(network.graph)
    return [cuts[position].runs for position in positions]


@pytest.fixture(scope="module", params=["light_squeezenet", "light_shufflenet"])
def light(request: pytest.FixtureRequest) -> Network:
    return load_network(LIGHT / f"{request.param}.onnx", name="net")


def test_every_partition_of_a_network_gives_the_same_network(light: Network) -> None:
    dice = random.Random(0)
    cuts = position_cuts(light.graph)
    parts = [partition(light, dice.sample(cuts, 4)) for _ in range(3)]
    first, *others = (network_of(part) for part in parts)
    assert first.graph.digest == light.graph.digest
    assert first.graph.tensors == light.graph.tensors
    for other in others:
        assert written(other) == written(first)


def test_from_memory_from_a_folder_and_from_another_partition_the_same_cuts_give_one_digest(
    light: Network, tmp_path: Path
) -> None:
    cuts = position_cuts(light.graph)
    part = partition(light, [cuts[3], cuts[20]])
    save_partition(part, tmp_path)
    wanted = runs_at(light, 7, 31, 40)
    here = recut(part, wanted)
    assert recut(load_partition(tmp_path), wanted).digest == here.digest
    assert recut(recut(part, runs_at(light, 5, 9)), wanted).digest == here.digest
    assert [cut.runs for cut in here.cuts[1:-1]] == wanted


def test_answers_stay_what_they_were(branches: Network, run_placed: RunPlaced) -> None:
    part = partition(branches, [cut_of(branches.graph, {0, 2})])
    made = recut(part, [cut_of(branches.graph, {0, 1}).runs, (0, 4)])
    x = {"x": np.random.default_rng(1).standard_normal((1, 8)).astype(np.float32)}
    expected = run_placed(part, 0, x)
    for k in range(len(made.cuts)):
        for name, array in run_placed(made, k, x).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-5)


def test_the_cuts_it_has_already_give_the_partition_itself(branches: Network) -> None:
    part = partition(branches, position_cuts(branches.graph)[2:4])
    assert recut(part, [cut.runs for cut in part.cuts]) is part
    assert recut_beside(part, [cut.runs for cut in part.cuts]).partition is part


def test_a_transform_stays_where_its_cut_does_and_goes_where_it_does_not(
    transformed: Partition,
) -> None:
    at = transformed.transforms[0].cut
    kept = next(cut.runs for cut in transformed.cuts if cut.id == at)
    other = next(cut.runs for cut in transformed.cuts[1:-1] if cut.id != at)
    assert recut(transformed, [kept]).transforms == transformed.transforms
    assert recut(transformed, [other]).transforms == ()


@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        ([(1, 3)], "must hold every node it depends on"),
        ([(0, 2), (0, 1, 2, 3)], "must be nested"),
        ([(0, 7)], "within 6 nodes"),
        ([(0, 1 << 31)], "within 6 nodes"),
        ([(3, 1)], "ascending pairs"),
        ([(1,)], "ascending pairs"),
        ([(-4, 2)], "ascending pairs"),
    ],
)
def test_heads_that_are_no_cuts_are_refused(
    branches: Network, heads: list[tuple[int, ...]], reason: str
) -> None:
    part = partition(branches, ())
    with pytest.raises(ModelError, match=reason):
        recut(part, heads)


def test_too_many_cuts_are_refused_before_anything_is_cut(light: Network) -> None:
    part = partition(light, ())
    heads = [(0, size) for size in range(1, MOST_REQUESTED_CUTS + 4)]
    with pytest.raises(ModelError, match=f"at most {MOST_REQUESTED_CUTS} cuts"):
        recut_beside(part, heads)


def test_a_segment_that_holds_other_nodes_than_its_partition_says_is_refused(
    branches: Network,
) -> None:
    one, other = (
        partition(branches, [cut_of(branches.graph, head)]) for head in ({0}, {0, 1})
    )
    mixed = one.segments[0], *other.segments[1:]
    object.__setattr__(one, "segments", mixed)
    object.__setattr__(mixed[0], "nodes", (0, 1))
    with pytest.raises(ModelError, match="must hold the 2 nodes"):
        network_of(one)


def test_a_process_of_its_own_cuts_alike_and_leaves_nothing_behind(branches: Network) -> None:
    part = partition(branches, [cut_of(branches.graph, {0})])
    prepared = recut_beside(part, [(0, 3)], gently=False)
    assert prepared.partition.digest == recut(part, [(0, 3)]).digest
    assert prepared.scratch is not None
    folder = prepared.scratch.path
    assert prepared.partition.segments[0].model
    assert folder.is_dir()
    del prepared
    assert not folder.exists()


def test_what_a_process_of_its_own_refuses_comes_back_in_its_words(branches: Network) -> None:
    with pytest.raises(ModelError, match="must hold every node it depends on"):
        recut_beside(partition(branches, ()), [(1, 3)], gently=False)


def test_a_process_of_its_own_fuses_alike(branches: Network, tmp_path: Path) -> None:
    part = partition(branches, position_cuts(branches.graph)[1:5])
    fuse_beside(part, 1, 4, into=tmp_path / "fused.onnx", gently=False)
    assert (tmp_path / "fused.onnx").read_bytes() == fuse(part, 1, 4)


@pytest.fixture(scope="module")
def transformed(make_network: Callable[..., Network]) -> Partition:
    """Two convolutions, cut behind both, the first cut with a transform."""
    rng = np.random.default_rng(0)
    text = """
    net (float[1, 4, 6, 6] x) => (float[1, 4, 6, 6] y) {
      a = Conv <pads = [1, 1, 1, 1]> (x, w1)
      b = Relu(a)
      y = Conv <pads = [1, 1, 1, 1]> (b, w2)
    }"""
    weights = {n: rng.standard_normal((4, 4, 3, 3)).astype(np.float32) for n in ("w1", "w2")}
    network = make_network(text, weights)
    part = partition(network, [cut_of(network.graph, {0}), cut_of(network.graph, {0, 1})])
    samples = [rng.standard_normal((1, 4, 6, 6)).astype(np.float32) for _ in range(3)]
    return with_transforms(part, [klt(part, 1, "a", *fit_klt(samples, 2))])
