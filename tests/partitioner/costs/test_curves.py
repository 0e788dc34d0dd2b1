"""Costs over sizes: the law against made-up truths, plans at sizes against brute force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest
from tests.partitioner.sized import (
    LENGTHS,
    LINK,
    Truth,
    bucket,
    profile,
    sides,
    stat,
    total_s,
    two_steps,
)

from midstream_partitioner.costs.calibration import Calibration, Fidelity
from midstream_partitioner.costs.curves import Curve, check_sized
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.graph.cuts import CLOUD_ONLY
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.over_sizes import over_sizes
from midstream_partitioner.planning.planner import Planner
from midstream_wire.errors import UsageError
from midstream_wire.tensors import TensorSpec


@pytest.fixture(scope="module")
def part() -> Partition:
    return two_steps()


def lengths(truth: Truth, sizes: tuple[int, ...] = LENGTHS) -> Curve:
    return Curve(profile(*(bucket({"seq": size}, truth) for size in sizes)))


@pytest.mark.parametrize(
    "truth",
    [
        lambda s: 1e-3,
        lambda s: 1e-4 + 2e-5 * s["seq"],
        lambda s: 2e-5 * s["seq"] + 3e-7 * s["seq"] ** 2,
        lambda s: 3e-4 + 1e-5 * s["seq"] + 1e-7 * s["seq"] ** 2,
    ],
)
def test_sums_of_powers_are_told_between_and_beyond_what_was_measured(truth: Truth) -> None:
    curve = lengths(truth)
    for size in (8, 11, 20, 50, 100, 300, 512, 1500):
        found = curve.at((("seq", size),)).segments[0].median_s
        assert found == pytest.approx(truth({"seq": size}), rel=0.03)


def test_what_was_measured_comes_out_as_it_was() -> None:
    bent = {8: 3e-4, 32: 2e-4, 128: 9e-4, 512: 5e-3}
    curve = lengths(lambda s: bent[s["seq"]])
    for size, seconds in bent.items():
        there = curve.at((("seq", size),))
        assert there.segments == (stat(seconds),)
        assert there.sizes == (("seq", size),)
        assert there.others == ()
    between = curve.at((("seq", 64),)).segments[0].median_s
    assert 2e-4 < between < 9e-4


def test_two_dimensions_cost_as_their_product() -> None:
    def truth(sizes: Mapping[str, int]) -> float:
        return 1e-4 + 1e-8 * sizes["height"] * sizes["width"]

    grid = [{"height": h, "width": w} for h, w in product((64, 256), (64, 128, 512))]
    curve = Curve(profile(*(bucket(sizes, truth) for sizes in grid)))
    for height, width in ((64, 300), (100, 100), (200, 480), (256, 512), (480, 640)):
        sizes = (("height", height), ("width", width))
        found = curve.at(sizes).segments[0].median_s
        assert found == pytest.approx(truth(dict(sizes)), rel=0.03)


def test_a_batch_and_a_length_do_not_cost_as_their_product() -> None:
    def truth(sizes: Mapping[str, int]) -> float:
        return sizes["batch"] * (2e-5 * sizes["seq"] + 3e-7 * sizes["seq"] ** 2)

    grid = [{"batch": b, "seq": n} for b, n in product((1, 4), LENGTHS)]
    curve = Curve(profile(*(bucket(sizes, truth) for sizes in grid)))
    for batch, seq in ((1, 300), (2, 60), (3, 500), (4, 16), (8, 1024)):
        sizes = (("batch", batch), ("seq", seq))
        found = curve.at(sizes).segments[0].median_s
        assert found == pytest.approx(truth(dict(sizes)), rel=0.03)


def test_noise_of_single_buckets_is_shared_by_all_of_one_area() -> None:
    def truth(sizes: Mapping[str, int]) -> float:
        return 1e-4 + 1e-8 * sizes["height"] * sizes["width"]

    def noisy(sizes: Mapping[str, int]) -> float:
        return truth(sizes) * (1.3 if (sizes["height"], sizes["width"]) == (128, 128) else 1.0)

    grid = [{"height": h, "width": w} for h, w in product((64, 128, 256), repeat=2)]
    curve = Curve(profile(*(bucket(sizes, noisy) for sizes in grid)))
    sizes = (("height", 130), ("width", 126))
    found = curve.at(sizes).segments[0].median_s
    assert found == pytest.approx(truth(dict(sizes)), rel=0.12)


def test_samples_of_scattered_sizes_count_by_their_product() -> None:
    def truth(sizes: Mapping[str, int]) -> float:
        return 1e-4 + 1e-8 * sizes["height"] * sizes["width"]

    seen = [(100, 80), (240, 320), (333, 512), (80, 100)]
    curve = Curve(profile(*(bucket({"height": h, "width": w}, truth) for h, w in seen)))
    sizes = (("height", 200), ("width", 256))
    found = curve.at(sizes).segments[0].median_s
    assert found == pytest.approx(truth(dict(sizes)), rel=0.03)


def test_a_dimension_measured_at_one_size_is_taken_in_proportion_and_told() -> None:
    curve = Curve(profile(bucket({"batch": 1, "seq": 64}, lambda s: 1e-3)))
    there = curve.at((("batch", 3), ("seq", 64)))
    assert there.segments[0].median_s == pytest.approx(3e-3)
    assert there.replies_nbytes[0] == 3
    told = curve.told((("batch", 3), ("seq", 64)), "the edge's")
    assert told.startswith("batch=3 lies beyond the 1 that the edge's profile was measured at")
    assert curve.told((("batch", 1), ("seq", 64)), "the edge's") == ""


def test_one_axis_of_several_inputs_without_names_counts_once() -> None:
    sizes = {"ids:0": 1, "ids:1": 32, "mask:0": 1, "mask:1": 32}
    curve = Curve(profile(bucket(sizes, lambda s: 1e-3)))
    longer = tuple(
        (name, 2 * size if name.endswith("1") else size) for name, size in sizes.items()
    )
    assert curve.at(longer).segments[0].median_s == pytest.approx(2e-3)


def test_leaving_a_bucket_out_tells_the_error_of_the_law() -> None:
    assert dict(lengths(lambda s: 1e-5 * s["seq"]).left_out()) == pytest.approx(
        {(("seq", 32),): 0.0, (("seq", 128),): 0.0}, abs=0.02
    )
    bent = lengths(lambda s: 1e-3 if s["seq"] != 128 else 2e-3)
    assert dict(bent.left_out())[(("seq", 128),)] == pytest.approx(-0.5, abs=0.02)


def test_a_profile_over_sizes_is_a_document_and_can_be_slowed() -> None:
    found = lengths(lambda s: 1e-5 * s["seq"]).profile
    assert Profile.from_json(found.to_json()) == found
    slow = Curve(found.slowed(10.0)).at((("seq", 512),))
    assert slow.segments[0].median_s == pytest.approx(5.12e-2)


def test_a_profile_that_does_not_say_its_sizes_is_refused_where_sizes_are_open() -> None:
    old = Profile(Device("d", threads=1), "g", "p", (stat(1.0),), (), (0, 0))
    check_sized(old, [TensorSpec("x", "float32", (1, 3))])
    with pytest.raises(UsageError, match=r"seq.*before profiles did: measure it again"):
        check_sized(old, [TensorSpec("x", "float32", (1, "seq"))])


def test_a_plan_at_sizes_is_the_best_of_all_placements_there(part: Partition) -> None:
    planner = Planner(part, *sides(part))
    won = set()
    for size in (8, 20, 60, 100, 200, 400, 512, 700):
        made = planner.at((("batch", 1), ("seq", size))).plan(LINK)
        best_s = min(total_s(k, size) for k in range(3))
        assert made.chosen.latency_s == pytest.approx(best_s, rel=0.02)
        won.add(made.chosen.k)
    assert len(won) > 1


def test_profiles_of_other_sizes_are_planned_at_those_of_the_edge(part: Partition) -> None:
    edge, cloud = sides(part)
    short = cloud.holding(cloud.buckets[0])
    made = Planner(part, edge.holding(edge.buckets[2]), short)
    assert made.sizes == (("batch", 1), ("seq", 128))
    assert "seq=128 lies beyond the 8 that the cloud's profile was measured at" in made.told
    tail_s = next(each.tail_s for each in made.allowed if each.k == 0)
    assert tail_s == pytest.approx(16 * short.segments_s(0, 2))


def test_what_a_calibration_says_of_a_payload_grows_with_the_size(part: Partition) -> None:
    def told(found: Profile) -> Profile:
        first, *others = (
            replace(bucket, crossings_nbytes=(4 * size, 4 * size, 0))
            for bucket, size in zip(found.buckets, LENGTHS, strict=True)
        )
        return found.holding(first, others)

    edge, cloud = map(told, sides(part))
    row = Fidelity("cloud-only", "raw", 700, 900, bits_per_element=10.0, agreement=1.0)
    found = Calibration(
        part.graph_digest, part.digest, "texts", False, 1000, None, None, rows=(row,)
    )
    planner = Planner(part, edge, cloud, calibration=found)
    for size in (8, 128, 300):
        sized = planner.at((("batch", 1), ("seq", size)))
        (sent,) = [each for each in sized.allowed if each.cut == CLOUD_ONLY]
        assert sent.payload_nbytes == pytest.approx(10 * size / 8, rel=0.01)
        most_nbytes = round(10 * size / 8 * 9 / 7)
        for limit_nbytes, fits in ((most_nbytes + 1, True), (most_nbytes - 1, False)):
            constraints = Constraints(max_payload_nbytes=limit_nbytes)
            bounded = Planner(part, edge, cloud, calibration=found, constraints=constraints)
            left = bounded.at((("batch", 1), ("seq", size))).allowed
            assert any(each.cut == CLOUD_ONLY for each in left) == fits


def test_where_another_plan_wins_is_found_to_the_size(part: Partition) -> None:
    planner = Planner(part, *sides(part))
    (curve,) = over_sizes(planner, LINK, (("batch", 1), ("seq", LENGTHS)))
    assert [curve.pieces[0].first, curve.pieces[-1].last] == [8, 512]
    assert len(curve.pieces) > 1
    for piece in curve.pieces:
        for size in (piece.first, piece.last):
            best = planner.at((("batch", 1), ("seq", size))).plan(LINK).chosen
            assert (best.k, best.codec) == (piece.k, piece.codec)
    assert f"from {curve.pieces[-1].first} to 512" in curve.sentence()
    assert curve.sentence().startswith("over seq (at batch=1): from 8 to")
