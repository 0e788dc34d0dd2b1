"""Tolerances of a split against the whole model: as far as that lies from itself.

A network has no exact answer, only one for each order of its sums. onnxruntime fuses nodes,
and on a CPU computes float16 in float32 where nothing forces it to round: whole, it rounds
less often than the model's own words say, and split, at each border. So what a split may
differ by is measured on the unsplit network alone, computed in other ways: every node on its
own, rounded to its own type, and in another number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.compare import EXACT, apart
from midstream_partitioner.execution.chain import State
from midstream_partitioner.onnx_tools.constants import walk_tensors
from midstream_partitioner.onnx_tools.names import bodies_of, fresh_name, value_names
from midstream_wire.errors import ModelError

#: How many times its own rounding a network may differ: one cut's sample of it against the
#: largest of a few others.
SLACK = 4.0
#: No rounding excuses more; an unrelated answer lies about 1 away.
MOST = 0.5
#: One unit in the last place of the narrowest type that a network computes in.
_UNITS = {onnx.TensorProto.FLOAT16: 2.0**-10, onnx.TensorProto.BFLOAT16: 2.0**-7}


def unit_of(model: bytes) -> float:
    """Return what always passes: `EXACT`, or one unit of the model's narrowest float type."""
    kinds = set(_types(onnx.load_model_from_string(model)))
    return max((unit for kind, unit in _UNITS.items() if kind in kinds), default=EXACT)


def own_rounding(
    model: bytes, inputs: Sequence[State], expected: Sequence[State], *, threads: int
) -> dict[str, float]:
    """Return by output how far the unsplit network lies from itself, computed otherwise."""
    others = (_as_written(model, threads), Executor(model, threads=threads + 1))
    found = dict.fromkeys(expected[0], 0.0)
    for other in others:
        for sample, answer in zip(inputs, expected, strict=True):
            made = {**sample, **other.run(sample)}
            for name, array in answer.items():
                found[name] = max(found[name], apart(array, made.get(name)).relative)
    return found


def limits_of(unit: float, own: Mapping[str, float]) -> dict[str, float]:
    """Return by output the relative error that passes."""
    return {name: min(max(unit, SLACK * error), MOST) for name, error in own.items()}


def _as_written(model: bytes, threads: int) -> Executor:
    """Compile a model so that every node rounds its output to the output's type."""
    if unit_of(model) == EXACT:
        return Executor(model, threads=threads, optimised=False)
    try:
        return Executor(_with_barriers(model), threads=threads, optimised=False)
    except ModelError:  # an old opset, whose Identity takes no sequences
        return Executor(model, threads=threads, optimised=False)


def _with_barriers(model: bytes) -> bytes:
    """Put two Identities behind every output: one alone onnxruntime would widen as well."""
    whole = onnx.load_model_from_string(model)
    graph, taken = whole.graph, value_names(whole.graph)
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        passed = []
        for position, name in enumerate(node.output):
            if name:
                made, held = (fresh_name(f"{name}/{how}", taken) for how in ("made", "held"))
                taken |= {made, held}
                node.output[position] = made
                passed += [
                    onnx.helper.make_node("Identity", [made], [held]),
                    onnx.helper.make_node("Identity", [held], [name]),
                ]
        graph.node.extend([node, *passed])
    return whole.SerializeToString()


def _types(model: onnx.ModelProto) -> Iterator[int]:
    """Types of inputs, stored tensors and casts, functions and bodies included."""
    yield from (value.type.tensor_type.elem_type for value in model.graph.input)
    yield from (tensor.data_type for tensor in walk_tensors(model))
    yield from _casts(model.graph.node)
    for function in model.functions:
        yield from _casts(function.node)


def _casts(nodes: Sequence[onnx.NodeProto]) -> Iterator[int]:
    for node in nodes:
        yield from (each.i for each in node.attribute if each.name in ("to", "dtype"))
        for body in bodies_of(node):
            yield from _casts(body.node)
