"""An ONNX graph in the form that onnx2pytorch converts faithfully.

It has no functions of its own, no nodes over weights alone, no weights where the converter
takes another operand for them, and names that stay apart when they become attributes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import onnx
from onnx import inliner, numpy_helper

from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.onnx_tools.names import bodies_of, fresh_name, value_names
from midstream_partitioner.onnx_tools.random_nodes import RandomNodes
from midstream_wire.errors import ModelError

_DOMAINS = ("", "ai.onnx")
_ADVICE = "run it with onnxruntime, or export it with other operators"


def convertible(model: onnx.ModelProto, *, without: Collection[str] = ()) -> onnx.ModelProto:
    """Return `model` rewritten.

    Raises `ModelError` for operators of other domains, which the converter would take for
    ONNX's own of the same name, and for those in `without`.
    """
    made = onnx.ModelProto()
    made.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    nodes = list(_nodes(made.graph))
    strange = {
        f"{node.op_type} of {node.domain}" for node in nodes if node.domain not in _DOMAINS
    }
    strange |= {node.op_type for node in nodes}.intersection(without)
    if strange:
        raise ModelError(
            "on torch a model must consist of ONNX's own operators, those of torchvision "
            f"only where it can be loaded; {', '.join(sorted(strange))} cannot run: {_ADVICE}"
        )
    if not RandomNodes.of(made).operators:
        _fold(made)
    _hide_factors(made.graph)
    used = sorted(value_names(made.graph) - {""})
    _rename(made.graph, {name: f"v{at}" for at, name in enumerate(used)})
    return made


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in bodies_of(node):
            yield from _nodes(body)


def _fold(model: onnx.ModelProto) -> None:
    """Compute once what depends on weights alone: layers take weights that are stored."""
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    kept = {value.name for value in graph.output}
    folded, rest = [], []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        alone = inputs and known.issuperset(inputs) and kept.isdisjoint(node.output)
        if node.op_type == "Constant" or (alone and not any(bodies_of(node))):
            folded.append(node)
            known.update(node.output)
        else:
            rest.append(node)
    if not folded:
        return
    made = [name for node in folded for name in node.output if name]
    part = onnx.helper.make_graph(
        folded,
        "folded",
        [],
        [onnx.helper.make_empty_tensor_value_info(name) for name in made],
        list(graph.initializer),
    )
    whole = onnx.helper.make_model(
        part, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    values = Executor(whole.SerializeToString(), optimised=False).run({})
    del graph.node[:]
    graph.node.extend(rest)
    graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in made)


def _hide_factors(graph: onnx.GraphProto) -> None:
    """Put an Identity behind each stored factor but a matrix on the right.

    The converter takes any for the weights of a linear layer; nor is a constant that is added
    right behind a product always that layer's bias.
    """
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    taken, nodes = value_names(graph), list(graph.node)
    del graph.node[:]
    previous = ""
    for node in nodes:
        wanted = {"MatMul": (None, 2), "Add": (1, 1) if previous == "MatMul" else ()}
        previous = node.op_type
        ranked = wanted.get(node.op_type, ())
        for position, rank in enumerate(ranked):
            name = node.input[position]
            if name in ranks and ranks[name] != rank:
                node.input[position] = passed = fresh_name(f"{name}/passed", taken)
                taken.add(passed)
                graph.node.append(onnx.helper.make_node("Identity", [name], [passed]))
        graph.node.append(node)


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    del graph.value_info[:]
    for node in graph.node:
        for each in (node.input, node.output):
            each[:] = [names.get(name, name) for name in each]
        for body in bodies_of(node):
            _rename(body, names)
