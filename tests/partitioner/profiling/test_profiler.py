"""Profiles: layers under the user's names, segments as they run, and both as documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.profile import LayerProfile, Profile, Stat
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.profiling.profiler import profile_layers, profile_segments
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array
from midstream_wire.transfers import encode_output

MakeNetwork = Callable[..., Network]

DEVICE = Device("a bench", threads=1)


@pytest.fixture(scope="module")
def convnet(make_network: MakeNetwork) -> Network:
    """A residual block: convolutions that fuse with what follows them."""
    rng = np.random.default_rng(0)
    weights = {
        f"k{n}": (rng.standard_normal((16, 16, 3, 3)) / 12).astype(np.float32) for n in (1, 2)
    } | {"w": rng.standard_normal((16, 10)).astype(np.float32)}
    return make_network(
        """net (float[n, 16, 32, 32] x) => (float[n, 10] y) {
        [stem] a = Conv <pads = [1, 1, 1, 1]> (x, k1)
        [act] b = Relu(a)
        [body] c = Conv <pads = [1, 1, 1, 1]> (b, k2)
        [join] d = Add(c, x)
        [out] e = Relu(d)
        [same] s = Identity(e)
        [pool] p = GlobalAveragePool(s)
        [flat] f = Flatten(p)
        [head] y = MatMul(f, w) }""",
        weights,
    )


@pytest.fixture(scope="module")
def picture() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((1, 16, 32, 32)).astype(np.float32)}


@pytest.fixture(scope="module")
def layers(convnet: Network, picture: dict[str, Array]) -> LayerProfile:
    return profile_layers(convnet, picture, DEVICE, runs=8)


@pytest.fixture(scope="module")
def part(convnet: Network) -> Partition:
    cuts = position_cuts(convnet.graph)
    return partition(convnet, [cuts[2], cuts[5]])


@pytest.fixture(scope="module")
def segments(part: Partition, picture: dict[str, Array]) -> Profile:
    return profile_segments(Chain(part), [picture], DEVICE, runs=6)


def test_layers_carry_the_names_of_the_user(layers: LayerProfile) -> None:
    assert [layer.name for layer in layers.layers] == [
        "stem", "act", "body", "join", "out", "same", "pool", "flat", "head",
    ]  # fmt: skip
    assert layers.layers[0].op_type == "Conv"


def test_medians_of_layers_add_up_to_the_whole(layers: LayerProfile) -> None:
    assert sum(layers.seconds) == pytest.approx(layers.whole.median_s, rel=1e-6)
    assert layers.whole.runs == 8


def test_a_fused_layer_says_into_which_and_has_no_time_of_its_own(
    layers: LayerProfile,
) -> None:
    by_name = {layer.name: layer for layer in layers.layers}
    assert by_name["act"].fused_into == "stem"
    assert by_name["act"].time.median_s == 0.0
    assert by_name["stem"].fused_into is None
    assert by_name["stem"].time.median_s > 0.0
    assert by_name["body"].time.median_s > 0.0
    named = {layer.fused_into for layer in layers.layers} - {None}
    assert named <= by_name.keys()


def test_convolutions_take_most_of_a_convnet(layers: LayerProfile) -> None:
    times = {layer.name: layer.time.median_s for layer in layers.layers}
    assert times["stem"] + times["body"] > 0.5 * layers.whole.median_s


def test_payloads_are_sized_over_every_sample(part: Partition) -> None:
    """What is timed are the first four; zeros, which pack well, come after them."""
    rng = np.random.default_rng(1)
    noise = [{"x": rng.standard_normal((1, 16, 32, 32)).astype(np.float32)} for _ in range(4)]
    zeros = [{"x": np.zeros((1, 16, 32, 32), np.float32)} for _ in range(4)]
    chain = Chain(part)

    def sizes(samples: list[dict[str, Array]]) -> dict[str, int]:
        profile = profile_segments(chain, samples, DEVICE, runs=2, codecs=["raw", "lossless"])
        return {c.codec: c.payload_nbytes for c in profile.codecs if c.cut == part.cuts[0].id}

    of_noise, of_zeros, of_all = sizes(noise), sizes(zeros), sizes([*noise, *zeros])
    assert of_noise["raw"] == of_zeros["raw"] == of_all["raw"]
    mean_nbytes = (of_noise["lossless"] + of_zeros["lossless"]) / 2
    assert of_all["lossless"] == pytest.approx(mean_nbytes, abs=1)
    assert of_noise["lossless"] > 1.5 * of_zeros["lossless"]


def test_layers_of_a_slowed_device_are_slower_and_say_so(
    convnet: Network, picture: dict[str, Array], layers: LayerProfile
) -> None:
    slow = Device("a bench", threads=1, slowdown=100.0)
    profile = profile_layers(convnet, picture, slow, runs=4)
    assert profile.whole.median_s > 10 * layers.whole.median_s
    assert sum(profile.seconds) == pytest.approx(profile.whole.median_s, rel=1e-6)
    assert "emulated" in profile.device.label()


def test_progress_ends_at_its_total(convnet: Network, picture: dict[str, Array]) -> None:
    steps: list[tuple[int, int]] = []
    profile_layers(convnet, picture, DEVICE, runs=3, progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_segments_are_timed_one_by_one(part: Partition, segments: Profile) -> None:
    assert segments.partition_digest == part.digest
    assert segments.graph_digest == part.graph_digest
    assert len(segments.segments) == 3
    assert all(0 < s.low_s <= s.median_s <= s.high_s for s in segments.segments)
    assert segments.segments_s(0, 3) == pytest.approx(
        sum(s.median_s for s in segments.segments)
    )
    assert segments.segments_s(1, 1) == 0.0


def test_every_codec_is_costed_at_every_cut_it_takes(
    part: Partition, segments: Profile
) -> None:
    cuts = [cut.id for cut in part.cuts]
    floats = {"raw", "lossless", "half", "int8", "int8c"}
    taken = {(cost.cut, cost.codec) for cost in segments.codecs}
    assert taken == {(cut, codec) for cut in cuts[:-1] for codec in floats}
    sizes = {(cost.cut, cost.codec): cost.payload_nbytes for cost in segments.codecs}
    for cut in part.cuts[:-1]:
        assert cut.nbytes < sizes[cut.id, "raw"] < cut.nbytes + 500
        assert sizes[cut.id, "int8"] < 0.5 * sizes[cut.id, "raw"]
    sent = sum(map(len, encode_output(np.zeros((1, 10), np.float32))))
    assert segments.replies_nbytes == (sent, sent, sent, 0)
    assert segments.crossings_nbytes == tuple(cut.nbytes for cut in part.cuts)


def test_a_prefix_is_profiled_as_far_as_it_goes(
    part: Partition, picture: dict[str, Array]
) -> None:
    profile = profile_segments(Chain(part, last=1), [picture], DEVICE, runs=2, codecs=["raw"])
    assert len(profile.segments) == 1
    assert [cost.cut for cost in profile.codecs] == [cut.id for cut in part.cuts[:2]]


def test_a_chain_that_waits_is_profiled_at_full_speed_and_scaled(
    part: Partition, picture: dict[str, Array], segments: Profile
) -> None:
    """Otherwise its slowdown would count twice."""
    slow = Device("a bench", threads=1, slowdown=50.0)
    chain = Chain(part, slowdown=50.0)
    profile = profile_segments(chain, [picture], slow, runs=4, codecs=["raw"])
    ratio = profile.segments_s(0, 3) / segments.segments_s(0, 3)
    assert 15 < ratio < 150
    assert chain.slowdown == 50.0
    assert profile.device.emulated


def test_profiles_come_back_from_json_as_they_were(
    layers: LayerProfile, segments: Profile
) -> None:
    assert Profile.from_json(segments.to_json()) == segments
    assert LayerProfile.from_json(layers.to_json()) == layers


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("segments", 0, "median_s"), -1.0, "segments.0.median_s"),
        (("segments", 1, "runs"), "many", "segments.1.runs"),
        (("codecs", 0, "payload_nbytes"), 1.5, "codecs.0.payload_nbytes"),
        (("replies_nbytes",), None, "replies_nbytes"),
        (("kind",), "layers", "kind"),
        (("extra",), 1, "extra"),
        (("device", "threads"), 0, "threads"),
        (("device", "threads"), "two", "device.threads"),
        (("device", "slowdown"), 0.5, "slowdown"),
    ],
)
def test_a_damaged_profile_names_the_field(
    path: tuple[Any, ...], value: object, field: str, segments: Profile
) -> None:
    document = json.loads(segments.to_json())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UsageError, match=field):
        Profile.from_json(json.dumps(document), source="edge.json")


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"segments": [1e999]}'])
def test_what_is_no_profile_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"edge\.json must be a profile"):
        Profile.from_json(text, source="edge.json")


def test_a_stat_is_the_median_between_its_deciles() -> None:
    stat = Stat.of([float(n) for n in range(11)])
    assert (stat.low_s, stat.median_s, stat.high_s, stat.runs) == (1.0, 5.0, 9.0, 11)
