"""Verification finds nothing where there is nothing, and says what and where if there is."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from onnx import numpy_helper, parser

from midstream_lab.verification import verify as verification
from midstream_lab.verification.checks import Check, Verification
from midstream_lab.verification.verify import verify_cuts, verify_partition
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import cut_of, position_cuts
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import Array


@pytest.fixture(scope="module")
def network() -> Network:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        net (float[n, 3, 8, 8] x, float[n, 5] z)
          => (float[n, 5] y, int64[n] best, float[n, 5] z, float[n, 4, 1, 1] early) {
        a = Conv <pads = [1, 1, 1, 1]> (x, k)
        b = Relu(a)
        early = GlobalAveragePool(b)
        f = Flatten(early)
        h = MatMul(f, w)
        y = Add(h, z)
        best = ArgMax <axis = 1, keepdims = 0> (y) }""")
    rng = np.random.default_rng(0)
    for name, shape in (("k", (4, 3, 3, 3)), ("w", (4, 5))):
        weights = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    return load_network(model.SerializeToString())


@pytest.fixture(scope="module")
def inputs() -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    shapes = {"x": (2, 3, 8, 8), "z": (2, 5)}
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(2)
    ]


@pytest.fixture(scope="module")
def part(network: Network) -> Partition:
    return partition(network, position_cuts(network.graph)[1:6])


@pytest.mark.parametrize("codec", ["raw", "lossless"])
def test_every_cut_of_a_sound_network_passes(
    codec: str, network: Network, inputs: list[dict[str, Array]]
) -> None:
    cuts = position_cuts(network.graph)
    found = verify_cuts(network, cuts=cuts, inputs=inputs, codec=codec)
    assert [row.cut for row in found.rows] == [cut.id for cut in cuts]
    assert found.checked == 8
    assert found.max_relative_error <= 1e-5
    assert found.argmax_equal
    assert found.failures == ()
    assert found.tolerance == 1e-5


@pytest.mark.parametrize("codec", ["raw", "lossless"])
def test_every_placement_of_a_sound_partition_passes(
    codec: str, part: Partition, inputs: list[dict[str, Array]]
) -> None:
    found = verify_partition(part, inputs=inputs, codec=codec)
    assert [row.cut for row in found.rows] == [cut.id for cut in part.cuts]
    assert found.failures == ()
    assert found.max_relative_error <= 1e-5


def test_bytes_are_those_that_cross(network: Network, inputs: list[dict[str, Array]]) -> None:
    cuts = [cut_of(network.graph, range(n)) for n in (0, 1, 7)]
    rows = verify_cuts(network, cuts=cuts, inputs=inputs).rows
    samples = 2 * (3 * 8 * 8 + 5) * 4, 2 * (4 * 8 * 8 + 5) * 4, 0
    assert tuple(row.raw_nbytes for row in rows) == samples
    assert all(row.raw_nbytes <= row.payload_nbytes <= row.raw_nbytes + 500 for row in rows)


def test_the_error_of_a_lossy_codec_is_reported_and_fails_only_beyond_a_tolerance(
    network: Network, inputs: list[dict[str, Array]]
) -> None:
    cuts = position_cuts(network.graph)[1:-1]
    found = verify_cuts(network, cuts=cuts, inputs=inputs, codec="int8")
    assert 1e-5 < found.max_relative_error < 0.2
    assert found.failures == ()
    assert found.tolerance is None
    strict = verify_cuts(network, cuts=cuts, inputs=inputs, codec="int8", tolerance=1e-6)
    assert strict.failures
    assert "at most 1e-06, and is" in str(strict.failures[0].failure)
    loose = verify_partition(
        partition(network, cuts), inputs=inputs, codec="int8", tolerance=0.2
    )
    assert loose.failures == ()


def test_a_tail_that_computes_something_else_is_found(
    part: Partition, inputs: list[dict[str, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Chain.run

    def disturbed(chain: Chain, state: dict[str, Array], first: int, last: int) -> object:
        made = run(chain, state, first, last)
        if first == 3 and last == 6:
            made["y"] = made["y"] + np.float32(1e-3)
        return made

    monkeypatch.setattr(Chain, "run", disturbed)
    found = verify_partition(part, inputs=inputs)
    assert [row.cut for row in found.failures] == [part.cuts[3].id]
    assert found.max_relative_error > 1e-4


def test_a_placement_whose_bits_differ_is_found(
    part: Partition, inputs: list[dict[str, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the tolerance, and yet not what the chain promises."""
    run = Chain.run

    def disturbed(chain: Chain, state: dict[str, Array], first: int, last: int) -> object:
        made = run(chain, state, first, last)
        if first == 2 and last == 6:
            made["y"] = np.nextafter(made["y"], np.float32(np.inf))
        return made

    monkeypatch.setattr(Chain, "run", disturbed)
    found = verify_partition(part, inputs=inputs)
    assert [row.cut for row in found.failures] == [part.cuts[2].id]
    assert "same bits" in str(found.failures[0].failure)
    assert found.max_relative_error < 1e-5


def test_a_cut_that_cannot_run_is_a_failure_and_the_others_go_on(
    network: Network, inputs: list[dict[str, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(network: Network, cuts: list[object]) -> Partition:
        if cuts == [second]:
            raise ModelError("this one cannot be cut")
        return partition(network, cuts)  # type: ignore[arg-type]

    first, second, third = position_cuts(network.graph)[1:4]
    monkeypatch.setattr(verification, "partition", refuse)
    found = verify_cuts(network, cuts=[first, second, third], inputs=inputs)
    assert found.checked == 3
    assert [row.cut for row in found.failures] == [second.id]
    assert found.failures[0].failure == "this one cannot be cut"
    assert found.max_relative_error == math.inf


def test_a_verification_is_a_json_document(
    network: Network, inputs: list[dict[str, Array]]
) -> None:
    cuts = position_cuts(network.graph)
    found = verify_cuts(network, cuts=cuts, inputs=inputs)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["cuts"] == len(cuts)
    assert document["checked"] == len(cuts)
    assert [row["cut"] for row in document["rows"]] == [cut.id for cut in cuts]
    assert document["max_relative_error"] <= 1e-5
    assert document["argmax_equal"] is True
    assert document["failures"] == []
    assert document["rows"][1]["label"] == "after the input and Conv_0"


def test_an_error_that_is_not_finite_is_null_in_json() -> None:
    row = Check("c1-000000", "after conv", 4, 0, math.inf, False, "no answer")
    document = Verification("raw", 1e-5, (row,)).to_dict()
    assert document["max_relative_error"] is None
    assert document["rows"][0]["relative_error"] is None
    assert document["failures"] == [{"cut": "c1-000000", "reason": "no answer"}]


def test_progress_counts_the_cuts(part: Partition, inputs: list[dict[str, Array]]) -> None:
    steps: list[tuple[int, int]] = []
    verify_partition(part, inputs=inputs, progress=lambda *step: steps.append(step))
    assert steps == [(done, 7) for done in range(8)]


def test_an_unknown_codec_is_a_usage_error(
    part: Partition, inputs: list[dict[str, Array]]
) -> None:
    with pytest.raises(UsageError, match="zip"):
        verify_partition(part, inputs=inputs, codec="zip")


HALF = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 64] x) => (float[n, 64] y) {
    a = Cast <to = 10> (x)
    b = Add(a, thousand)
    c = Cast <to = 1> (b)
    y = Sub(c, same) }"""


def half() -> Network:
    """A float16 sum in the middle: whole, onnxruntime does not round there."""
    model = parser.parse_model(HALF)
    for name, value in (("thousand", np.float16(1000)), ("same", np.float32(1000))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return load_network(model)


def normal(*shape: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(2)
    return [{"x": rng.standard_normal(shape).astype(np.float32)}]


def test_float16_is_held_against_its_own_rounding() -> None:
    network = half()
    found = verify_cuts(network, cuts=position_cuts(network.graph), inputs=normal(4, 64))
    assert found.failures == ()
    assert found.max_relative_error > 0.01
    assert found.own_rounding == pytest.approx(found.max_relative_error, rel=0.5)
    assert found.tolerance == pytest.approx(4 * (found.own_rounding or 0))
    assert found.argmax_equal


@pytest.mark.parametrize("planted", [0.6, np.nan])
def test_an_error_in_a_float16_network_is_found_all_the_same(
    planted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, run = half(), Chain.run

    def disturbed(chain: Chain, state: dict[str, Array], first: int, last: int) -> object:
        made = run(chain, state, first, last)
        if "y" in made:
            made["y"] = made["y"] + np.float32(planted) * np.abs(made["y"]).max()
        return made

    monkeypatch.setattr(Chain, "run", disturbed)
    cuts = position_cuts(network.graph)[1:-1]
    found = verify_cuts(network, cuts=cuts, inputs=normal(4, 64))
    assert len(found.failures) == len(cuts)


def test_a_float32_network_is_held_to_little_more_than_its_rounding(
    network: Network, inputs: list[dict[str, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Chain.run

    def disturbed(chain: Chain, state: dict[str, Array], first: int, last: int) -> object:
        made = run(chain, state, first, last)
        return made | ({"y": made["y"] * np.float32(1 + 1e-4)} if "y" in made else {})

    monkeypatch.setattr(Chain, "run", disturbed)
    (row,) = verify_cuts(network, cuts=position_cuts(network.graph)[2:3], inputs=inputs).rows
    assert "at most 1e-05, and is 0.0001 in y" in str(row.failure)
    assert 1e-5 < row.absolute_error < 1e-2


def of(text: str) -> Network:
    return load_network(
        parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[n, 4] x) => {text}""")
    )


def test_what_holds_no_numbers_is_no_success() -> None:
    network = of("(float[n, 4] y) { a = Abs(x)\n b = Neg(a)\n y = Sqrt(b) }")
    with pytest.raises(UsageError, match="y hold none on these inputs"):
        verify_cuts(network, cuts=position_cuts(network.graph), inputs=normal(2, 4))


def test_outputs_that_could_not_be_compared_are_named() -> None:
    network = of(
        "(float[n, 4] y, int64[2, k] where) "
        "{ a = Abs(x)\n y = Exp(a)\n b = Neg(y)\n c = Relu(b)\n where = NonZero(c) }"
    )
    found = verify_cuts(network, cuts=position_cuts(network.graph), inputs=normal(2, 4))
    assert found.failures == ()
    assert found.to_dict()["silent_outputs"] == ["where"]


def test_a_network_that_draws_numbers_is_told_so() -> None:
    network = of("(float[n, 4] y) { r = RandomUniformLike(x)\n y = Add(x, r) }")
    with pytest.raises(ModelError, match="take out what draws random numbers"):
        verify_cuts(network, cuts=position_cuts(network.graph), inputs=normal(2, 4))


@pytest.mark.parametrize("codec", ["raw", "int8"])
def test_a_largest_entry_that_moved_is_never_passed_over(
    codec: str,
    network: Network,
    inputs: list[dict[str, Array]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Chain.run

    def disturbed(chain: Chain, state: dict[str, Array], first: int, last: int) -> object:
        made = run(chain, state, first, last)
        return made | ({"y": made["y"][:, ::-1].copy()} if "y" in made else {})

    monkeypatch.setattr(Chain, "run", disturbed)
    cuts = position_cuts(network.graph)[2:3]
    found = verify_cuts(network, cuts=cuts, inputs=inputs, codec=codec)
    assert not found.argmax_equal
    assert found.failures


def test_an_interrupt_leaves_what_was_found(
    network: Network, inputs: list[dict[str, Array]]
) -> None:
    cuts = position_cuts(network.graph)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    found = verify_cuts(network, cuts=cuts, inputs=inputs, progress=stop)
    assert found.interrupted
    assert (found.checked, found.planned) == (3, len(cuts))
    document = found.to_dict()
    assert (document["checked"], document["cuts"]) == (3, len(cuts))


def test_a_network_that_draws_numbers_is_verified_to_rounding_and_told_so() -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        net (float[1, 8] x) => (float[1, 8] y) {
            n = local.Noise()
            a = Add(x, n)
            r = Relu(a)
            m = Neg(a)
            s = Relu(m)
            b = Sub(r, s)
            y = Sub(b, n) }
        <domain: "local", opset_import: ["" : 17]>
        Noise () => (o) { o = RandomNormal <dtype = 1, shape = [1, 8]> () }""")
    noisy = load_network(model)
    x = {"x": np.arange(8, dtype=np.float32).reshape(1, 8)}
    cuts = position_cuts(noisy.graph)
    for found in (
        verify_cuts(noisy, cuts=cuts, inputs=[x]),
        verify_partition(partition(noisy, cuts), inputs=[x]),
    ):
        assert found.failures == ()
        assert found.random_operators == ("Noise",)
        assert found.to_dict()["random_operators"] == ["Noise"]
