"""torch modules become ONNX models that compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the extra midstream[torch]")
from torch import nn  # noqa: E402  (after the skip)

import midstream  # noqa: E402
from midstream_partitioner.intake.onnx_model import load_network  # noqa: E402
from midstream_partitioner.intake.torch_module import from_torch  # noqa: E402
from midstream_wire.errors import ModelError, UsageError  # noqa: E402

pytestmark = pytest.mark.torch


class SmallConvNet(nn.Module):
    """[B, 3, 32, 32] -> [B, 10], with normalisation and a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.classify = nn.Linear(8, 10)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = torch.relu(x + self.branch(x))
        return self.classify(x.mean(dim=(2, 3)))


class TwoInTwoOut(nn.Module):
    """[B, 4], [B, 6] -> [B, 5], [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 5), nn.Linear(6, 5)
        self.second = nn.Linear(5, 3)

    def forward(self, left: Any, right: Any) -> Any:
        both = torch.tanh(self.left(left)) * torch.sigmoid(self.right(right))
        return both, self.second(both)


class TransformerBlock(nn.Module):
    """[B, T, 32] -> [B, T, 32]: attention and a feed-forward layer, both residual."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_feed = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: Any) -> Any:
        y = self.before_attention(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.feed(self.before_feed(x))


class BranchesOnData(nn.Module):
    """Python control flow on a value, which no export can follow."""

    def forward(self, x: Any) -> Any:
        return x if float(x.sum()) > 0 else -x


CASES: list[tuple[type[nn.Module], tuple[tuple[int, ...], ...]]] = [
    (SmallConvNet, ((1, 3, 32, 32),)),
    (TwoInTwoOut, ((1, 4), (1, 6))),
    (TransformerBlock, ((1, 7, 32),)),
]


def build(kind: type[nn.Module]) -> Any:
    """A module with seeded weights, its normalisations away from the identity."""
    torch.manual_seed(7)
    module = kind()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    return module


def random_inputs(shapes: tuple[tuple[int, ...], ...], seed: int = 3) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def onnx_outputs(
    model: onnx.ModelProto, inputs: tuple[Any, ...]
) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)}))


def torch_outputs(module: Any, inputs: tuple[Any, ...]) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad():
        outputs = module.eval()(*inputs)
    return [y.numpy() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]


@pytest.mark.parametrize(("kind", "shapes"), CASES)
def test_export_computes_what_the_module_computes(
    kind: type[nn.Module], shapes: tuple[tuple[int, ...], ...]
) -> None:
    module = build(kind)
    model = from_torch(module, random_inputs(shapes))
    inputs = random_inputs(shapes, seed=11)
    for ours, theirs in zip(
        onnx_outputs(model, inputs), torch_outputs(module, inputs), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "shapes"), CASES)
def test_dynamic_batch_takes_any_number_of_samples(
    kind: type[nn.Module], shapes: tuple[tuple[int, ...], ...]
) -> None:
    module = build(kind)
    model = from_torch(module, random_inputs(shapes), dynamic_batch=True)
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input} == {
        "batch"
    }
    for batch in (1, 3):
        inputs = random_inputs(tuple((batch, *shape[1:]) for shape in shapes))
        for ours, theirs in zip(
            onnx_outputs(model, inputs), torch_outputs(module, inputs), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "shapes"), CASES)
def test_exported_model_becomes_a_network(
    kind: type[nn.Module], shapes: tuple[tuple[int, ...], ...]
) -> None:
    model = from_torch(build(kind), random_inputs(shapes))
    network = load_network(model.SerializeToString(), name="exported")
    assert len(network.graph.inputs) == len(shapes)
    assert len(network.graph.nodes) > 1


def test_names_of_inputs_and_outputs_are_the_callers() -> None:
    model = from_torch(
        build(TwoInTwoOut),
        random_inputs(((1, 4), (1, 6))),
        input_names=["near", "far"],
        output_names=["both", "second"],
    )
    assert [value.name for value in model.graph.input] == ["near", "far"]
    assert [value.name for value in model.graph.output] == ["both", "second"]


def test_same_module_gives_the_same_bytes_without_a_trace_of_its_files() -> None:
    def export() -> bytes:
        return from_torch(
            build(SmallConvNet), random_inputs(((1, 3, 32, 32),))
        ).SerializeToString(deterministic=True)

    first = export()
    assert first == export()
    assert b".py" not in first


def test_export_leaves_the_modes_of_the_module_alone() -> None:
    module = build(SmallConvNet)
    module.train()
    module.stem.eval()
    from_torch(module, random_inputs(((1, 3, 32, 32),)))
    assert module.training
    assert module.branch.training
    assert not module.stem.training


def test_module_that_cannot_be_exported_is_named_in_one_sentence() -> None:
    with pytest.raises(ModelError, match="BranchesOnData is not") as caught:
        from_torch(BranchesOnData(), random_inputs(((2, 2),)))
    assert "\n" not in str(caught.value)


def test_example_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(UsageError, match="must be torch tensors"):
        from_torch(build(SmallConvNet), [np.zeros((1, 3, 32, 32))])


class ByName(nn.Module):
    """[B, 3, H, W], [B, 4, H, W] -> a dict of two."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Any, y: Any) -> Any:
        z = self.conv(x)
        return {"zebra": z + y, "apple": z.mean((2, 3))}


def _shapes(values: Any) -> dict[str, list[int | str]]:
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in values
    }


def test_a_bare_tensor_is_one_input_and_keeps_its_batch() -> None:
    model = from_torch(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 16, 16))
    assert list(_shapes(model.graph.input).values()) == [[1, 3, 16, 16]]


def test_arguments_by_name_open_axes_and_names_of_a_dict_of_outputs() -> None:
    sides = {2: "height", 3: "width"}
    model = from_torch(
        ByName(),
        {"x": torch.zeros(2, 3, 16, 16), "y": torch.zeros(2, 4, 16, 16)},
        dynamic_batch=True,
        dynamic_axes={"x": sides, "y": sides},
    )
    assert _shapes(model.graph.input) == {
        "x": ["batch", 3, "height", "width"],
        "y": ["batch", 4, "height", "width"],
    }
    assert [value.name for value in model.graph.output] == ["zebra", "apple"]


def test_an_exported_model_is_partitioned_as_it_is() -> None:
    part = midstream.partition(from_torch(ByName(), _pair()))
    assert [spec.name for spec in part.outputs] == ["zebra", "apple"]


def _pair() -> tuple[Any, Any]:
    return torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 8, 8)


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"q": {0: "n"}}, "must name arguments of forward, x, y"),
        ({"x": {0: "n"}}, "size of at least 2"),
        ({"x": {7: "n"}}, "size of at least 2"),
    ],
)
def test_axes_that_cannot_be_open_are_refused(axes: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        from_torch(ByName(), _pair(), dynamic_axes=axes)


def test_examples_that_forward_does_not_take_are_refused() -> None:
    with pytest.raises(UsageError, match=r"arguments of ByName.forward \(missing"):
        from_torch(ByName(), torch.zeros(1, 3, 8, 8))
