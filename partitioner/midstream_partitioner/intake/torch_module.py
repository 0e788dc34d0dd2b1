"""From a torch module to an ONNX model, through `torch.export` and torch's ONNX exporter.

The only module that imports torch, and only when it is called: the base install does without.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx

from midstream_partitioner.onnx_tools.serializing import serialized
from midstream_wire.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn


def from_torch(
    module: nn.Module,
    example_inputs: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = False,
    dynamic_axes: Mapping[str, Mapping[int, str]] | None = None,
) -> onnx.ModelProto:
    """Export `module`, as it computes in evaluation mode, to ONNX.

    `example_inputs` is a tensor, the positional arguments of `forward`, or its arguments by
    name; their shapes and dtypes become the network's. With `dynamic_batch` the first axis of
    every input is named "batch" and may have any size; `dynamic_axes` opens any others, by the
    argument's name: {"x": {2: "height", 3: "width"}}. All else has exactly the shapes of the
    examples. Outputs in a dict keep its keys as names. The module is left as it was. The model
    carries no trace of the files it was made from, so that the same module gives the same
    digest on every machine.

    Raises `UsageError` when the extra `torch` is not installed or the examples are no tensors,
    and `ModelError` when torch cannot export the module.
    """
    torch = _torch()
    examples = _arguments(torch, module, example_inputs)
    _check_examples(torch, examples, dynamic_batch=dynamic_batch)
    axes = _open_axes(examples, dynamic_batch=dynamic_batch, dynamic_axes=dynamic_axes or {})
    if dynamic_batch:
        examples = {name: _with_batch(torch, each) for name, each in examples.items()}
    dims = {dim: torch.export.Dim(dim) for each in axes.values() for dim in each.values()}
    shapes = {name: {at: dims[dim] for at, dim in each.items()} for name, each in axes.items()}
    named = isinstance(example_inputs, Mapping)
    dynamic_shapes = (shapes if named else tuple(shapes.values())) if dims else None
    try:
        with _evaluating(module), _quiet(), torch.no_grad():
            program = torch.export.export(
                module,
                () if named else tuple(examples.values()),
                examples if named else None,
                dynamic_shapes=dynamic_shapes,
            )
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                verbose=False,
                input_names=None if input_names is None else list(input_names),
                output_names=_names_of_outputs(torch, program)
                if output_names is None
                else list(output_names),
            )
            model: onnx.ModelProto = exported.model_proto
    except Exception as error:  # torch raises many kinds, some of them private
        raise ModelError(
            f"a module must be exportable by torch.export and torch.onnx, and "
            f"{type(module).__name__} is not ({_first_line(error)}): mend what it names, or "
            "export to ONNX yourself and give the file"
        ) from error
    serialized(
        model,
        what="a module's export",
        advice="store its weights in float16, or export to ONNX with external data",
    )
    _forget_origin(model)
    return model


def _torch() -> Any:
    try:
        import onnxscript  # noqa: F401  (what torch's exporter writes ONNX with)
        import torch
    except ImportError as error:
        raise UsageError(
            f"torch modules need torch and onnxscript, and {error.name} is not installed: "
            "pip install 'midstream[torch]', or give an ONNX file"
        ) from error
    return torch


def _arguments(torch: Any, module: nn.Module, given: Any) -> dict[str, Any]:
    """The arguments of `forward` by name, those of *args by number."""
    if isinstance(given, Mapping):
        return dict(given)
    # A tensor is a sequence, too: taken apart, it would lose its batch.
    positional = (given,) if isinstance(given, torch.Tensor) else tuple(given)
    signature = inspect.signature(module.forward)
    try:
        bound = signature.bind(*positional).arguments
    except TypeError as error:
        raise UsageError(
            f"example inputs must be the arguments of {type(module).__name__}.forward "
            f"({error}): give one tensor for each"
        ) from None
    named: dict[str, Any] = {}
    for name, value in bound.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            named |= {f"{name}_{at}": each for at, each in enumerate(value)}
        else:
            named[name] = value
    return named


def _check_examples(torch: Any, examples: Mapping[str, Any], *, dynamic_batch: bool) -> None:
    for name, example in examples.items():
        if not isinstance(example, torch.Tensor):
            raise UsageError(
                f"example inputs must be torch tensors (not {type(example).__name__} for "
                f"{name}): give one tensor for each argument of forward"
            )
        if dynamic_batch and example.ndim == 0:
            raise UsageError(
                f"with dynamic_batch every example must have a batch axis (not a scalar for "
                f"{name}): give it one, or leave dynamic_batch out"
            )


def _open_axes(
    examples: Mapping[str, Any],
    *,
    dynamic_batch: bool,
    dynamic_axes: Mapping[str, Mapping[int, str]],
) -> dict[str, dict[int, str]]:
    """The open axes of every example, by its name; `UsageError` where one cannot be open."""
    for name, axes in dynamic_axes.items():
        if name not in examples:
            raise UsageError(
                f"dynamic_axes must name arguments of forward, {', '.join(examples)} (not "
                f"{name!r})"
            )
        shape = list(examples[name].shape)
        for axis in axes:
            if axis == 0 and dynamic_batch:
                continue
            if not 0 <= axis < len(shape) or shape[axis] < 2:
                raise UsageError(
                    f"an open axis must have a size of at least 2 in the example (axis {axis} "
                    f"of {name} in {shape}): torch takes a size of 1 for a constant"
                )
    batch = {0: "batch"} if dynamic_batch else {}
    return {name: batch | dict(dynamic_axes.get(name, {})) for name in examples}


def _names_of_outputs(torch: Any, program: Any) -> list[str] | None:
    """The keys of a module that gives a dict; None where torch is to name the outputs."""
    pytree = torch.utils._pytree
    spec = program.call_spec.out_spec
    made = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    if not isinstance(made, Mapping):
        return None
    paths = [path for path, _ in pytree.tree_flatten_with_path(made)[0]]
    return [
        ".".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path) for path in paths
    ]


def _with_batch(torch: Any, example: Any) -> Any:
    """`example` with at least two samples: a size of one is exported as a constant."""
    return example if example.shape[0] > 1 else torch.cat([example, example])


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; each submodule's own mode again afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress, deprecations and hints from the caller's terminal."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _forget_origin(model: onnx.ModelProto) -> None:
    """Drop the stack traces and file names that the exporter leaves on every part."""
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    graphs: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        graph.ClearField("doc_string")
        graph.ClearField("metadata_props")
        parts: list[Any] = [*graph.value_info, *graph.node]
        if isinstance(graph, onnx.GraphProto):
            parts += [*graph.input, *graph.output, *graph.initializer]
        for part in parts:
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
        for node in graph.node:
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else attribute.graphs


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
