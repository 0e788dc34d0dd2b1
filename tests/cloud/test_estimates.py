"""How long a tail may take: by its size, from the profile on, corrected by what was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.partitioner.sized import LENGTHS, bucket, profile

from midstream_cloud import estimates as module
from midstream_cloud.estimates import Estimates, Kind, expected, points_of
from midstream_partitioner.costs.profile import CodecCost

KIND: Kind = ("digest", 1, "", ("raw",))
POINTS = [(1000, 0.01), (4000, 0.04), (16000, 0.64)]


def test_a_size_that_was_not_seen_is_priced_by_the_profile() -> None:
    known = Estimates()
    assert known.of(KIND, 4000) == 0.0
    assert known.of(KIND, 4000, POINTS) == pytest.approx(0.04)
    assert known.of(KIND, 2500, POINTS) == pytest.approx(0.025)
    assert known.of(KIND, 32000, POINTS) == pytest.approx(1.28)
    assert known.of(KIND, 500, POINTS) == pytest.approx(0.005)


def test_what_was_seen_corrects_the_profile_at_all_sizes() -> None:
    known = Estimates()
    known.learn(KIND, 4000, 0.08)
    assert known.of(KIND, 4000, POINTS) == pytest.approx(0.08)
    assert known.of(KIND, 16000, POINTS) == pytest.approx(1.28)
    other: Kind = ("digest", 0, "", ("raw",))
    assert known.of(other, 4000, POINTS) == pytest.approx(0.04)


def test_without_a_profile_the_nearest_size_counts_in_proportion() -> None:
    known = Estimates()
    known.learn(KIND, 1024, 0.1)
    known.learn(KIND, 65536, 0.9)
    assert known.of(KIND, 2048) == pytest.approx(0.2)
    assert known.of(KIND, 131072) == pytest.approx(1.8)


def test_a_cold_start_is_forgotten_and_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Estimates()
    for seconds in [5.0] + [0.1] * 30:
        known.learn(KIND, 1000, seconds)
    assert known.of(KIND, 1000) == pytest.approx(0.1, rel=0.1)
    monkeypatch.setattr(module, "_MOST", 10)
    for size in range(200):
        known.learn(KIND, 1 << size, 0.1)
        assert sum(map(len, known._seen.values())) <= 10


def test_a_profile_tells_tails_by_what_crosses() -> None:
    buckets = (bucket({"seq": n}, lambda s: 1e-3, lambda s: 1e-5 * s["seq"]) for n in LENGTHS)
    found = profile(
        *(
            replace(each, crossings_nbytes=(8 * n, 4 * n, 0))
            for each, n in zip(buckets, LENGTHS, strict=True)
        )
    )
    sizes, seconds = zip(*points_of(found, 1), strict=True)
    assert sizes == tuple(4 * n for n in LENGTHS)
    assert seconds == pytest.approx(tuple(1e-5 * n for n in LENGTHS))
    (first, first_s), *_ = points_of(found, 0)
    assert first == 64
    assert first_s == pytest.approx(1e-3 + 8e-5)
    assert expected((), 100) == 0.0


def test_undoing_a_transform_counts_as_part_of_the_tail() -> None:
    first = bucket({"seq": 8}, lambda s: 1e-3, lambda s: 1e-3)
    costs = [
        CodecCost("cut 1", name, 10, 0.0, decode_s)
        for name, decode_s in (("raw", 1.0), ("klt:4+raw", 0.2), ("klt:4+ec:1", 0.3))
    ]
    found = profile(replace(first, crossings_nbytes=(8, 4, 0), codecs=tuple(costs)))
    ((_, bare_s),) = points_of(found, 1)
    assert points_of(found, 1, cut="cut 1", transform="klt:4") == [(4, bare_s + 0.3)]
    assert points_of(found, 1, cut="cut 1", transform="klt:9") == [(4, bare_s)]
    assert points_of(found, 1, cut="cut 2", transform="klt:4") == [(4, bare_s)]
