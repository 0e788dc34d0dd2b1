"""From a torch module to an ONNX model, through `torch.export` and torch's ONNX exporter.

The only module that imports torch, and only when it is called: the base install does without.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import onnx

from midstream_wire.errors import ModelError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

#: A serialized protobuf message ends here; a larger model cannot travel as one.
MAX_MODEL_NBYTES = 2**31 - 1


def from_torch(
    module: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = False,
) -> onnx.ModelProto:
    """Export `module`, as it computes in evaluation mode, to ONNX.

    `example_inputs` are the positional arguments of `forward`; their shapes and dtypes become
    the network's. With `dynamic_batch` the first axis of every input is named "batch" and may
    have any size; without it the network takes exactly the shapes of the examples. The module
    is left as it was. The model carries no trace of the files it was made from, so that the
    same module gives the same digest on every machine.

    Raises `UsageError` when the extra `torch` is not installed or the examples are no tensors,
    and `ModelError` when torch cannot export the module.
    """
    torch = _torch()
    examples = tuple(example_inputs)
    _check_examples(torch, examples, dynamic_batch=dynamic_batch)
    dynamic_shapes = None
    if dynamic_batch:
        examples = tuple(_with_batch(torch, example) for example in examples)
        batch = torch.export.Dim("batch")
        dynamic_shapes = tuple({0: batch} for _ in examples)
    try:
        with _evaluating(module), _quiet(), torch.no_grad():
            program = torch.export.export(module, examples, dynamic_shapes=dynamic_shapes)
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                verbose=False,
                input_names=None if input_names is None else list(input_names),
                output_names=None if output_names is None else list(output_names),
            )
            model: onnx.ModelProto = exported.model_proto
    except Exception as error:  # torch raises many kinds, some of them private
        raise ModelError(
            f"a module must be exportable by torch.export and torch.onnx, and "
            f"{type(module).__name__} is not ({_first_line(error)}): mend what it names, or "
            "export to ONNX yourself and give the file"
        ) from error
    if model.ByteSize() > MAX_MODEL_NBYTES:
        raise ModelError(
            f"a module must export to less than 2 GiB (not {model.ByteSize()} bytes): "
            "store its weights in float16, or export to ONNX with external data"
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


def _check_examples(torch: Any, examples: tuple[Any, ...], *, dynamic_batch: bool) -> None:
    for position, example in enumerate(examples):
        if not isinstance(example, torch.Tensor):
            raise UsageError(
                f"example inputs must be torch tensors (not {type(example).__name__} at "
                f"position {position}): give one tensor for each argument of forward"
            )
        if dynamic_batch and example.ndim == 0:
            raise UsageError(
                f"with dynamic_batch every example must have a batch axis (not a scalar at "
                f"position {position}): give it one, or leave dynamic_batch out"
            )


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
