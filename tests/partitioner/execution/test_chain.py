"""Running segments: every placement alike, prefixes only, fused, slowed down."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.cutting import fuse, partition
from midstream_partitioner.partition.partition import Partition
from midstream_wire.errors import ModelError, TensorError
from midstream_wire.tensors import Array

MakeNetwork = Callable[..., Network]
RunWhole = Callable[..., dict[str, Array]]
RunPlaced = Callable[..., dict[str, Array]]


@pytest.fixture(scope="module")
def part(branches: Network) -> Partition:
    return partition(branches, position_cuts(branches.graph))


def test_every_placement_gives_bit_identical_answers(
    part: Partition, inputs: dict[str, Array], run_placed: RunPlaced
) -> None:
    first = run_placed(part, 0, inputs)
    for k in range(1, len(part.cuts)):
        answer = run_placed(part, k, inputs)
        assert all(answer[name].tobytes() == first[name].tobytes() for name in first)


def test_a_run_returns_what_crosses_and_the_outputs_so_far(
    part: Partition, inputs: dict[str, Array]
) -> None:
    chain = Chain(part)
    assert set(chain.run(inputs, 0, 3)) == {"x", "left", "right"}
    assert set(chain.run(inputs, 0, 5)) == {"skip", "early"}
    assert set(chain.run(inputs, 0, 6)) == {"y", "early"}
    assert set(chain.run(inputs, 0, 0)) == {"x"}


def test_a_chain_of_a_prefix_runs_no_more_than_that(
    part: Partition, inputs: dict[str, Array]
) -> None:
    edge, cloud = Chain(part, last=2), Chain(part, first=2)
    crossed = edge.run(inputs, 0, 2)
    assert set(cloud.run(crossed, 2, 6)) == {"y", "early"}
    with pytest.raises(ModelError, match=r"\[0, 3\) must lie within \[0, 2\)"):
        edge.run(inputs, 0, 3)
    with pytest.raises(ModelError, match=r"\[1, 6\) must lie within \[2, 6\)"):
        cloud.run(crossed, 1, 6)


def test_a_tensor_that_does_not_fit_is_named(part: Partition) -> None:
    chain = Chain(part)
    with pytest.raises(
        TensorError, match=r"'x' \(float32 \[batch, 8\]\) must be given; image"
    ):
        chain.run({"image": np.zeros((1, 8), np.float32)}, 0, 1)
    with pytest.raises(TensorError, match="'x' must be"):
        chain.run({"x": np.zeros((1, 8))}, 0, 1)
    with pytest.raises(TensorError, match="'x' must be"):
        chain.run({"x": np.zeros((1, 7), np.float32)}, 0, 1)
    with pytest.raises(TensorError, match="'skip'"):
        chain.run({"x": np.zeros((1, 8), np.float32)}, 5, 6)


def test_threads_may_share_a_chain(part: Partition) -> None:
    chain = Chain(part)
    rng = np.random.default_rng(2)
    samples = [{"x": rng.standard_normal((1, 8)).astype(np.float32)} for _ in range(64)]
    alone = [chain.run(sample, 0, 6)["y"] for sample in samples]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda sample: chain.run(sample, 0, 6)["y"], samples))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(("first", "last"), [(0, 6), (0, 3), (1, 5), (2, 4), (3, 6)])
def test_a_fused_range_gives_the_same_answer_wherever_it_lies(
    first: int, last: int, part: Partition, inputs: dict[str, Array]
) -> None:
    """It still hands on what later segments use, and outputs that it uses itself."""
    plain, fused = Chain(part), Chain(part)
    fused.fuse(first, last)
    expected, answer = plain.run(inputs, 0, 6), fused.run(inputs, 0, 6)
    assert set(answer) == {"y", "early"}
    for name, array in expected.items():
        np.testing.assert_allclose(answer[name], array, rtol=1e-5, atol=1e-6)


def test_a_fused_range_runs_only_where_all_of_it_is_asked_for(
    part: Partition, inputs: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(part)
    chain.fuse(1, 6)
    sessions = 0
    run = Executor.run

    def count(executor: Executor, *args: object, **options: object) -> dict[str, Array]:
        nonlocal sessions
        sessions += 1
        return run(executor, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Executor, "run", count)
    chain.run(inputs, 0, 6)
    assert sessions == 2
    sessions = 0
    chain.run(inputs, 0, 5)
    assert sessions == 5


def test_fusing_takes_constants_that_segments_share_once(make_network: MakeNetwork) -> None:
    network = make_network(
        """net (float[1, 4] x) => (float[1, 4] y) {
        w = Transpose(v) a = MatMul(x, w) y = MatMul(a, w) }""",
        {"v": np.ones((4, 4), np.float32)},
    )
    part = partition(network, position_cuts(network.graph))
    whole = fuse(part, 0, len(part.segments))
    assert len(whole) < 0.8 * sum(len(segment.model) for segment in part.segments)
    inputs = {"x": np.ones((1, 4), np.float32)}
    np.testing.assert_array_equal(Executor(whole).run(inputs)["y"], np.full((1, 4), 16))


def test_a_slowed_chain_takes_longer_by_about_its_factor(make_network: MakeNetwork) -> None:
    rng = np.random.default_rng(0)
    weights = {"k": rng.standard_normal((32, 32, 3, 3)).astype(np.float32)}
    network = make_network(
        """net (float[1, 32, 64, 64] x) => (float[1, 32, 60, 60] y) {
        a = Conv(x, k) y = Conv(a, k) }""",
        weights,
    )
    inputs = {"x": rng.standard_normal((1, 32, 64, 64)).astype(np.float32)}
    fast = Chain(partition(network, ()))
    slow = fast.at_speed(6.0)

    def best_s(chain: Chain) -> float:
        times = []
        for _ in range(7):
            started = time.perf_counter()
            chain.run(inputs, 0, 1)
            times.append(time.perf_counter() - started)
        return min(times)

    best_s(fast)
    ratio = best_s(slow) / best_s(fast)
    assert 4.0 < ratio < 9.0
    assert np.array_equal(slow.run(inputs, 0, 1)["y"], fast.run(inputs, 0, 1)["y"])


def test_an_emulated_device_keeps_the_pace_that_it_is_told(
    part: Partition, inputs: dict[str, Array]
) -> None:
    chain = Chain(part, slowdown=1.001)
    chain.keep_pace([0.03] * len(part.segments))
    chain.run(inputs, 0, 2)
    began_s = time.perf_counter()
    chain.run(inputs, 0, 2)
    assert time.perf_counter() - began_s >= 0.06
    real = chain.at_speed(1.0)
    real.keep_pace([1000.0] * len(part.segments))
    real.run(inputs, 0, 2)  # which nothing holds up
