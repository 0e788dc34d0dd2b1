"""A better partition is made on both sides and gone over to, when it is worth it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from tests.clock import Clock

from midstream_cloud.repository import Repository
from midstream_cloud.server import serving
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.repartition.prepare import Fresh, prepare
from midstream_edge.repartition.repartitioner import Believed, Repartitioner, Sides
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.costs.calibration import Calibration, Fidelity
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import CodecCost, Profile, Stat
from midstream_partitioner.costs.size_spans import Spans
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.background import Prepared
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.recut import network_of, recut
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.planning.replan import EVERY_S, HOLD_S
from midstream_wire.errors import CloudRefused, TensorError
from midstream_wire.tensors import Array

pytestmark = pytest.mark.usefixtures("steady_link")

NARROW = """
net (float[1, 3, 64, 64] x) => (float[1, 64, 1, 1] y) {
  a = Conv <strides = [4, 4], pads = [1, 1, 1, 1]> (x, w1)
  b = Relu(a)
  c = Conv <pads = [1, 1, 1, 1]> (b, w2)
  d = Relu(c)
  e = Conv <pads = [1, 1, 1, 1]> (d, w3)
  f = Relu(e)
  y = GlobalAveragePool(f)
}"""
SLOW_LINK = Link(8e6, 8e6, 0.02)
DEVICE = Device("test", 1, 1.0, "test", 1 << 30, 1.0, 1.0, 1.0, 1.0)


def squares(side: int) -> Sizes:
    return ("height", side), ("width", side)


SIDES_64 = squares(64)


@pytest.fixture(scope="module")
def network() -> Network:
    """A little arithmetic before the narrow place behind b, and much of it afterwards."""
    return narrow(NARROW)


def narrow(text: str, sizes: Spans = ()) -> Network:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>{text}')
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (64, 8, 3, 3), "w3": (64, 64, 3, 3)}
    for name, shape in shapes.items():
        array = rng.normal(0, 0.1, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return load_network(model.SerializeToString(), name="narrow", sizes=sizes)


@pytest.fixture(scope="module")
def wrong(network: Network) -> Partition:
    """Cut at the widest place."""
    return partition(network, position_cuts(network.graph)[4:5])


@pytest.fixture(scope="module")
def sample() -> dict[str, Array]:
    x = np.random.default_rng(1).standard_normal((1, 3, 64, 64))
    return {"x": x.astype(np.float32)}


def profile(part: Partition, scale: float) -> Profile:
    """Ten milliseconds for the whole network, times `scale`, nearly all in the last part."""
    return Profile(
        device=DEVICE,
        graph_digest=part.graph_digest,
        partition_digest=part.digest,
        segments=tuple(Stat(s, s, s, 1) for s in (0.001 * scale, 0.009 * scale)),
        codecs=(CodecCost("cloud-only", "half", 24_600, 1e-4, 1e-4),),
        replies_nbytes=(256, 256, 0),
    )


def inside(part: Partition, heads: tuple[tuple[int, ...], ...], **how: object) -> Fresh:
    """Makes it here and at once."""
    return Fresh(Chain(recut(part, heads)))


def repartitioner_of(
    wrong: Partition,
    network: Network,
    sample: dict[str, Array],
    clock: Clock,
    **others: object,
) -> tuple[Repartitioner, list[Sides]]:
    made: list[Sides] = []
    fields: dict[str, object] = {
        "base": wrong,
        "graph": network.graph,
        "graph_at": network.at,
        "model": "narrow",
        "endpoint": None,
        "sample": sample,
        "believed": lambda: Believed(SLOW_LINK),
        "adopt": made.append,
        "prepare": inside,
        "clock": clock,
    }
    now = others.pop("now", None) or Sides(Chain(wrong), profile(wrong, 10), profile(wrong, 1))
    return Repartitioner(now, **fields | others), made  # type: ignore[arg-type]


def test_it_waits_until_the_promise_has_held_and_goes_over_once(
    wrong: Partition, network: Network, sample: dict[str, Array]
) -> None:
    clock = Clock()
    repartitioner, made = repartitioner_of(wrong, network, sample, clock)
    while clock.now_s < HOLD_S:
        assert not repartitioner.look()
        clock.now_s += 2.0
    assert repartitioner.look()
    while clock.now_s < HOLD_S + 3 * EVERY_S:
        clock.now_s += 2.0
        assert not repartitioner.look()  # the new one is right
    assert len(made) == repartitioner.repartitions == 1
    assert "b" in [cut.tensors[0] for cut in made[0].partition.cuts[1:-1]]


def test_cuts_are_judged_at_the_sizes_that_requests_have() -> None:
    """The wide cut is wrong at the profile's 64 x 64, and no matter at 8 x 8."""
    network = narrow(NARROW.replace("1, 3, 64, 64", "1, 3, height, width"), SIDES_64)
    wrong = partition(network, position_cuts(network.graph)[4:5])
    asked: list[Sizes] = []

    def graph_at(sizes: Sizes) -> Graph:
        asked.append(sizes)
        return network.at(sizes)

    def repartitioned(*sides: int, graph_at: Callable[[Sizes], Graph] = graph_at) -> int:
        """Repartitions where requests have these sides, look by look."""
        clock, looks = Clock(), iter([*sides, sides[-1]])
        now = Sides(
            Chain(wrong),
            *(replace(profile(wrong, x), sizes=SIDES_64) for x in (10, 1)),
        )
        repartitioner, _ = repartitioner_of(
            wrong,
            network,
            {"x": np.zeros((1, 3, 64, 64), np.float32)},
            clock,
            now=now,
            graph_at=graph_at,
            believed=lambda: Believed(SLOW_LINK, sizes=squares(next(looks))),
        )
        for _ in (*sides, None):
            repartitioner.look()
            clock.now_s += HOLD_S
        return repartitioner.repartitions

    assert repartitioned(64) == 1
    asked.clear()
    assert repartitioned(8) == 0
    assert asked == [squares(8)]  # one graph for both looks
    asked.clear()
    assert repartitioned(*range(8, 17)) == 0
    assert len(asked) == 5  # a quarter of an octave shares one


def test_a_partition_gives_its_networks_graph_at_other_sizes() -> None:
    """Nodes keep their indices, so that cuts chosen on it are those of the partition."""
    network = narrow(NARROW.replace("1, 3, 64, 64", "1, 3, height, width"), SIDES_64)
    part = partition(network, position_cuts(network.graph)[4:5])
    graph = network_of(part).at(squares(32))
    assert [(n.name, n.index) for n in graph.nodes] == [
        (n.name, n.index) for n in network.graph.nodes
    ]
    assert 4 * graph.tensors["b"].nbytes == network.graph.tensors["b"].nbytes


def test_sizes_that_the_network_cannot_have_are_judged_as_the_profiles(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = narrow(NARROW.replace("1, 3, 64, 64", "1, 3, height, width"), SIDES_64)
    wrong = partition(network, position_cuts(network.graph)[4:5])

    def none(sizes: Sizes) -> Graph:
        raise TensorError("no such sizes")

    now = Sides(Chain(wrong), *(replace(profile(wrong, x), sizes=SIDES_64) for x in (10, 1)))
    clock = Clock()
    repartitioner, made = repartitioner_of(
        wrong,
        network,
        {"x": np.zeros((1, 3, 64, 64), np.float32)},
        clock,
        now=now,
        graph_at=none,
        believed=lambda: Believed(SLOW_LINK, sizes=squares(7)),
    )
    repartitioner.look()
    clock.now_s = HOLD_S
    assert repartitioner.look()
    assert len(made) == 1
    assert caplog.text.count("height=7, width=7") == 1


def test_what_is_expected_of_the_new_partition_can_be_planned_with(
    wrong: Partition, network: Network, sample: dict[str, Array]
) -> None:
    clock = Clock()
    repartitioner, made = repartitioner_of(wrong, network, sample, clock)
    repartitioner.look()
    clock.now_s = HOLD_S
    assert repartitioner.look()
    sides = made[0]
    plan = Planner(sides.partition, sides.edge, sides.cloud).plan(SLOW_LINK)
    assert 0 < plan.chosen.k < len(sides.partition.segments)
    old = sum(stat.median_s for stat in profile(wrong, 10).segments)
    assert sides.edge.segments_s(0, len(sides.edge.segments)) == pytest.approx(old)


def test_what_a_calibration_rules_out_stays_out_and_new_cuts_allow_what_loses_nothing(
    wrong: Partition, network: Network, sample: dict[str, Array]
) -> None:
    """Half precision fails the budget at the one cut that both partitions have."""
    rows = tuple(
        Fidelity("cloud-only", codec, 24_600, 24_600, 16.0, 0.1, 0.1, 1.0, share, 0.9, 0.0)
        for codec, share in (("raw", 1.0), ("half", 0.5))
    )
    digests = wrong.graph_digest, wrong.digest
    found = Calibration(*digests, "data", False, 400, "top-1", 0.9, rows)
    calibrated, clock = replace(wrong, calibration=found), Clock()
    repartitioner, made = repartitioner_of(calibrated, network, sample, clock)
    repartitioner.look()
    clock.now_s = HOLD_S
    assert repartitioner.look()
    (new,) = made
    assert new.partition.calibration is not None
    assert new.partition.calibration.partition_digest == new.partition.digest
    for limits in (Constraints(), Constraints(max_loss=5.0)):
        planner = Planner(new.partition, new.edge, new.cloud, constraints=limits)
        allowed = {placement.codec for placement in planner.allowed if placement.remote}
        assert allowed == {"raw", "lossless"}


def test_what_cannot_be_made_leaves_the_session_alone_and_is_tried_again_much_later(
    wrong: Partition, network: Network, sample: dict[str, Array]
) -> None:
    clock = Clock()
    asked: list[float] = []

    def refuse(*_: object, **__: object) -> Fresh:
        asked.append(clock.now_s)
        raise CloudRefused(9, "not here")

    repartitioner, made = repartitioner_of(wrong, network, sample, clock, prepare=refuse)
    while clock.now_s < 2 * EVERY_S + HOLD_S:
        assert not repartitioner.look()
        clock.now_s += 1.0
    assert not made
    assert asked == [HOLD_S, HOLD_S + EVERY_S]


def test_where_nothing_is_believed_of_the_link_nothing_is_made(
    wrong: Partition, network: Network, sample: dict[str, Array]
) -> None:
    clock = Clock()
    repartitioner, made = repartitioner_of(
        wrong, network, sample, clock, believed=lambda: None
    )
    for clock.now_s in range(0, 200, 5):
        assert not repartitioner.look()
    assert not made


@pytest.fixture
def willing(wrong: Partition) -> Iterator[str]:
    made = Repository(repartition=1, cut=lambda part, heads: Prepared(recut(part, heads)))
    made.add("narrow", wrong)
    with serving(made) as address:
        yield str(address)


def test_both_sides_make_it_and_the_session_goes_over_under_load(
    wrong: Partition, network: Network, sample: dict[str, Array], willing: str
) -> None:
    """Through the real protocol and the real child process, with requests all the while."""
    endpoint, clock = Endpoint.of(willing), Clock()
    chain = Chain(wrong)
    expected = chain.run(sample, 0, chain.last)["y"]
    with EdgeSession(chain, endpoint, plan=(1, "raw"), model="narrow") as session:

        def adopt(sides: Sides) -> None:
            session.swap(sides.chain, plan=(1, "raw"))

        repartitioner, _ = repartitioner_of(
            wrong, network, sample, clock, adopt=adopt, endpoint=endpoint, prepare=prepare
        )
        repartitioner.look()
        clock.now_s = HOLD_S
        with ThreadPoolExecutor(1) as pool:
            repartitioned = pool.submit(repartitioner.look)
            answers = [session.infer(sample)]
            while not repartitioned.done():
                answers.append(session.infer(sample))
            assert repartitioned.result()
        answers += [session.infer(sample) for _ in range(5)]
        assert session.chain.partition.digest != wrong.digest
    assert {answer.where for answer in answers} == {"cloud"}
    for answer in answers:
        np.testing.assert_allclose(answer.outputs["y"], expected, rtol=1e-5)


def test_a_server_that_was_restarted_is_asked_again_and_used_again(
    wrong: Partition, network: Network, sample: dict[str, Array]
) -> None:
    clock = Clock()

    def fresh_repository() -> Repository:
        made = Repository(repartition=1, cut=lambda part, heads: Prepared(recut(part, heads)))
        made.add("narrow", wrong)
        return made

    with serving(fresh_repository()) as address:
        endpoint = Endpoint.of(str(address))
        session = EdgeSession(Chain(wrong), endpoint, plan=(1, "raw"), model="narrow")
        repartitioner, _ = repartitioner_of(
            wrong,
            network,
            sample,
            clock,
            adopt=lambda sides: session.swap(sides.chain, plan=(1, "raw")),
            stranded=lambda: session.stranded,
            endpoint=endpoint,
            prepare=prepare,
        )
        repartitioner.look()
        clock.now_s = HOLD_S
        assert repartitioner.look()
        assert session.infer(sample).where == "cloud"
        assert not session.stranded
    repository = fresh_repository()
    with session, serving(repository, str(address)):
        until_s = time.monotonic() + 30.0
        while not session.stranded:
            session.wait_connected(0.05)
            assert time.monotonic() < until_s
        assert session.infer(sample).where == "edge-after-cloud-failed"
        repartitioner.look()
        assert repository.wait(30.0)
        assert session.wait_connected(30.0)
        assert session.infer(sample).where == "cloud"


def test_a_server_that_may_not_cut_anew_says_so_before_anything_is_made_here(
    wrong: Partition,
) -> None:
    repository = Repository()
    repository.add("narrow", wrong)
    with (
        serving(repository) as address,
        pytest.raises(CloudRefused, match="--repartition"),
    ):
        prepare(
            wrong,
            [(0, 2)],
            like=Chain(wrong),
            endpoint=Endpoint.of(str(address)),
            model="narrow",
        )


def test_an_edge_that_holds_a_prefix_holds_no_more_weights_of_the_new_partition(
    wrong: Partition,
) -> None:
    like = Chain(wrong, last=1)
    fresh = prepare(wrong, [(0, 2), (0, 5)], like=like, endpoint=None, model="narrow")
    part = fresh.chain.partition
    assert fresh.chain.last == 1
    assert part.weight_nbytes(0, 1) <= wrong.weight_nbytes(0, 1) < part.weight_nbytes(0, 2)
