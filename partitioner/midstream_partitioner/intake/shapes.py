"""The dtype and shape of every tensor of a model.

Shapes are inferred twice, with the symbolic dimensions kept (what a request may look like) and
at the sizes that figures refer to (`sizes.py`). What inference cannot tell is seen in one run
of the network on an input of these sizes, with every activation as an output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import final

import onnx

from midstream_partitioner.backends.onnxruntime_backend import observe
from midstream_partitioner.costs.sizes import (
    UNKNOWN,
    Sizes,
    assumed_sizes,
    is_batch,
    listed,
    nominal_shape,
    open_name,
)
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.onnx_tools.serializing import serialized
from midstream_partitioner.onnx_tools.validation import stored_nbytes
from midstream_wire.errors import ModelError
from midstream_wire.tensors import DTYPES, Array, TensorSpec, nbytes_of

#: Initializers above this are left out while inferring: only small ones are shapes.
_SHAPE_NBYTES = 4096

#: What is tried for open dimensions of a network that does not run at those assumed.
_LENGTHS, _SHORT = (128, 256, 512, 1024), (64, 48, 32, 16, 2)
_MOST_LENGTHS = 4

#: No single activation may ask for more: a model of 120 bytes can ask for 16 GiB.
MAX_TENSOR_NBYTES = 4 << 30


@final
@dataclass(frozen=True, slots=True)
class Shaped:
    """The known shape of a tensor; `nominal` is its shape at the feed's sizes."""

    dtype: str
    shape: tuple[int | str, ...]
    nominal: tuple[int, ...]


def infer(
    model: onnx.ModelProto, feed: Feed, sample: Mapping[str, Array] | None = None
) -> dict[str, Shaped]:
    """Every tensor of `model` by name, at the sizes of `feed`.

    `sample` is an input of these sizes, random where there is none. Raises `ModelError` if the
    model contradicts itself.
    """
    skeleton = _skeleton(model)
    for value in skeleton.graph.output:  # what was declared of them is a hint
        value.type.ClearField("tensor_type")
    symbolic = _inferred(skeleton)
    for value in skeleton.graph.input:
        _pin(value, feed.sizes)
    pinned = _inferred(skeleton)
    wanted = _activations(model)
    known = {}
    for name in wanted | pinned.keys():
        spec, nominal = symbolic.get(name), pinned.get(name)
        if spec and nominal and all(isinstance(size, int) for size in nominal.shape):
            known[name] = _shaped(name, spec, nominal)
    missing = sorted(wanted - known.keys())
    if missing:
        try:
            seen = _observe(model, sample or _random(model, feed), missing, symbolic)
        except ModelError as error:
            specs = [spec_of(value) for value in model.graph.input]
            assumed = () if sample else assumed_sizes(specs, feed.sizes)
            if not assumed:
                raise
            raise _unsized(model, feed, assumed, error) from error
        known.update(seen)
    return known


def spec_of(value: onnx.ValueInfoProto) -> TensorSpec:
    """Name, dtype and shape as declared; dtypes that cannot be carried keep a plain name."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorSpec(value.name, (kind or "unknown").removesuffix("_type"), ())
    declared = value.type.tensor_type
    dims = declared.shape.dim if declared.HasField("shape") else []
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else _symbol(dim.dim_param) for dim in dims
    )
    if not declared.HasField("shape"):
        shape = (UNKNOWN,)
    return TensorSpec(value.name, _dtype_name(declared.elem_type), shape)


def _symbol(name: str | bytes) -> str:
    """A dimension's name; protobuf hands out bytes where it is not UTF-8.

    Inference makes up names (unk__0) where it loses one; they say nothing.
    """
    named = isinstance(name, str) and name and not name.startswith("unk__")
    return str(name) if named else UNKNOWN


def _activations(model: onnx.ModelProto) -> set[str]:
    names = {value.name for value in model.graph.input}
    return names | {name for node in model.graph.node for name in node.output if name}


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights as inputs of known shape: cheap to infer over."""
    bare = onnx.ModelProto()
    bare.ir_version = model.ir_version
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = "skeleton"
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if stored_nbytes(tensor) <= _SHAPE_NBYTES:
            bare.graph.initializer.append(tensor)
        else:
            bare.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return bare


def _inferred(model: onnx.ModelProto) -> dict[str, TensorSpec]:
    try:
        done = onnx.shape_inference.infer_shapes(model, check_type=False, data_prop=True)
    except Exception as error:  # onnx raises InferenceError, RuntimeError and others
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(
            f"the shapes of a model must agree; inference says: {reason}"
        ) from error
    graph = done.graph
    found = {value.name: spec_of(value) for value in (*graph.input, *graph.value_info)}
    found.update({v.name: spec_of(v) for v in graph.output if v.type.WhichOneof("value")})
    for tensor in graph.initializer:
        shape: tuple[int | str, ...] = tuple(tensor.dims)
        found[tensor.name] = TensorSpec(tensor.name, _dtype_name(tensor.data_type), shape)
    return found


def _pin(value: onnx.ValueInfoProto, sizes: Sizes) -> None:
    dims = value.type.tensor_type.shape.dim
    for dim, size in zip(dims, nominal_shape(spec_of(value), sizes), strict=False):
        dim.dim_value = size


def _shaped(name: str, spec: TensorSpec, nominal: TensorSpec) -> Shaped:
    sizes = tuple(size if isinstance(size, int) else 1 for size in nominal.shape)
    shape = spec.shape if len(spec.shape) == len(sizes) else (UNKNOWN,) * len(sizes)
    _bound(name, nominal.dtype, sizes)
    return Shaped(nominal.dtype, shape, sizes)


def _bound(name: str, dtype: str, sizes: tuple[int, ...]) -> None:
    if dtype in DTYPES and nbytes_of(dtype, sizes) > MAX_TENSOR_NBYTES:
        raise ModelError(
            f"a tensor may take at most {MAX_TENSOR_NBYTES >> 30} GiB; {name!r} would take "
            f"{nbytes_of(dtype, sizes) / 2**30:.3g} GiB: give the model a smaller input"
        )


def _random(model: onnx.ModelProto, feed: Feed) -> dict[str, Array]:
    specs = [spec_of(value) for value in model.graph.input]
    return next(iter(read_inputs(feed, specs, None, count=1)))


def _unsized(
    model: onnx.ModelProto, feed: Feed, assumed: Sizes, error: ModelError
) -> ModelError:
    """Name the sizes that nobody gave, and some at which the network runs."""
    start = f"a model must run to be taken in, and at the sizes assumed, {listed(assumed)}, "
    specs = [spec_of(value) for value in model.graph.input]
    for sizes in _candidates(specs, assumed):
        tried = feed.sized(tuple(sorted((*feed.asked, *sizes))))
        with suppress(ModelError):
            _observe(model, _random(model, tried), [], {})
            return ModelError(
                f"{start}this one does not: say the sizes that you use, such as --size "
                f"{listed(sizes).replace(' ', '')}, at which it runs, or give an input with "
                "--input"
            )
    return ModelError(f"{start}this one does not: {error}")


def _candidates(specs: Sequence[TensorSpec], assumed: Sizes) -> Iterator[Sizes]:
    """Other sizes than those `assumed`: all lengths changed together, or one alone."""
    firsts = {open_name(spec, 0) for spec in specs if spec.shape}
    lengths = [
        name for name, _ in assumed if not is_batch(name, 0 if name in firsts else None)
    ]
    alone = [[name] for name in lengths[:_MOST_LENGTHS]] if len(lengths) > 1 else []
    for changed, tried in (
        (lengths, _LENGTHS),
        *((each, _LENGTHS + _SHORT) for each in alone),
        (lengths, _SHORT),
    ):
        for length in tried if changed else ():
            yield tuple((name, length if name in changed else size) for name, size in assumed)


def _observe(
    model: onnx.ModelProto,
    inputs: Mapping[str, Array],
    names: list[str],
    symbolic: Mapping[str, TensorSpec],
) -> dict[str, Shaped]:
    """Run the network once on `inputs` and look at the arrays called `names`."""
    known = {value.name for value in model.graph.output}
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in known | inputs.keys()
    )
    data = serialized(
        exposed,
        what="a model whose shapes inference cannot tell",
        advice="export it with operators of ONNX, or store its weights in float16",
    )
    arrays = observe(data, inputs) | dict(inputs)
    found = {}
    for name in names:
        array, spec = arrays[name], symbolic.get(name)
        if not hasattr(array, "dtype"):
            found[name] = Shaped(type(array).__name__, (), ())
            continue
        unknown: tuple[int | str, ...] = (UNKNOWN,) * array.ndim
        shape = spec.shape if spec and len(spec.shape) == array.ndim else unknown
        found[name] = Shaped(array.dtype.name, shape, array.shape)
    return found


def _dtype_name(elem_type: int) -> str:
    try:
        name = onnx.helper.tensor_dtype_to_np_dtype(elem_type).name
    except KeyError:
        return "undefined"
    return str(name) if elem_type != onnx.TensorProto.STRING else "string"
