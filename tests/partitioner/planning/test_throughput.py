"""Plans for throughput know the cloud's workers, the window of requests and the encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.machine import usable_cores, usable_memory_nbytes
from midstream_partitioner.planning.placements import Pipeline, Placement
from midstream_partitioner.planning.planner import Planner

CaseOf = Callable[..., Any]
FAST = Link(1e12, 1e12, 0.0, 0.0)


def _placement(case_of: CaseOf, **changes: Any) -> Placement:
    case = case_of(1)
    placement = next(
        each for each in Planner(case.partition, case.edge, case.cloud).allowed if each.remote
    )
    seconds = {"head_s": 0.02, "encode_s": 0.01, "decode_s": 0.001, "tail_s": 0.04}
    return replace(placement, **(seconds | changes))


def test_workers_decode_and_run_tails(case_of: CaseOf) -> None:
    placement = _placement(case_of)
    periods_s = [
        placement.period_s(FAST, Pipeline(workers=workers, window=100))
        for workers in (1, 2, 4)
    ]
    assert periods_s == pytest.approx([0.041, 0.0205, 0.02])


def test_the_encoder_works_beside_the_head_as_far_as_there_are_cores(case_of: CaseOf) -> None:
    placement = _placement(case_of, tail_s=0.0)
    one = placement.period_s(FAST, Pipeline(threads=1, cores=1, window=100))
    two = placement.period_s(FAST, Pipeline(threads=1, cores=2, window=100))
    busy = placement.period_s(FAST, Pipeline(threads=2, cores=2, window=100))
    assert (one, two, busy) == pytest.approx((0.03, 0.02, 0.025))


def test_a_transform_runs_on_the_thread_of_the_heads(case_of: CaseOf) -> None:
    placement = _placement(case_of, codec="klt:4+half")
    pipeline = Pipeline(workers=1, window=100)
    assert pipeline.edge_s(placement.head_s, placement.encode_s, True) == pytest.approx(0.03)
    assert pipeline.cloud_s(placement.decode_s, placement.tail_s) == pytest.approx(0.041)


def test_a_long_link_is_bounded_by_the_requests_under_way(case_of: CaseOf) -> None:
    placement = _placement(case_of)
    long = Link(1e12, 1e12, 0.8, 0.0)
    period_s = placement.period_s(long, Pipeline(workers=4, window=8))
    assert period_s == pytest.approx((0.071 + 0.8) / 8, rel=1e-3)


def test_the_workers_of_the_clouds_profile_reach_the_plan(case_of: CaseOf) -> None:
    case = case_of(3)
    for workers in (1, 4):
        planner = Planner(
            case.partition, case.edge, case.cloud.serving(workers), objective="throughput"
        )
        assert planner.pipeline.workers == workers
        made = planner.plan(FAST)
        assert made.chosen.throughput_hz == max(each.throughput_hz for each in made.candidates)


def test_workers_beyond_the_cores_do_not_count_unless_emulated() -> None:
    real = Device("server", 2, cores=4)
    assert real.serving(8).workers == 2
    assert replace(real, slowdown=2.0).serving(8).workers == 8
    assert Device("unknown", 1).serving(8).workers == 8


def _group(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return tmp_path


def test_a_containers_limits_are_the_machines(tmp_path: Path) -> None:
    whole = usable_memory_nbytes(tmp_path)
    assert whole > 0
    second = _group(tmp_path, cpu__max="100000 100000\n", memory__max=f"{1 << 20}\n")
    assert usable_memory_nbytes(second) == 1 << 20
    assert usable_cores(second) == 1


def test_limits_of_the_first_version_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "cpu").mkdir()
    _group(tmp_path / "memory", memory__limit_in_bytes=f"{1 << 21}\n")
    _group(tmp_path / "cpu", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    assert usable_memory_nbytes(tmp_path) == 1 << 21
    assert usable_cores(tmp_path) == 1
    _group(tmp_path / "memory", memory__limit_in_bytes=f"{(1 << 63) - 4096}\n")
    assert usable_memory_nbytes(tmp_path) > 1 << 21
    _group(tmp_path, cpu__max="max 100000\n", memory__max="max\n")
    assert usable_memory_nbytes(tmp_path) > 1 << 21
