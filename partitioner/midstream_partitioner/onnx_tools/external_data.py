"""Weights that a model keeps in files of their own: which may be read, and who has none."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from midstream_partitioner.onnx_tools.constants import walk_tensors
from midstream_partitioner.onnx_tools.validation import stored_nbytes
from midstream_wire.errors import ModelError


def inline(model: onnx.ModelProto, path: Path) -> None:
    """Read every external tensor of the `model` in the file `path` into it.

    onnx and onnxruntime follow a location wherever it points; here it must be a regular file
    that resolves, links included, to a place inside the model's folder: the one it is named
    in, or the one where its own link leads, as in caches that keep each file once and link to
    it. Raises `ModelError`.
    """
    folders = tuple(dict.fromkeys((path.absolute().parent, path.resolve().parent)))
    for tensor in walk_tensors(model):
        if uses_external_data(tensor):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            tensor.raw_data = _read(entries, folders, tensor)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")


def check_no_external_data(source: bytes | Path, *, what: str) -> None:
    """Raise `ModelError` about `what` where a tensor of a serialized model lies elsewhere."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(source.read_bytes() if isinstance(source, Path) else source)
    except DecodeError:
        raise ModelError(f"{what} must be an ONNX model, and is none") from None
    for tensor in walk_tensors(model):
        if uses_external_data(tensor) or tensor.external_data:
            raise ModelError(
                f"{what} must hold its own weights, and {tensor.name[:64]!r} lies where "
                "no digest covers it: write the partition again"
            )


def _read(
    entries: dict[str, str], folders: tuple[Path, ...], tensor: onnx.TensorProto
) -> bytes:
    name = tensor.name
    location = entries.get("location", "")
    path = _found(folders, location, name)
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


def _found(folders: tuple[Path, ...], location: str, name: str) -> Path:
    """The regular file at `location` in one of `folders`, which must hold it, links resolved.

    Raises `ModelError` about the weight `name`.
    """
    roots = [folder.resolve() for folder in folders]
    outside = None
    for folder in folders:
        try:
            path = (folder / location).resolve()
            exists = path.is_file()
        except (OSError, ValueError, RuntimeError):  # too long, a null byte, links in a circle
            continue
        if exists and any(path.is_relative_to(root) for root in roots):
            return path
        outside = outside or (path if exists else None)
    must = (
        f"external data must be a file inside the model's folder, {folders[0]}; the weight "
        f"{name!r} points to {location!r}"
    )
    if outside is not None:
        raise ModelError(
            f"{must}, which leads out of it to {outside}: copy that file beside the model, "
            "and not a link to it"
        )
    raise ModelError(f"{must}, and no such file is there: put it there")
