"""What feeds a network, described once: pictures or arrays, and what is done to them first.

A network is fed

    y = (x * scale - mean) / std        per channel, in float32

and that arithmetic is part of the graph: `prepend` puts it in front of the network as ONNX
nodes, so that the first place to cut is the uint8 picture itself and a picture codec is a
codec like any other. Only resizing stays outside, with whoever reads the picture
(`read_inputs`). The description is a few lines of TOML beside the model:

    kind = "image"                  # or "array"
    layout = "NCHW"                 # or "NHWC"
    resize = "crop"                 # or "stretch", "pad"
    scale = "1/255"
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
    labels = "imagenet.txt"         # one a line, or a list

docs/feeds.md has every field.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
from onnx.helper import make_node, make_tensor_value_info

from midstream_partitioner import samples
from midstream_partitioner.rewiring import fresh_name, rename_uses, value_names
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array, TensorSpec

#: Field -> the values it may have.
CHOICES: dict[str, tuple[str, ...]] = {
    "kind": ("image", "array"),
    "layout": ("NCHW", "NHWC"),
    "resize": ("stretch", "crop", "pad"),
    "color": ("RGB", "BGR", "GRAY"),
}
#: A side no picture for a network has; keeps a typing error from asking for gigabytes.
MAX_SIDE = 16_384
_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


@final
@dataclass(frozen=True, slots=True)
class Feed:
    """What feeds one input of a network. Anything malformed raises `UsageError`.

    `input` names the network's input and may be empty where there is only one. `height` and
    `width` matter where the network leaves them open; otherwise its own are taken. `mean` and
    `std` have one value, or one per channel; empty means 0 and 1.
    """

    input: str = ""
    kind: str = "array"
    layout: str = "NCHW"
    height: int | None = None
    width: int | None = None
    resize: str = "stretch"
    color: str = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, allowed in CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise UsageError(f"{field} must be {_either(allowed)} (not {value!r})")
        for field in ("height", "width"):
            side = getattr(self, field)
            if side is not None and not 1 <= side <= MAX_SIDE:
                raise UsageError(f"{field} must be from 1 to {MAX_SIDE} pixels (not {side})")
        numbers = (self.scale, *self.mean, *self.std)
        if not all(map(math.isfinite, numbers)):
            raise UsageError(f"scale, mean and std must be finite numbers (not {numbers})")
        if self.scale == 0 or 0 in self.std:
            raise UsageError("scale and std must not be zero: the input would be lost")

    @property
    def channels(self) -> int:
        """Channels of a picture: 1 for GRAY, otherwise 3."""
        return 1 if self.color == "GRAY" else 3

    @property
    def changes_values(self) -> bool:
        """Whether scale, mean or std do anything."""
        return self.scale != 1 or any(self.mean) or any(std != 1 for std in self.std)

    @staticmethod
    def load(path: str | Path) -> Feed:
        """Read a TOML file; raises `UsageError` that names the file and the field."""
        path = Path(path)
        try:
            fields = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise UsageError(f"no such file: {path} (a feed is described in TOML)") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path} must be a readable TOML file ({error})") from None
        try:
            if isinstance(fields.get("labels"), str):
                fields["labels"] = _read_labels(path.parent / fields["labels"])
            return Feed.from_dict(fields)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    @staticmethod
    def find(model_path: str | Path) -> Feed | None:
        """The feed described in `net.toml` beside `net.onnx`, or None where there is none."""
        path = Path(model_path).with_suffix(".toml")
        return Feed.load(path) if path.is_file() else None

    @staticmethod
    def from_dict(fields: Mapping[str, object]) -> Feed:
        """The inverse of `to_dict`; raises `UsageError` for unknown fields and wrong types."""
        known = [field.name for field in dataclasses.fields(Feed)]
        for field in fields:
            if field not in known:
                near = difflib.get_close_matches(field, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise UsageError(f"a feed has no field {field!r}: {hint}")
        return Feed(**{field: _coerced(field, value) for field, value in fields.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML; fields that say nothing are left out."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        said = {name: value for name, value in fields.items() if value not in ("", None, ())}
        return {f: list(each) if isinstance(each, tuple) else each for f, each in said.items()}


def guess_feed(input_spec: TensorSpec) -> Feed:
    """A feed that claims nothing: arrays as the network declares them.

    A float [N, 3, H, W] is probably a picture, but with which mean and std nobody can see, and
    a wrong guess gives wrong answers silently. Only the layout is guessed; who knows more
    writes it down.
    """
    shape = input_spec.shape
    channels_last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
    return Feed(input=input_spec.name, layout="NHWC" if channels_last else "NCHW")


def prepend(model: onnx.ModelProto, feed: Feed) -> onnx.ModelProto:
    """`model` with the preprocessing of `feed` in front, as nodes named "preprocess/...".

    For pictures the network's input becomes a uint8 [batch, H, W, channels] named "image" (a
    number is added where the network has another value of that name); arrays keep their
    input. Only float32 operators that all opsets from 7 on share. `model` itself is not
    changed, and given back where there is nothing to do. Raises `UsageError` where the feed
    does not fit the network.
    """
    value = _fed_input(model.graph, feed)
    if value is None:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    taken = value_names(graph) | {node.name for node in graph.node}
    raw, prepared = _ends(graph, feed, value.name, taken)
    steps = _Steps(taken | {raw, prepared}, current=raw)
    if feed.kind == "image":
        picture = _picture_shape(feed, value)
        _prepare_picture(steps, feed, value)
        fed = next(each for each in graph.input if each.name == value.name)
        fed.CopyFrom(make_tensor_value_info(raw, onnx.TensorProto.UINT8, picture))
    else:
        _prepare_array(steps, feed, value)
    steps.nodes[-1].output[0] = prepared
    if prepared != value.name:
        rename_uses(graph, value.name, prepared)
    network = list(graph.node)
    del graph.node[:]
    graph.node.extend([*steps.nodes, *network])
    graph.initializer.extend(steps.constants)
    if result.ir_version < 4:  # until then every initializer had to be an input, too
        graph.input.extend(
            make_tensor_value_info(each.name, each.data_type, each.dims)
            for each in steps.constants
        )
    return result


def read_inputs(
    feed: Feed,
    specs: Sequence[TensorSpec],
    source: str | Path | None,
    *,
    count: int,
    seed: int = 0,
) -> Iterator[dict[str, Array]]:
    """`count` inputs, each a dict of arrays by input name, cycling through a short source.

    `specs` are the inputs of the network with its preprocessing in front. `source` is a
    picture, a folder of pictures, an .npz (a key per input; first axis: samples), an .npy, or
    None for seeded random inputs. Open dimensions become 1. What can be checked is checked
    before the first input is asked for; raises `UsageError`.
    """
    if source is None:
        return _random_inputs(feed, specs, count=count, seed=seed)
    path = Path(source)
    if not path.exists():
        raise UsageError(f"no such file or folder: {path} (inputs are pictures, .npz or .npy)")
    if path.suffix.lower() in (".npz", ".npy"):
        return samples.read_arrays(path, specs, count=count)
    picture = _picture_of(feed, specs)
    if picture is None or len(specs) > 1:
        wanted = ", ".join(f"{spec.name}: {spec}" for spec in specs)
        raise UsageError(
            f"{path} must be an .npz or .npy, because the network takes arrays ({wanted}); "
            'for pictures describe its feed with kind = "image"'
        )
    return _picture_inputs(feed, picture, samples.list_pictures(path), count=count)


@final
@dataclass(slots=True)
class _Steps:
    """Nodes in a row, each reading what the one before gives."""

    taken: set[str]
    current: str
    nodes: list[onnx.NodeProto] = dataclasses.field(default_factory=list)
    constants: list[onnx.TensorProto] = dataclasses.field(default_factory=list)

    def add(self, op_type: str, constant: Array | None = None, **attributes: Any) -> None:
        name = fresh_name(f"preprocess/{op_type.lower()}", self.taken)
        output = fresh_name(f"{name}/output", self.taken)
        inputs = [self.current]
        if constant is not None:
            inputs.append(fresh_name(f"{name}/constant", self.taken))
            self.constants.append(onnx.numpy_helper.from_array(constant, inputs[1]))
        self.nodes.append(make_node(op_type, inputs, [output], name=name, **attributes))
        self.taken |= {name, output, *inputs}
        self.current = output

    def calculate(self, feed: Feed, channels: int | None, inner: int) -> None:
        """(x * scale - mean) / std, with `inner` dimensions after the one of channels."""
        if feed.scale != 1:
            self.add("Mul", np.array(feed.scale, np.float32))
        for op_type, field, neutral in (("Sub", "mean", 0), ("Div", "std", 1)):
            values = getattr(feed, field)
            if len(values) > 1 and channels not in (None, len(values)):
                raise UsageError(
                    f"{field} must have 1 value or {channels}, one per channel "
                    f"(not {len(values)})"
                )
            if any(each != neutral for each in values):
                shape = () if len(values) == 1 else (len(values), *(1,) * inner)
                self.add(op_type, np.array(values, np.float32).reshape(shape))


def _fed_input(graph: onnx.GraphProto, feed: Feed) -> onnx.ValueInfoProto | None:
    """The input that `feed` describes; None where there is nothing to put in front of it."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    if feed.input and feed.input not in inputs:
        raise UsageError(f"input must be {_either(tuple(inputs))} (not {feed.input!r})")
    if feed.kind == "array" and not feed.changes_values:
        return None
    if not feed.input and len(inputs) != 1:
        raise UsageError(
            "a network of several inputs needs a feed that names one: give input = "
            f"{_either(tuple(inputs))}"
        )
    return inputs[feed.input] if feed.input else next(iter(inputs.values()))


def _ends(
    graph: onnx.GraphProto, feed: Feed, name: str, taken: Container[str]
) -> tuple[str, str]:
    """Names of what is fed and of what the network then reads in place of `name`."""
    if feed.kind == "array":
        return name, fresh_name(f"{name}/prepared", taken)
    # An output keeps its name even where a network passes its input on.
    passed_on = any(output.name == name for output in graph.output)
    if name == "image" and not passed_on:
        return name, fresh_name(f"{name}/prepared", taken)
    return fresh_name("image", taken), name


def _prepare_picture(steps: _Steps, feed: Feed, value: onnx.ValueInfoProto) -> None:
    wanted = value.type.tensor_type.elem_type
    calculates = feed.changes_values or wanted != onnx.TensorProto.UINT8
    if calculates:
        steps.add("Cast", to=onnx.TensorProto.FLOAT)
    if feed.color == "BGR":
        steps.add("Gather", np.array([2, 1, 0], np.int64), axis=3)
    if feed.layout == "NCHW":
        steps.add("Transpose", perm=[0, 3, 1, 2])
    steps.calculate(feed, feed.channels, inner=2 if feed.layout == "NCHW" else 0)
    if calculates and wanted != onnx.TensorProto.FLOAT:
        steps.add("Cast", to=wanted)
    if not steps.nodes:
        steps.add("Identity")


def _prepare_array(steps: _Steps, feed: Feed, value: onnx.ValueInfoProto) -> None:
    dims, wanted = _declared_dims(value), value.type.tensor_type.elem_type
    if onnx.TensorProto.DataType.Name(wanted) not in _FLOATS:
        raise UsageError(
            f"scale, mean and std need an input of floats ({value.name!r} is none): "
            "leave them out"
        )
    if wanted != onnx.TensorProto.FLOAT:
        steps.add("Cast", to=onnx.TensorProto.FLOAT)
    axis = 1 if feed.layout == "NCHW" and len(dims) > 1 else len(dims) - 1
    channels = dims[axis] if dims else 1
    known = channels if isinstance(channels, int) else None
    steps.calculate(feed, known, inner=max(0, len(dims) - 1 - axis))
    if wanted != onnx.TensorProto.FLOAT:
        steps.add("Cast", to=wanted)


def _picture_shape(feed: Feed, value: onnx.ValueInfoProto) -> list[int | str | None]:
    """[batch, H, W, channels] as the network declares them, open sizes as the feed says."""
    dims = _declared_dims(value)
    if len(dims) != 4:
        raise UsageError(
            f"pictures need an input of 4 dimensions, {feed.layout} ({value.name!r} has "
            f'{dims}): describe it with kind = "array"'
        )
    order = (0, 2, 3, 1) if feed.layout == "NCHW" else (0, 1, 2, 3)
    batch, height, width, channels = (dims[axis] for axis in order)
    if isinstance(channels, int) and channels != feed.channels:
        raise UsageError(
            f"a network fed {feed.color} pictures as {feed.layout} must take {feed.channels} "
            f"channels (not the {channels} of {dims}): check layout and color"
        )
    for field, own, said in (("height", height, feed.height), ("width", width, feed.width)):
        if isinstance(own, int) and said not in (None, own):
            raise UsageError(f"{field} must be the network's {own} (not {said}): leave it out")
    return [batch, feed.height or height, feed.width or width, feed.channels]


def _declared_dims(value: onnx.ValueInfoProto) -> list[int | str | None]:
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    ]


def _picture_inputs(
    feed: Feed, spec: TensorSpec, paths: Sequence[Path], *, count: int
) -> Iterator[dict[str, Array]]:
    batch, height, width, _ = _concrete(feed, spec)
    for sample in range(count):
        pictures = [
            samples.read_picture(
                paths[(sample * batch + i) % len(paths)],
                (height, width),
                resize=feed.resize,
                gray=feed.color == "GRAY",
            )
            for i in range(batch)
        ]
        yield {spec.name: np.stack(pictures)}


def _random_inputs(
    feed: Feed, specs: Sequence[TensorSpec], *, count: int, seed: int
) -> Iterator[dict[str, Array]]:
    picture = _picture_of(feed, specs)
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield {
            spec.name: samples.random_pictures(_concrete(feed, spec), rng)
            if spec is picture
            else samples.random_array(spec, rng)
            for spec in specs
        }


def _picture_of(feed: Feed, specs: Sequence[TensorSpec]) -> TensorSpec | None:
    """The input that takes the picture: `prepend` calls it "image" unless that was taken."""
    if feed.kind != "image":
        return None
    fitting = [s for s in specs if s.dtype == "uint8" and s.shape[3:] == (feed.channels,)]
    if not fitting:
        came = ", ".join(f"{spec.name}: {spec}" for spec in specs)
        raise UsageError(
            f"pictures need a uint8 input of shape [N, H, W, {feed.channels}] (not {came}): "
            "put the network's preprocessing in front of it first"
        )
    return min(fitting, key=lambda spec: spec.name != "image")


def _concrete(feed: Feed, spec: TensorSpec) -> tuple[int, int, int, int]:
    batch, height, width = (
        default if isinstance(size, str) else size
        for size, default in zip(spec.shape, (1, feed.height, feed.width), strict=False)
    )
    if batch is None or height is None or width is None:
        raise UsageError(
            f"the network leaves the picture's size open ({spec}): give height and width "
            "in its feed"
        )
    return batch, height, width, feed.channels


def _coerced(field: str, value: object) -> Any:
    if field in ("height", "width"):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise UsageError(f"{field} must be a whole number of pixels (not {value!r})")
    if field == "scale":
        return _number(field, value)
    if field in ("mean", "std"):
        values = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_number(field, each) for each in values)
    if field == "labels":
        if isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise UsageError(f"labels must be a list of strings (not {value!r})")
    if isinstance(value, str):
        return value
    allowed = _either(CHOICES[field]) if field in CHOICES else "a string"
    raise UsageError(f"{field} must be {allowed} (not {value!r})")


def _number(field: str, value: object) -> float:
    """A number, or a fraction such as "1/255", which no decimal writes exactly."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        above, slash, below = value.partition("/")
        try:
            return float(above) / (float(below) if slash else 1.0)
        except (ValueError, ZeroDivisionError):
            pass
    raise UsageError(f'{field} must be a number or a fraction such as "1/255" (not {value!r})')


def _read_labels(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"labels must name a text file, one label a line ({error})") from None


def _either(values: Sequence[str]) -> str:
    return " or ".join(json.dumps(value) for value in values)
