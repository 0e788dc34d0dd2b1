"""Models of a partition in files of their own, read only where their digests hold."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

from midstream_wire.errors import ModelError

#: What a tensor calls the file that has its content; onnxruntime follows no other name.
_KEY = b"location"


def read_model(source: bytes | Path, digest: str, *, what: str, max_nbytes: int) -> bytes:
    """The bytes of a model, from memory or from a file that must still have the digest.

    Raises `ModelError` about `what`, also where weights are in other files; a file larger than
    `max_nbytes` is not read.
    """
    if isinstance(source, bytes):
        return source
    try:
        fits = source.stat().st_size <= max_nbytes and source.is_file()
        data = source.read_bytes() if fits else b""
    except OSError as error:
        raise _unreadable(what, source, error) from None
    if not fits or hashlib.sha256(data).hexdigest() != digest:
        raise _other_content(what, digest, source)
    check_self_contained(data, what=what)
    return data


def check_file(path: Path, digest: str, *, what: str) -> None:
    """Raise `ModelError` about `what` unless the file has the digest, and all its weights."""
    try:
        if path.exists() and not path.is_file():  # a device has no end, a pipe no writer
            raise _other_content(what, digest, path)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(what, path, error) from None
    if found != digest:
        raise _other_content(what, digest, path)
    check_self_contained(path, what=what)


def _unreadable(what: str, path: Path, error: OSError) -> ModelError:
    return ModelError(
        f"{what} must be in {path}, which cannot be read ({error.strerror}): write the "
        "partition again"
    )


def _other_content(what: str, digest: str, path: Path) -> ModelError:
    return ModelError(
        f"{what} must have digest {digest[:12]}; {path} has other content: write the "
        "partition again"
    )


def check_self_contained(source: bytes | Path, *, what: str) -> None:
    """Raise `ModelError` about `what` where a serialized model has weights outside itself.

    For models of partitions: their digests cover no other file, and onnxruntime follows a
    location wherever it points, in some versions to an address in memory. Nearly all models
    are passed by a search for the word that no location goes without; others are parsed.
    """
    if _mentions_location(source):
        # Needs onnx, which reading a partition does not.
        from midstream_partitioner.onnx_tools.external_data import check_no_external_data

        check_no_external_data(source, what=what)


def _mentions_location(source: bytes | Path) -> bool:
    if isinstance(source, bytes):
        return _KEY in source
    if not source.stat().st_size:  # an empty file cannot be mapped
        return False
    with (
        source.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        return text.find(_KEY) >= 0


#: protobuf serializes no message of 2 GiB or more.
MAX_MODEL_NBYTES = (2 << 30) - 1
