"""The reference networks: published shapes, the same bytes everywhere, sane activations."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import pytest

from midstream_lab.networks import (
    NETWORKS,
    build,
    calibrate,
    digits_split,
    parameter_count,
    photos,
    train_digits,
    weights,
)
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array

RANDOM = [name for name, reference in NETWORKS.items() if not reference.trained]
#: VGG-16 and AlexNet take most of the time and half a gigabyte: what holds for networks in
#: general is shown on the others.
LIGHT = [name for name in NETWORKS if name not in ("vgg16", "alexnet")]

#: Published counts, less what batch normalisations have beyond the bias they leave behind:
#: one number per normalised channel.
PARAMETERS = {
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512 - 4_800,
    "resnet50": 25_557_032 - 26_560,
    "mobilenetv2": 3_504_872 - 17_056,
    "yolo": 1_867_405,
    "vit-tiny": 5_717_416,
    "digits": 25_274,
}

OUTPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    **{name: {"logits": (1000,)} for name in RANDOM if name != "yolo"},
    "yolo": {"small": (255, 40, 40), "medium": (255, 20, 20), "large": (255, 10, 10)},
    "digits": {"logits": (10,)},
}

#: SHA-256 of the serialized model. A change here changes every stored partition and profile:
#: it must be meant.
DIGESTS = {
    "alexnet": "604f3d7fc201f6a73fee2db6532c46ec374b2a089354542ed67c6c5d758ebd66",
    "vgg16": "533b1118a2e08ad614616bb2cddf4fa429d0792d29a8208ec999a5da703625e4",
    "resnet18": "50feae37df5feaeb8d49a519316e6d166a7953e81f4c9741f7c5d7441baf5495",
    "resnet50": "adf9862df915f8e4be6de8cdbf08fb5f028b0480904279492effaf34e9aa70a8",
    "mobilenetv2": "b68a04ae6746b284459a8ce45db873da75233cd05ce43435e647c45dbe5def00",
    "yolo": "753e8ab45827bf6d4a59ea30723fb60580f644afee54695aae13b5b873fd0c99",
    "vit-tiny": "b307c5bcb03f72ce9b770e1012ab66ffb86159f48793a80685b92e624f989352",
    "digits": "a46945c793f45d909fb54b1f20d50f1d9c7a0b69c9289af73e7f99f379618d4b",
}


@dataclass(frozen=True, slots=True)
class Built:
    """What remains of a built network: VGG-16 itself is too large to be kept."""

    parameters: int
    digest: str
    skeleton: onnx.ModelProto


@cache
def built(name: str) -> Built:
    model = light(name) if name in LIGHT else build(name)
    payload = model.SerializeToString(deterministic=True)
    return Built(
        parameter_count(model), hashlib.sha256(payload).hexdigest(), _without_weights(model)
    )


@cache
def light(name: str) -> onnx.ModelProto:
    assert name in LIGHT
    return build(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_as_many_as_published(name: str) -> None:
    assert built(name).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_bytes_are_the_same_everywhere(name: str) -> None:
    assert built(name).digest == DIGESTS[name]


@pytest.mark.parametrize("name", LIGHT)
def test_building_twice_gives_the_same_bytes(name: str) -> None:
    again = build(name).SerializeToString(deterministic=True)
    assert again == light(name).SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_declared_shapes_are_those_that_onnx_infers(name: str) -> None:
    model = built(name).skeleton
    onnx.checker.check_model(model)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    declared = {value.name: _shape(value) for value in model.graph.value_info}
    # Behind a Resize, onnx no longer knows that the batch is the batch; it makes up a name.
    known = {
        value.name: tuple("batch" if isinstance(n, str) else n for n in _shape(value))
        for value in inferred.graph.value_info
    }
    assert known == declared
    made = {output for node in model.graph.node for output in node.output}
    assert made == {*declared, *(value.name for value in model.graph.output)}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_batch_is_open_and_everything_else_is_fixed(name: str) -> None:
    graph = built(name).skeleton.graph
    batch, *picture = _shape(graph.input[0])
    assert (graph.input[0].name, batch) == ("input", "batch")
    assert all(isinstance(size, int) for size in picture)
    assert {value.name: _shape(value) for value in graph.output} == {
        output: ("batch", *shape) for output, shape in OUTPUTS[name].items()
    }


@pytest.mark.parametrize("name", [name for name in LIGHT if name in RANDOM])
def test_activations_keep_their_scale_through_the_depth(name: str) -> None:
    values = _layer_outputs(light(name), count=2)
    deviations = {tensor: float(np.std(array)) for tensor, array in values.items()}
    wild = {tensor: std for tensor, std in deviations.items() if not 0.05 < std < 50}
    assert not wild


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_about_half_of_what_a_relu_sees_is_negative(name: str) -> None:
    """As behind a batch normalisation; it is what makes activations compressible."""
    values = _layer_outputs(light(name), count=2)
    inner = [array for tensor, array in values.items() if tensor.endswith(("conv1", "conv2"))]
    shares = [float(np.mean(array < 0)) for array in inner]
    assert all(0.3 < share < 0.7 for share in shares)


@pytest.mark.parametrize("name", [name for name in LIGHT if name in RANDOM])
def test_answers_are_finite_and_depend_on_the_picture(name: str) -> None:
    x = calibrate.sample_input(light(name), 6, first_seed=2000)
    outputs = Executor(light(name).SerializeToString(), threads=2).run({"input": x})
    for answer in outputs.values():
        assert np.isfinite(answer).all()
        assert len(set(answer.reshape(len(x), -1).argmax(axis=1).tolist())) >= 4


def test_a_batch_is_answered_as_its_samples_are() -> None:
    x = calibrate.sample_input(light("vit-tiny"), 2)
    executor = Executor(light("vit-tiny").SerializeToString(), threads=2)
    whole = executor.run({"input": x})["logits"]
    single = [executor.run({"input": x[i : i + 1]})["logits"] for i in range(2)]
    np.testing.assert_allclose(whole, np.concatenate(single), rtol=1e-3, atol=1e-4)


def test_calibrating_again_gives_the_committed_table() -> None:
    """All but a few values bit for bit: convolutions differ by machine in their last bits."""
    fresh, stored = calibrate.calibrate("mobilenetv2"), weights.load_table("mobilenetv2")
    assert list(fresh) == list(stored)
    same = [
        np.isclose(fresh[layer].scale, stored[layer].scale, rtol=2**-7) for layer in stored
    ]
    assert np.concatenate(same).mean() > 0.98


def test_a_normalised_layer_has_mean_zero_and_its_gain_as_deviation() -> None:
    x = calibrate.sample_input(light("mobilenetv2"), calibrate.PICTURES)
    model = _showing(light("mobilenetv2"), ["features.0/conv"])
    values = Executor(model, threads=2).run({"input": x}, ["features.0/conv"])
    channels = values["features.0/conv"]
    np.testing.assert_allclose(channels.mean(axis=(0, 2, 3)), 0, atol=0.02)
    np.testing.assert_allclose(channels.std(axis=(0, 2, 3)), 1, atol=0.02)


def test_norms_keep_eight_bits_and_survive_a_file() -> None:
    norm = weights.rounded_norm(np.array([1 / 3, 1000.1]), np.array([-0.7, 0.0]))
    assert not np.any(norm.scale.view(np.uint32) & 0xFFFF)
    np.testing.assert_allclose(norm.scale, [1 / 3, 1000.1], rtol=2**-8)
    assert weights.table_bytes({"a": norm}) == weights.table_bytes({"a": norm})


def test_weights_depend_on_their_name_and_shape_alone() -> None:
    drawn = weights.uniform("network/layer.weight", (3, 5), 2.0)
    assert np.array_equal(drawn, weights.uniform("network/layer.weight", (3, 5), 2.0))
    assert not np.array_equal(drawn, weights.uniform("network/other.weight", (3, 5), 2.0))
    many = weights.uniform("many", (700, 1000), 2.0)
    assert np.abs(many).max() < 2
    assert many.std() == pytest.approx(2 / np.sqrt(3), rel=0.01)
    assert len(np.unique(many[:1].round(3))) > 500


def test_an_unknown_name_is_refused_with_the_closest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'resnet50'"):
        build("resnet5O")
    with pytest.raises(UsageError, match=r"one of alexnet, vgg16, .* \(not 'zzz'\)$"):
        build("zzz")


@pytest.mark.parametrize("name", NETWORKS)
def test_random_weights_are_said_to_be_random(name: str) -> None:
    reference = NETWORKS[name]
    assert reference.name == name
    assert reference.trained != ("random" in reference.note)


def test_photos_differ_by_seed_and_only_by_seed() -> None:
    pictures = photos(2, 32, 48)
    assert pictures.shape == (2, 32, 48, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures, photos(2, 32, 48))
    assert not np.array_equal(*pictures)
    assert np.array_equal(pictures[1], photos(1, 32, 48, first_seed=1)[0])


def test_the_digits_network_names_98_percent_of_the_held_out_third() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    images, labels = digits_split()
    assert len(images) == pytest.approx(1797 / 3, abs=10)
    scaled = images * np.float32(NETWORKS["digits"].feed.scale)
    logits = Executor(light("digits").SerializeToString()).run({"input": scaled})["logits"]
    assert np.mean(logits.argmax(axis=1) == labels) >= 0.98


def test_no_digit_is_both_trained_on_and_held_out() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    held_out, held_out_labels = digits_split()
    trained_on, _ = digits_split(held_out=False)
    assert len(held_out) + len(trained_on) == 1797
    assert not {x.tobytes() for x in held_out} & {x.tobytes() for x in trained_on}
    assert np.bincount(held_out_labels).min() >= 57


def test_training_learns() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    values = train_digits.train(epochs=2)
    assert {name: value.shape for name, value in values.items()} == {
        tensor.name: tuple(tensor.dims)
        for tensor in light("digits").graph.initializer
    }  # fmt: skip
    assert train_digits.accuracy(values, *digits_split()) > 0.5


def _layer_outputs(model: onnx.ModelProto, *, count: int) -> dict[str, Array]:
    """What every convolution and matrix product makes of `count` pictures, by name."""
    made = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    x = calibrate.sample_input(model, count, first_seed=1000)
    return Executor(_showing(model, made), threads=2).run({"input": x}, made)


def _showing(model: onnx.ModelProto, tensors: list[str]) -> bytes:
    """`model` with `tensors` among its outputs."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    have = {value.name for value in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in have)
    return shown.SerializeToString()


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with its parameters as inputs of their shape; an operator's constants stay."""
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) < 8:
            graph.initializer.append(tensor)
        else:
            value = onnx.helper.make_tensor_value_info(
                tensor.name, tensor.data_type, tensor.dims
            )
            graph.input.append(value)
    return skeleton


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_param or dim.dim_value for dim in dims)
