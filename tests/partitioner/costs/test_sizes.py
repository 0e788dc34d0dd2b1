"""The sizes that figures refer to: given, taken from a sample, or assumed and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.partitioner.conftest import make_model

import midstream
from midstream_partitioner.costs.size_spans import (
    MOST_BUCKETS,
    buckets,
    nominal_sizes,
    parse_sizes,
)
from midstream_partitioner.costs.sizes import (
    Binder,
    assumed_sizes,
    bind_sizes,
    check_told,
    nominal_shape,
    sentence,
)
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_wire.errors import UsageError
from midstream_wire.tensors import TensorSpec

PICTURE = TensorSpec("x", "float32", ("batch", 3, "height", "width"))
WORDS = TensorSpec("ids", "int64", ("batch", "?"))


def unet(size: str = "height, width") -> onnx.ModelProto:
    """Halves and doubles a picture: with an odd side, such as 1, it cannot run."""
    return make_model(
        f"""net (float[batch, 3, {size}] x) => (float[batch, 6, h, w] y) {{
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
            u = Resize <mode = "nearest"> (p, , s)
            y = Concat <axis = 1> (x, u) }}""",
        {"s": np.array([1, 1, 2, 2], np.float32)},
    )


def test_sizes_are_read_from_several_flags_and_lists() -> None:
    assert parse_sizes(["height=480,width=640", "x:0=2"]) == (
        ("height", 480),
        ("width", 640),
        ("x:0", 2),
    )


@pytest.mark.parametrize(
    "text", ["height", "=3", "h=", "h=-1", "h=1.5", "h=9999999999", "h=²"]
)
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="whole number"):
        parse_sizes([text])


def test_several_sizes_of_one_dimension_span_it() -> None:
    spans = parse_sizes(["height=64", "height=32", "height=64"])
    assert spans == (("height", (32, 64)),)
    assert nominal_sizes(spans) == (("height", 64),)
    assert parse_sizes(["a=1..1000", "b=100..200"]) == (
        ("a", (1, 4, 16, 64, 256, 1000)),
        ("b", (100, 200)),
    )
    assert parse_sizes(["past=0..64"]) == (("past", (0, 1, 2, 4, 8, 16, 32, 64)),)


@pytest.mark.parametrize("text", ["a=3..", "a=..3", "a=5..5", "a=9..3", "a=1..99999999999"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"a range .*8\.\.512"):
        parse_sizes([text])


def test_buckets_are_every_combination_and_few() -> None:
    assert buckets(parse_sizes(["x:1=mask:1=8..16,batch=2"])) == (
        (("batch", 2), ("mask:1", 8), ("x:1", 8)),
        (("batch", 2), ("mask:1", 16), ("x:1", 16)),
    )
    many = buckets(parse_sizes(["a=1..99999,b=1..99999,c=1..9999"]))
    assert len(many) <= MOST_BUCKETS
    assert {dict(sizes)["a"] for sizes in many} == {1, 99999}
    assert buckets(()) == ((),)


def test_a_feed_keeps_the_sizes_that_it_spans() -> None:
    feed = Feed.from_dict({"sizes": {"seq": "8..64", "batch": [2, 4], "w": 7}})
    assert feed.sizes == (("batch", 4), ("seq", 32), ("w", 7))
    assert Feed.from_dict(feed.to_dict()) == feed
    assert dict(feed.asked)["batch"] == (2, 4)


def test_open_dimensions_have_the_size_given_by_name_or_axis_or_the_one_assumed() -> None:
    assert nominal_shape(PICTURE, ()) == (1, 3, 256, 256)
    assert nominal_shape(PICTURE, (("height", 480), ("x:0", 2))) == (2, 3, 480, 256)
    assert nominal_shape(WORDS, ()) == (1, 1)
    assert nominal_shape(WORDS, (("ids:1", 128),)) == (1, 128)


def test_a_cache_of_keys_is_no_picture() -> None:
    cache = TensorSpec("past", "float32", ("batch", 3, "past", 64))
    assert nominal_shape(cache, ()) == (1, 3, 1, 64)
    lines = TensorSpec("x", "float32", ("n", 3, 48, "width"))
    assert nominal_shape(lines, ()) == (1, 3, 48, 256)


def test_a_length_that_nobody_told_is_asked_for_by_name() -> None:
    check_told([PICTURE], ())
    check_told([TensorSpec("state", "float32", (2, "batch", 128))], ())
    with pytest.raises(UsageError, match=r"costs depend on ids:1, .*--size ids:1=128"):
        check_told([WORDS], ())
    check_told([WORDS], (("ids:1", 7),))
    frames = TensorSpec("input", "float32", ("sequence_length", 576))
    with pytest.raises(UsageError, match=r"sequence_length=8\.\.512 for a range"):
        check_told([frames], (("batch", 1),))


def test_networks_are_neither_cut_nor_profiled_at_a_length_that_nobody_told() -> None:
    network = make_model("net (float[batch, seq] x) => (float[batch, seq] y) {y = Relu (x)}")
    with pytest.raises(UsageError, match="costs depend on seq"):
        midstream.partition(network)
    part = partition(load_network(network), [])
    with pytest.raises(UsageError, match="costs depend on seq"):
        midstream.profile(part)


def test_what_is_assumed_is_said_with_how_to_say_otherwise() -> None:
    assert dict(assumed_sizes([WORDS], ())) == {"batch": 1, "ids:1": 1}
    told = sentence([PICTURE], (("height", 480), ("width", 640)))
    assert told.startswith("figures are for height=480, width=640, batch=1, where batch is")
    assert "--size batch=2" in told
    assert sentence([TensorSpec("x", "float32", (1, 3, 8, 8))], ()) == ""


def test_a_sample_gives_the_sizes_of_all_open_dimensions() -> None:
    arrays = {"x": np.zeros((2, 3, 8, 16)), "ids": np.zeros((4, 7))}
    assert dict(bind_sizes([PICTURE, WORDS], arrays)) == {
        "batch": 2, "height": 8, "width": 16, "ids:0": 4, "ids:1": 7,
    }  # fmt: skip


def test_a_network_that_no_size_of_one_fits_is_cut_at_the_sizes_given(tmp_path: Path) -> None:
    network = load_network(unet(), sizes=parse_sizes(["height=32,width=48"]))
    assert network.graph.tensors["y"].nominal == (1, 6, 32, 48)
    assert network.graph.tensors["y"].shape[0] == "batch"
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3, 64, 64), np.float32))
    like = load_network(unet(), like=tmp_path / "x.npz")
    assert like.graph.tensors["p"].nominal == (1, 3, 32, 32)


def test_sizes_change_costs_and_no_digest() -> None:
    small, large = (
        load_network(unet(), sizes=parse_sizes([f"height={side},width={side}"]))
        for side in (8, 64)
    )
    assert small.graph.digest == large.graph.digest
    parts = [partition(network, ()) for network in (small, large)]
    assert parts[0].digest == parts[1].digest
    assert parts[1].cuts[0].nbytes == 64 * parts[0].cuts[0].nbytes


def test_open_pictures_are_cut_where_pictures_are() -> None:
    opened, fixed = midstream.partition(unet()), midstream.partition(unet("256, 256"))
    assert [cut.label for cut in opened.cuts] == [cut.label for cut in fixed.cuts]
    assert [cut.nbytes for cut in opened.cuts] == [cut.nbytes for cut in fixed.cuts]


def test_a_size_that_names_no_open_dimension_is_refused() -> None:
    with pytest.raises(UsageError, match=r"batch, height, width \(not 'depth'\)"):
        midstream.load(unet(), sizes={"depth": 3})


def test_a_partitions_folder_keeps_its_sizes(tmp_path: Path) -> None:
    part = midstream.partition(unet(), sizes={"height": 32, "width": 48})
    midstream.save_partition(part, tmp_path / "u.midstream")
    again = midstream.partition(tmp_path / "u.midstream")
    assert again.feed.sizes == part.feed.sizes
    assert midstream.inputs(again)[0]["x"].shape == (1, 3, 32, 48)


def test_what_an_output_shares_with_an_input_is_known_from_the_request() -> None:
    ids = TensorSpec("ids", "int64", ("batch", "length"))
    mask = TensorSpec("mask", "int64", ("batch", "length"))
    out = TensorSpec("y", "float32", ("batch", "length", 8, "?", "other"))
    binder = Binder([ids, mask])
    alike = binder.bind({"ids": np.zeros((2, 5)), "mask": np.zeros((2, 5))})
    (tied,) = binder.tie([out], alike)
    assert tied.shape == (2, 5, 8, "?", "other")
    differ = binder.bind({"ids": np.zeros((2, 5)), "mask": np.zeros((2, 6))})
    (tied,) = binder.tie([out], differ)
    assert tied.shape == (2, "length", 8, "?", "other")
