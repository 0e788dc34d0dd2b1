"""Models as bytes, and the size that these may have."""

from __future__ import annotations

import onnx
from google.protobuf.message import EncodeError

from midstream_partitioner.onnx_tools.constants import walk_tensors
from midstream_partitioner.onnx_tools.model_files import MAX_MODEL_NBYTES
from midstream_wire.errors import ModelError


def serialized(model: onnx.ModelProto, *, what: str, advice: str) -> bytes:
    """Return the bytes of `model`, the same for the same model.

    Raises `ModelError` about `what`, with `advice`, where they would be 2 GiB or more. Stored
    numbers are counted first: protobuf fails already where it is asked for the size.
    """
    stored = sum(len(tensor.raw_data) for tensor in walk_tensors(model))
    try:
        if stored <= MAX_MODEL_NBYTES:
            return model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError):
        pass
    raise ModelError(
        f"{what} must be smaller than 2 GiB, and holds {stored / 2**30:.1f} GiB of weights: "
        f"{advice}"
    )
