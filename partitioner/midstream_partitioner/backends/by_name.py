"""From the names that a user gives to a backend."""

from __future__ import annotations

from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.backends.onnxruntime_backend import onnxruntime_with
from midstream_partitioner.backends.torch_backend import Torch
from midstream_wire.errors import UsageError

NAMES = ("onnxruntime", "torch")


def open_backend(
    name: str = "onnxruntime", *, provider: str | None = None, device: str | None = None
) -> Backend:
    """Return what runs segments: onnxruntime with a provider, or torch on a device.

    `provider` is a name ("openvino"), with options where wanted ("cuda:device_id=1"); `device`
    is torch's name of one ("cuda"). Raises `UsageError` for what is not installed here.
    """
    if name == "torch":
        if provider is not None:
            raise UsageError(
                "--provider is one of onnxruntime's, and --backend torch has none: name a "
                "--device, or leave one of them out"
            )
        return Torch(device or "cpu")
    if name != "onnxruntime":
        raise UsageError(f"--backend must be {' or '.join(NAMES)} (not {name!r})")
    if device is not None:
        raise UsageError(
            "--device is torch's: with onnxruntime say --provider cuda:device_id=1, or add "
            "--backend torch"
        )
    return onnxruntime_with(provider or "cpu")
