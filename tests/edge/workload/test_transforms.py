"""Transforms over real sockets: exact where nothing is dropped, exact in every fallback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from midstream_cloud.repository import Repository
from midstream_cloud.server import serving
from midstream_edge.session.session import EdgeSession
from midstream_edge.workload.comparison import Contender, run_trial
from midstream_partitioner.costs.timings import Estimate
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import Cut
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition, with_transforms
from midstream_partitioner.planning.assess import Assessment
from midstream_partitioner.planning.placements import Placement
from midstream_partitioner.planning.plan import Candidate
from midstream_partitioner.transforms.klt import klt, spectrum_of
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import Array

Inputs = Mapping[str, Array]
Picture = Callable[[int], Inputs]
Expected = Callable[[Inputs], dict[str, Array]]
Serve = Callable[..., AbstractContextManager[str]]

pytestmark = pytest.mark.usefixtures("steady_link")


@pytest.fixture(scope="module")
def transformed(small: Partition, chain: Chain, picture: Picture) -> Partition:
    """Of the 16 channels behind the first ReLU, all, eight or one."""
    (name,) = small.cuts[1].tensors
    spectrum = spectrum_of(chain.run(picture(n), 0, 1)[name] for n in range(100, 110))
    return with_transforms(
        small,
        [klt(small, 1, name, *spectrum.keep(n), nonnegative=True) for n in (16, 8, 1)],
    )


@pytest.fixture(scope="module")
def able(transformed: Partition) -> Chain:
    return Chain(transformed)


@pytest.fixture(scope="module")
def address(serve: Serve, transformed: Partition) -> Iterator[str]:
    with serve(transformed) as address:
        yield address


@pytest.mark.parametrize("codec", ["raw", "lossless", "half", "ec:0.01"])
def test_all_components_give_the_unsplit_answer_over_sockets(
    able: Chain, address: str, picture: Picture, expected: Expected, codec: str
) -> None:
    with EdgeSession(able, address, plan=(1, f"klt:16+{codec}")) as session:
        futures = [session.submit(picture(n)) for n in range(20)]
        answers = [future.result(10) for future in futures]
    for n, answer in enumerate(answers):
        assert (answer.where, answer.codec) == ("cloud", f"klt:16+{codec}")
        for name, array in expected(picture(n)).items():
            np.testing.assert_allclose(answer.outputs[name], array, rtol=1e-2, atol=5e-3)


def test_fewer_components_are_fewer_bytes(able: Chain, address: str, picture: Picture) -> None:
    sizes = {}
    with EdgeSession(able, address, plan=(1, "raw")) as session:
        for codec in ("raw", "klt:8+raw", "klt:1+raw", "klt:8+half"):
            session.use(1, codec)
            sizes[codec] = session.infer(picture(0)).payload_nbytes
            assert session.plan == (1, codec)
    assert sizes["klt:8+raw"] < 0.51 * sizes["raw"]
    assert sizes["klt:1+raw"] < 0.07 * sizes["raw"]
    assert sizes["klt:8+half"] < 0.51 * sizes["klt:8+raw"]


def test_transforming_counts_as_encoding(able: Chain, address: str, picture: Picture) -> None:
    with EdgeSession(able, address, plan=(1, "klt:8+half")) as session:
        answer = session.infer(picture(0))
    slow = able.at_speed(20.0)
    with EdgeSession(slow, address, plan=(1, "klt:8+half")) as session:
        slowly = session.infer(picture(0))
    for timings in (answer.timings, slowly.timings):
        assert timings.encode_s > 0
        assert timings.decode_s > 0
        assert min(timings.to_dict().values()) >= 0


def test_a_switch_of_transform_in_mid_stream_loses_and_repeats_nothing(
    able: Chain, address: str, picture: Picture, expected: Expected
) -> None:
    plans = [(1, "klt:16+raw"), (1, "raw"), (2, "raw"), (1, "klt:1+half"), (4, "raw")]
    with EdgeSession(able, address, plan=plans[0]) as session:
        futures = []
        for n in range(40):
            session.use(*plans[n % len(plans)])
            futures.append(session.submit(picture(n)))
            if n % 3 == 0:  # each plan in its turn; the others meet whichever is in force
                assert (futures[-1].result(30).k, futures[-1].result().codec) == plans[n % 5]
        answers = [future.result(30) for future in futures]
    for n, answer in enumerate(answers):
        assert answer.where == ("edge" if answer.k == 4 else "cloud")
        exact = answer.codec == "raw"
        for name, array in expected(picture(n)).items():
            if exact:
                np.testing.assert_array_equal(answer.outputs[name], array)


def test_the_local_fallback_answers_exactly_whatever_the_transform_drops(
    transformed: Partition, picture: Picture, expected: Expected
) -> None:
    able = Chain(transformed)
    repository = Repository()
    repository.add("small", transformed)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        address = running.enter_context(serving(repository))
        session = stack.enter_context(EdgeSession(able, str(address), plan=(1, "klt:1+half")))
        lossy = session.infer(picture(0))
        assert lossy.where == "cloud"
        running.close()
        answer = session.infer(picture(0))
    assert answer.where == "edge-after-cloud-failed"
    wanted = expected(picture(0))
    for name, array in wanted.items():
        np.testing.assert_array_equal(answer.outputs[name], array)
    assert any(not np.array_equal(lossy.outputs[name], wanted[name]) for name in wanted)


def test_a_late_cloud_is_replaced_exactly(
    transformed: Partition, serve: Serve, picture: Picture, expected: Expected
) -> None:
    with (
        serve(transformed, slowdown=2000.0) as address,
        EdgeSession(
            Chain(transformed), address, plan=(1, "klt:1+half"), timeout_s=0.05
        ) as session,
    ):
        answer = session.infer(picture(0))
    assert answer.where == "edge-after-cloud-failed"
    for name, array in expected(picture(0)).items():
        np.testing.assert_array_equal(answer.outputs[name], array)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_crosses_untransformed_and_the_answer_says_so(
    able: Chain, address: str, picture: Picture, expected: Expected, value: float
) -> None:
    broken = {"x": picture(0)["x"].copy()}
    broken["x"][0, :, 5, 5] = value
    with EdgeSession(able, address, plan=(1, "klt:1+half")) as session:
        answer = session.infer(broken)
        sound = session.infer(picture(0))
    assert (answer.where, answer.codec) == ("cloud", "half")
    for name, array in expected(broken).items():
        np.testing.assert_array_equal(answer.outputs[name], array)
    assert sound.codec == "klt:1+half"


@pytest.mark.parametrize(
    ("k", "codec", "reason"),
    [
        (1, "klt:3+half", r"must be one of klt:1, klt:16, klt:8 \(not 'klt:3'\)"),
        (2, "klt:8+half", "for it has none"),
        (4, "klt:8+half", "for it has none"),
        (1, "klt:8+shrink", "a codec must be one of"),
        (1, "klt:8", "a codec must be one of"),
        (1, "klt:8+", "a codec must be one of"),
    ],
)
def test_a_plan_of_what_is_not_there_is_refused_when_it_is_named(
    able: Chain, address: str, k: int, codec: str, reason: str, picture: Picture
) -> None:
    with EdgeSession(able, address, plan=(1, "raw")) as session:
        with pytest.raises(UsageError, match=reason):
            session.use(k, codec)
        assert session.plan == (1, "raw")
        assert session.infer(picture(0)).where == "cloud"


def test_a_damaged_transform_is_refused_when_it_is_named(
    transformed: Partition, address: str, tmp_path: Path
) -> None:
    save_partition(transformed, tmp_path)
    for path in (tmp_path / "transforms").glob("*.enc.onnx"):
        path.write_bytes(b"other")
    damaged = Chain(load_partition(tmp_path))
    with (
        EdgeSession(damaged, address, plan=(1, "raw")) as session,
        pytest.raises(ModelError, match="the encoder of klt:8"),
    ):
        session.use(1, "klt:8+half")


def _placement(cut: Cut, codec: str) -> Placement:
    return Placement(cut.id, codec, 1, cut.label, True, 0.0, 0.0, 0.0, 0.0, 0, 0, None)


def test_a_trial_holds_answers_against_what_transform_and_codec_delivered(
    able: Chain, address: str, picture: Picture
) -> None:
    cut = able.partition.cuts[1]
    contenders = [
        Contender(
            codec,
            Candidate(
                Assessment(_placement(cut, codec), cut, 0), Estimate(), 0.0, throughput_hz=1.0
            ),
        )
        for codec in ("klt:1+half", "klt:16+raw")
    ]
    inputs = [picture(n) for n in range(3)]
    with EdgeSession(able, address, plan=(1, "raw")) as session:
        lossy, exact = run_trial(
            session, contenders, inputs, requests=6, progress=lambda done, total: None
        )
    assert lossy.local == exact.local == 0
    assert lossy.max_relative_error <= 1e-5
    assert exact.max_relative_error <= 1e-5
    assert lossy.max_codec_error > 10 * exact.max_codec_error
