"""Weights that a model keeps in files of their own, read only from inside its folder."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from midstream_partitioner.constants import walk_tensors
from midstream_partitioner.soundness import stored_nbytes
from midstream_wire.errors import ModelError


def inline(model: onnx.ModelProto, folder: Path) -> None:
    """Read every external tensor of `model` into it.

    onnx and onnxruntime follow a location wherever it points; here it must be a regular file
    that resolves, links included, to a place inside `folder`. Raises `ModelError`.
    """
    for tensor in walk_tensors(model):
        if uses_external_data(tensor):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            tensor.raw_data = _read(entries, folder, tensor)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")


def _read(entries: dict[str, str], folder: Path, tensor: onnx.TensorProto) -> bytes:
    name = tensor.name
    location = entries.get("location", "")
    path = _inside(folder.resolve(), location)
    if path is None:
        raise ModelError(
            f"external data must be a file inside the model's folder; the weight {name!r} "
            f"points to {location!r}: move the file beside the model"
        )
    size = path.stat().st_size
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", size - offset))
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"external data must lie within its file; the weight {name!r} asks for {length} "
            f"bytes at {offset} of {location!r}, which has {size}: export the model again"
        )
    if length != stored_nbytes(tensor):
        raise ModelError(
            f"the weight {name!r} must take {stored_nbytes(tensor)} bytes of {location!r}, by "
            f"its shape and dtype, not {length}: export the model again"
        )
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _inside(root: Path, location: str) -> Path | None:
    """The regular file at `location`, links resolved, if it lies in `root`."""
    try:
        path = (root / location).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, links in a circle
        return None
