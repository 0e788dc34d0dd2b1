"""What feeds a network: its description, its preprocessing as nodes, its inputs from files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from midstream_partitioner.inputs import samples
from midstream_partitioner.inputs.feed import Feed, guess_feed
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.intake.preprocess import prepend
from midstream_wire.errors import UsageError
from midstream_wire.tensors import TensorSpec

PICTURE = TensorSpec("image", "uint8", ("batch", 6, 8, 3))
IMAGENET = Feed(
    kind="image", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


def network(
    shape: Sequence[int | str],
    *,
    name: str = "x",
    dtype: int = TensorProto.FLOAT,
    opset: int = 17,
    nodes: Sequence[onnx.NodeProto] = (),
) -> onnx.ModelProto:
    """y = x unless `nodes` say otherwise."""
    value = helper.make_tensor_value_info(name, dtype, shape)
    output = helper.make_tensor_value_info("y", dtype, [f"y{i}" for i in range(len(shape))])
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Identity", [name], ["y"], name="net")],
        "g",
        [value],
        [output],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def outputs(model: onnx.ModelProto, **inputs: np.ndarray[Any, Any]) -> Any:
    onnx.checker.check_model(model)
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def input_names(model: onnx.ModelProto) -> list[str]:
    return [value.name for value in model.graph.input]


def expected(feed: Feed, picture: np.ndarray[Any, Any]) -> Any:
    x = picture.astype(np.float32)
    x = x[..., ::-1] if feed.color == "BGR" else x
    x = x.transpose(0, 3, 1, 2) if feed.layout == "NCHW" else x
    shape = (-1, 1, 1) if feed.layout == "NCHW" else (-1,)
    x = x * np.float32(feed.scale)
    if feed.mean:
        x = x - np.array(feed.mean, np.float32).reshape(shape)
    if feed.std:
        x = x / np.array(feed.std, np.float32).reshape(shape)
    return x


def picture_of(seed: int = 0, channels: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (1, 6, 8, channels)).astype(np.uint8)


class TestDescription:
    def test_a_toml_file_is_read_with_fractions_and_labels_beside_it(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "names.txt").write_text("cat\ndog\n")
        (tmp_path / "net.toml").write_text(
            'kind = "image"\nscale = "1/255"\nmean = [0.5, 0.25, 0]\nstd = 2\n'
            'resize = "crop"\ncolor = "BGR"\nlabels = "names.txt"\n'
        )
        feed = Feed.find(tmp_path / "net.onnx")
        assert feed == Feed(
            kind="image", scale=1 / 255, mean=(0.5, 0.25, 0.0), std=(2.0,), resize="crop",
            color="BGR", labels=("cat", "dog"),
        )  # fmt: skip

    def test_no_file_beside_the_model_is_no_feed(self, tmp_path: Path) -> None:
        assert Feed.find(tmp_path / "net.onnx") is None

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ('kind = "video"', 'kind must be "image" or "array" \\(not \'video\'\\)'),
            ("layout = 3", 'layout must be "NCHW" or "NHWC"'),
            ('colour = "RGB"', "no field 'colour': did you mean 'color'"),
            ("nonsense = 1", "no field 'nonsense': known: input, kind"),
            ("height = 2.5", "height must be a whole number"),
            ("width = 0", "width must be from 1"),
            ('scale = "1/zero"', "scale must be a number or a fraction"),
            ('scale = "1/0"', "scale must be a number or a fraction"),
            ("scale = 0", "must not be zero"),
            ("std = [1, 0, 1]", "must not be zero"),
            ("mean = [nan]", "finite"),
            ("labels = [1]", "labels must be a list of strings"),
            ('labels = "none.txt"', "a list of labels must be a readable file"),
            ("kind = ", "readable TOML"),
        ],
    )
    def test_a_fault_is_named_with_its_file_and_field(
        self, tmp_path: Path, text: str, sentence: str
    ) -> None:
        path = tmp_path / "feed.toml"
        path.write_text(text)
        with pytest.raises(UsageError, match=sentence) as caught:
            Feed.load(path)
        assert str(path) in str(caught.value)

    def test_a_missing_file_is_said_to_be_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such file"):
            Feed.load(tmp_path / "feed.toml")

    @given(
        st.builds(
            Feed,
            input=st.text(max_size=5),
            kind=st.sampled_from(["image", "array"]),
            layout=st.sampled_from(["NCHW", "NHWC"]),
            height=st.none() | st.integers(1, 4096),
            scale=st.floats(1e-3, 1e3),
            mean=st.lists(st.floats(-9, 9), max_size=3).map(tuple),
            labels=st.lists(st.text(max_size=3), max_size=3).map(tuple),
        )
    )
    def test_a_feed_survives_its_dict(self, feed: Feed) -> None:
        assert Feed.from_dict(feed.to_dict()) == feed

    def test_a_guess_claims_nothing_but_the_layout(self) -> None:
        assert guess_feed(TensorSpec("x", "float32", ("n", 3, 224, 224))) == Feed(input="x")
        assert guess_feed(TensorSpec("x", "float32", (1, 224, 224, 3))).layout == "NHWC"
        assert not guess_feed(TensorSpec("x", "float32", (1, 10))).changes_values


class TestPreprocessing:
    @pytest.mark.parametrize("opset", [7, 13, 17, 21])
    @pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
    @pytest.mark.parametrize("color", ["RGB", "BGR"])
    def test_the_nodes_compute_what_numpy_computes_bit_for_bit(
        self, opset: int, layout: str, color: str
    ) -> None:
        shape = ("batch", 3, 6, 8) if layout == "NCHW" else ("batch", 6, 8, 3)
        feed = Feed(
            kind="image", layout=layout, color=color, scale=1 / 255,
            mean=IMAGENET.mean, std=IMAGENET.std,
        )  # fmt: skip
        model = prepend(network(shape, opset=opset), feed)
        np.testing.assert_array_equal(
            outputs(model, image=picture_of()), expected(feed, picture_of())
        )

    def test_the_batch_dimension_stays_open_or_fixed(self) -> None:
        for batch in ("batch", 1, 4):
            model = prepend(network((batch, 3, 6, 8)), IMAGENET)
            dims = model.graph.input[0].type.tensor_type.shape.dim
            assert (dims[0].dim_param or dims[0].dim_value) == batch
            assert [dim.dim_value for dim in dims][1:] == [6, 8, 3]

    def test_steps_that_do_nothing_are_left_out(self) -> None:
        model = prepend(
            network((1, 3, 6, 8)),
            Feed(kind="image", scale=0.5, mean=(0.0,), std=(1.0, 1.0, 1.0)),
        )
        assert [node.name for node in model.graph.node] == [
            "preprocess/cast",
            "preprocess/transpose",
            "preprocess/mul",
            "net",
        ]

    def test_the_model_given_is_not_changed(self) -> None:
        model = network((1, 3, 6, 8))
        before = model.SerializeToString()
        prepend(model, IMAGENET)
        assert model.SerializeToString() == before

    def test_an_array_feed_without_arithmetic_leaves_the_model_alone(self) -> None:
        model = network((1, 5))
        assert prepend(model, Feed()) is model

    def test_arrays_are_scaled_with_their_input_kept(self) -> None:
        model = prepend(
            network(("n", 3), name="x"), Feed(scale=2.0, mean=(1.0, 2.0, 3.0), std=(2.0,))
        )
        x = np.array([[1, 2, 3]], np.float32)
        assert input_names(model) == ["x"]
        np.testing.assert_array_equal(
            outputs(model, x=x), np.array([[0.5, 1, 1.5]], np.float32)
        )

    @pytest.mark.parametrize("name", ["image", "preprocess/cast/output", "preprocess/cast"])
    def test_names_that_the_network_already_has_are_no_trouble(self, name: str) -> None:
        model = prepend(network((1, 3, 6, 8), name=name), IMAGENET)
        assert input_names(model) == ["image"]
        np.testing.assert_array_equal(
            outputs(model, image=picture_of()), expected(IMAGENET, picture_of())
        )

    def test_another_value_called_image_keeps_its_name(self) -> None:
        nodes = [
            helper.make_node("Abs", ["x"], ["image"], name="a"),
            helper.make_node("Neg", ["image"], ["y"], name="b"),
        ]
        model = prepend(network((1, 3, 6, 8), nodes=nodes), Feed(kind="image"))
        assert input_names(model) == ["image_2"]
        want = -np.abs(expected(Feed(), picture_of()))
        np.testing.assert_array_equal(outputs(model, image_2=picture_of()), want)

    def test_bodies_that_capture_the_input_read_the_prepared_one(self) -> None:
        def body(op_type: str) -> onnx.GraphProto:
            out = helper.make_tensor_value_info(
                f"{op_type}_out", TensorProto.FLOAT, list("nchw")
            )
            node = helper.make_node(op_type, ["image"], [f"{op_type}_out"])
            return helper.make_graph([node], op_type, [], [out])

        always = helper.make_tensor("t", TensorProto.BOOL, [], [True])
        nodes = [
            helper.make_node("Constant", [], ["yes"], value=always),
            helper.make_node(
                "If", ["yes"], ["y"], then_branch=body("Neg"), else_branch=body("Abs")
            ),
        ]  # fmt: skip
        model = prepend(network((1, 3, 6, 8), name="image", nodes=nodes), Feed(kind="image"))
        np.testing.assert_array_equal(
            outputs(model, image=picture_of()), -expected(Feed(), picture_of())
        )

    def test_old_models_list_initializers_as_inputs(self) -> None:
        model = network((1, 3, 6, 8), opset=7, nodes=[
            helper.make_node("Add", ["x", "w"], ["y"], name="net")
        ])  # fmt: skip
        model.ir_version = 3
        model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0]))
        model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]))
        fed = prepend(model, IMAGENET)
        assert input_names(fed)[:2] == ["image", "w"]
        want = expected(IMAGENET, picture_of()) + np.float32(1)
        np.testing.assert_array_equal(outputs(fed, image=picture_of()), want)

    def test_networks_of_half_precision_and_of_bytes_get_their_own_dtype(self) -> None:
        half = prepend(network((1, 3, 6, 8), dtype=TensorProto.FLOAT16), IMAGENET)
        want = expected(IMAGENET, picture_of()).astype(np.float16)
        np.testing.assert_array_equal(outputs(half, image=picture_of()), want)
        plain = prepend(
            network((1, 6, 8, 3), dtype=TensorProto.UINT8), Feed(kind="image", layout="NHWC")
        )
        np.testing.assert_array_equal(outputs(plain, image=picture_of()), picture_of())

    def test_grey_pictures_have_one_channel(self) -> None:
        feed = Feed(kind="image", color="GRAY", scale=1 / 16)
        model = prepend(network((1, 1, 6, 8)), feed)
        picture = picture_of(channels=1)
        np.testing.assert_array_equal(outputs(model, image=picture), expected(feed, picture))

    def test_an_open_size_is_fixed_by_the_feed(self) -> None:
        model = prepend(network(("n", 3, "h", "w")), Feed(kind="image", height=6, width=8))
        dims = model.graph.input[0].type.tensor_type.shape.dim
        assert [dim.dim_value for dim in dims][1:] == [6, 8, 3]

    @pytest.mark.parametrize(
        ("shape", "feed", "sentence"),
        [
            ((1, 6, 8, 3), IMAGENET, "check layout and color"),
            ((1, 10), IMAGENET, "4 dimensions"),
            ((1, 3, 6, 8), Feed(kind="image", height=7), "height must be the model's 6"),
            ((1, 3, 6, 8), Feed(kind="image", mean=(1.0, 2.0)), "mean must have 1 value or 3"),
            ((1, 5), Feed(mean=(1.0, 2.0)), "mean must have 1 value or 5"),
            ((1, 5), Feed(input="z"), "input must be \"x\" \\(not 'z'\\)"),
        ],
    )
    def test_a_feed_that_does_not_fit_is_refused(
        self, shape: tuple[int, ...], feed: Feed, sentence: str
    ) -> None:
        with pytest.raises(UsageError, match=sentence):
            prepend(network(shape), feed)

    def test_several_inputs_need_a_name(self) -> None:
        model = network((1, 3, 6, 8))
        model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
        with pytest.raises(UsageError, match='input = "x" or "z"'):
            prepend(model, IMAGENET)

    def test_integers_are_not_scaled(self) -> None:
        with pytest.raises(UsageError, match="floats"):
            prepend(network((1, 5), dtype=TensorProto.INT64), Feed(scale=2.0))


class TestReading:
    def test_the_same_seed_gives_the_same_random_inputs(self) -> None:
        specs = [
            PICTURE,
            TensorSpec("f", "float32", ("n", 4)),
            TensorSpec("i", "int64", (2,)),
            TensorSpec("b", "bool", ()),
            TensorSpec("h", "bfloat16", (0, 3)),
        ]
        feed = Feed(kind="image")
        first = list(read_inputs(feed, specs, None, count=2, seed=7))
        again = list(read_inputs(feed, specs, None, count=2, seed=7))
        assert len(first) == 2
        for one, other in zip(first, again, strict=True):
            for spec in specs:
                spec.check(one[spec.name])
                np.testing.assert_array_equal(one[spec.name], other[spec.name])
        assert not np.array_equal(first[0]["f"], first[1]["f"])
        assert first[0]["image"].shape == (1, 6, 8, 3)

    def test_random_pictures_compress_like_photos_and_not_like_noise(self) -> None:
        pixels = samples.random_pictures((1, 224, 224, 3), np.random.default_rng(0))[0]
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        # Photos of this size need 10 to 25 KB; white noise needs 46.
        assert 10_000 < len(buffer.getvalue()) < 25_000

    def test_pictures_of_a_folder_come_by_name_and_again(self, tmp_path: Path) -> None:
        for name, grey in (("b.png", 200), ("a.jpg", 100)):
            Image.new("RGB", (16, 12), (grey, grey, grey)).save(tmp_path / name)
        (tmp_path / "notes.txt").write_text("no picture")
        read = read_inputs(Feed(kind="image"), [PICTURE], tmp_path, count=3)
        means = [round(float(inputs["image"].mean())) for inputs in read]
        assert means == [100, 200, 100]

    def test_a_picture_is_turned_upright(self, tmp_path: Path) -> None:
        sideways = np.zeros((8, 6, 3), np.uint8)
        sideways[0] = 255
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
        Image.fromarray(sideways).save(tmp_path / "p.png", exif=exif)
        read = next(read_inputs(Feed(kind="image"), [PICTURE], tmp_path / "p.png", count=1))
        assert read["image"][0, :, -1].min() == 255
        assert read["image"][0, :, :-1].max() == 0

    @pytest.mark.parametrize(
        ("resize", "left", "top"), [("stretch", 255, 255), ("crop", 0, 255), ("pad", 255, 114)]
    )
    def test_resizing_stretches_crops_or_pads(
        self, tmp_path: Path, resize: str, left: int, top: int
    ) -> None:
        wide = np.full((6, 32, 3), 255, np.uint8)
        wide[:, :1] = 255
        wide[:, 8:24] = 0
        if resize != "crop":
            wide[:] = 255
        Image.fromarray(wide).save(tmp_path / "p.png")
        feed = Feed(kind="image", resize=resize)
        pixels = next(read_inputs(feed, [PICTURE], tmp_path / "p.png", count=1))["image"][0]
        assert pixels.shape == (6, 8, 3)
        assert pixels[3, 0, 0] == left
        assert pixels[0, 4, 0] == (0 if resize == "crop" else top)

    @pytest.mark.parametrize(
        ("shape", "feed", "size"),
        [
            (("n", 6, "w", 3), {}, (6, 24)),
            (("n", "h", 8, 3), {}, (2, 8)),
            (("n", "h", "w", 3), {"height": 12}, (12, 48)),
            (("n", "h", "w", 3), {"width": 4}, (1, 4)),
        ],
    )
    def test_proportions_are_kept_where_one_side_is_open(
        self,
        tmp_path: Path,
        shape: tuple[int | str, ...],
        feed: dict[str, Any],
        size: tuple[int, int],
    ) -> None:
        wide = np.zeros((10, 40, 3), np.uint8)
        wide[:, 20:] = 255
        Image.fromarray(wide).save(tmp_path / "p.png")
        spec, keep = (
            TensorSpec("image", "uint8", shape),
            Feed(kind="image", resize="keep", **feed),
        )
        (pixels,) = next(read_inputs(keep, [spec], tmp_path / "p.png", count=1))["image"]
        assert pixels.shape == (*size, 3)
        assert (pixels[:, 0] == 0).all()
        assert (pixels[:, -1] == 255).all()
        made_up = next(read_inputs(keep, [spec], None, count=1))["image"]
        side = next(each for each in (*shape[1:3], *feed.values()) if isinstance(each, int))
        assert made_up.shape == (1, side, side, 3)

    @pytest.mark.parametrize(
        ("shape", "sentence"),
        [
            ((1, 6, 8, 3), "one side left open"),
            ((1, "h", "w", 3), "leaves the picture's size"),
        ],
    )
    def test_proportions_need_one_side_fixed_and_one_open(
        self, tmp_path: Path, shape: tuple[int | str, ...], sentence: str
    ) -> None:
        Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
        keep, spec = Feed(kind="image", resize="keep"), TensorSpec("image", "uint8", shape)
        with pytest.raises(UsageError, match=sentence):
            next(read_inputs(keep, [spec], tmp_path / "p.png", count=1))

    def test_pictures_of_other_proportions_are_no_batch(self, tmp_path: Path) -> None:
        for name, size in (("a.png", (8, 4)), ("b.png", (4, 4))):
            Image.new("RGB", size).save(tmp_path / name)
        keep = Feed(kind="image", resize="keep")
        spec = TensorSpec("image", "uint8", (2, 4, "w", 3))
        with pytest.raises(UsageError, match="pictures of one batch must have one size"):
            next(read_inputs(keep, [spec], tmp_path, count=1))

    def test_a_grey_feed_reads_one_channel(self, tmp_path: Path) -> None:
        Image.new("RGB", (8, 6), (255, 0, 0)).save(tmp_path / "p.png")
        spec = TensorSpec("image", "uint8", (1, 6, 8, 1))
        feed = Feed(kind="image", color="GRAY")
        read = next(read_inputs(feed, [spec], tmp_path / "p.png", count=1))
        assert set(read["image"].ravel().tolist()) == {76}

    def test_an_npz_is_cut_into_samples_by_its_first_axis(self, tmp_path: Path) -> None:
        path = tmp_path / "in.npz"
        ids, mask = np.arange(12).reshape(3, 4), np.ones((3, 4), bool)
        np.savez(path, ids=ids, mask=mask)
        specs = [TensorSpec("ids", "int32", ("n", 4)), TensorSpec("mask", "bool", (4,))]
        read = list(read_inputs(Feed(), specs, path, count=4))
        assert [inputs["ids"].tolist() for inputs in read[:2]] == [
            [[0, 1, 2, 3]],
            [[4, 5, 6, 7]],
        ]
        assert read[0]["ids"].dtype == np.int32
        assert read[0]["mask"].shape == (4,)
        np.testing.assert_array_equal(read[3]["ids"], read[0]["ids"])

    def test_a_fixed_batch_takes_that_many_samples(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.arange(10.0).reshape(5, 2))
        specs = [TensorSpec("x", "float32", (2, 2))]
        read = list(read_inputs(Feed(), specs, tmp_path / "x.npy", count=2))
        assert read[1]["x"].tolist() == [[4, 5], [6, 7]]

    @pytest.mark.parametrize("key", ["images", "image", "arr_0", "whatever"])
    def test_a_single_array_needs_no_matching_key(self, tmp_path: Path, key: str) -> None:
        arrays: dict[str, Any] = {key: np.repeat(picture_of(), 2, axis=0)}
        np.savez(tmp_path / "x.npz", **arrays)
        read = list(read_inputs(Feed(kind="image"), [PICTURE], tmp_path / "x.npz", count=2))
        np.testing.assert_array_equal(read[1]["image"], picture_of())

    @pytest.mark.parametrize(
        ("array", "sentence"),
        [
            (np.zeros((2, 5), np.float32), "must be samples of float32"),
            (np.zeros((2, 4), np.complex64), "must be float32 \\(not complex64\\)"),
            (np.zeros((0, 4), np.float32), "holds none"),
            (np.array([object()]), "plain numbers"),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(
        self, tmp_path: Path, array: np.ndarray[Any, Any], sentence: str
    ) -> None:
        np.savez(tmp_path / "x.npz", x=array)
        with pytest.raises(UsageError, match=sentence):
            read_inputs(
                Feed(), [TensorSpec("x", "float32", ("n", 4))], tmp_path / "x.npz", count=1
            )

    def test_integers_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([2**40]))
        with pytest.raises(UsageError, match="too large"):
            read_inputs(Feed(), [TensorSpec("x", "int32", (1,))], tmp_path / "x.npy", count=1)

    def test_missing_keys_and_uneven_samples_are_named(self, tmp_path: Path) -> None:
        specs = [TensorSpec("a", "float32", ("n",)), TensorSpec("b", "float32", ("n",))]
        np.savez(tmp_path / "x.npz", a=np.zeros(2), c=np.zeros(2))
        with pytest.raises(UsageError, match=r"b is missing \(it holds a, c\)"):
            read_inputs(Feed(), specs, tmp_path / "x.npz", count=1)
        np.savez(tmp_path / "x.npz", a=np.zeros(2), b=np.zeros(3))
        with pytest.raises(UsageError, match="equally many samples"):
            read_inputs(Feed(), specs, tmp_path / "x.npz", count=1)

    def test_what_is_no_input_is_said_in_one_sentence(self, tmp_path: Path) -> None:
        image = Feed(kind="image")
        with pytest.raises(UsageError, match="no such file"):
            read_inputs(image, [PICTURE], tmp_path / "none.png", count=1)
        with pytest.raises(UsageError, match="holds none"):
            read_inputs(image, [PICTURE], tmp_path, count=1)
        (tmp_path / "p.png").write_bytes(b"\x89PNG no picture")
        with pytest.raises(UsageError, match=r"p\.png must be a picture"):
            next(read_inputs(image, [PICTURE], tmp_path / "p.png", count=1))
        (tmp_path / "p.npz").write_bytes(b"PK no zip")
        with pytest.raises(UsageError, match="plain numbers"):
            read_inputs(image, [PICTURE], tmp_path / "p.npz", count=1)
        spec = TensorSpec("x", "float32", (1, 3, 6, 8))
        with pytest.raises(UsageError, match='kind = "image"'):
            read_inputs(Feed(), [spec], tmp_path / "p.png", count=1)
        with pytest.raises(UsageError, match="preprocessing in front"):
            read_inputs(image, [spec], tmp_path / "p.png", count=1)

    def test_a_byte_order_mark_is_read_over(self, tmp_path: Path) -> None:
        (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
        feed = tmp_path / "f.toml"
        feed.write_bytes(b'\xef\xbb\xbfkind = "image"\r\nlabels = "l.txt"\r\n')
        assert Feed.load(feed).labels == ("cat", "dog")
        feed.write_text('kind = "image"', encoding="utf-16")
        with pytest.raises(UsageError, match="is UTF-16"):
            Feed.load(feed)

    def test_a_number_too_large_for_the_input_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([[1.0], [1e6]]))
        spec = TensorSpec("x", "float16", ("n", 1))
        with pytest.raises(UsageError, match="must fit float16"):
            read_inputs(Feed(), [spec], tmp_path / "x.npy", count=1)
        np.save(tmp_path / "x.npy", np.array([[1.0], [np.inf], [np.nan]]))
        assert len(list(read_inputs(Feed(), [spec], tmp_path / "x.npy", count=3))) == 3

    def test_an_open_size_without_a_described_one_is_refused(self) -> None:
        spec = TensorSpec("image", "uint8", (1, "h", "w", 3))
        with pytest.raises(UsageError, match="give height and width"):
            list(read_inputs(Feed(kind="image"), [spec], None, count=1))
        sized = Feed(kind="image", height=4, width=5)
        assert next(read_inputs(sized, [spec], None, count=1))["image"].shape == (1, 4, 5, 3)
