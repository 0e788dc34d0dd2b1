"""Backends: what runs a segment. A small protocol, and no library behind it.

Values stay where a backend computes them, opaque to all others, and only what crosses a cut
becomes numpy. Partitions, their digests and the wire know no backend: two sides may run the
same partition on different ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from midstream_partitioner.backends.stopping import Stop
from midstream_wire.tensors import Array

#: A tensor where the backend holds it: an array, or a handle to memory of a device.
Value = Any

#: How a profile names the default: bit-identical wherever the cut is.
DEFAULT_NAME = "onnxruntime-cpu"


class Runner(Protocol):
    """A compiled model. `run` may be called from several threads at once."""

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def outputs(self) -> tuple[str, ...]: ...

    def run(
        self,
        feeds: Mapping[str, Value],
        outputs: Sequence[str] | None = None,
        *,
        stop: Stop | None = None,
    ) -> dict[str, Value]:
        """Return outputs by name for `feeds` by name, all of the backend's own values.

        Raises `TensorError` if the network refuses them, `Stopped` if `stop` was told.
        """
        ...


class Backend(Protocol):
    """A library on a device, as a value."""

    @property
    def name(self) -> str:
        """Return what a profile says that it was measured on."""
        ...

    @property
    def unit(self) -> float:
        """Return how far answers in float32 may lie from onnxruntime's on a CPU, relative to
        the output's largest magnitude.
        """
        ...

    @property
    def repeats(self) -> bool:
        """Return True if the same segment gives the same bits for the same input each time."""
        ...

    def compile(self, model: bytes | Path, *, threads: int = 1) -> Runner:
        """Make a serialized model, or one in a file, ready to run.

        Raises `ModelError` if it has operators or types that cannot run here.
        """
        ...

    def trace(
        self, model: bytes, feeds: Mapping[str, Array], *, threads: int, runs: int
    ) -> tuple[bytes, list[dict[str, float]]]:
        """Return the model as it really runs, and per run seconds by the names of its nodes.

        Raises `ModelError` where the backend cannot tell its nodes apart.
        """
        ...

    def upload(self, array: Array) -> Value:
        """Return the array as a value of this backend."""
        ...

    def download(self, value: Value) -> Array:
        """Return a value as an array."""
        ...
