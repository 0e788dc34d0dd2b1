"""torch as a backend: segments run as torch modules that onnx2pytorch makes of them.

Needs the extra `torch`, whose libraries are imported when the backend is first used. Why this
library and no other: docs/decisions/0021-torch-runs-what-onnx2pytorch-converts.md.
"""

from __future__ import annotations

import sys
import threading
import time
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, final

import ml_dtypes
import numpy as np
import onnx

from midstream_partitioner.backends.backend import Value
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.backends.providers import FLOAT32
from midstream_partitioner.backends.refusals import refusal
from midstream_partitioner.backends.stopping import Stop, Stopped
from midstream_partitioner.backends.torch_conversion import convertible
from midstream_partitioner.backends.widening import widened
from midstream_partitioner.compare import apart
from midstream_partitioner.onnx_tools.random_nodes import RandomNodes
from midstream_wire.errors import MidstreamError, ModelError, TensorError, UsageError
from midstream_wire.tensors import Array

#: The converter takes these from torchvision.
_VISION = frozenset(
    ("DeformConv", "ImageDecoder", "MaxRoiPool", "NonMaxSuppression", "RoiAlign")
)
#: A conversion that is right differs by rounding alone, one that is wrong by far more.
_WRONG = {"float32": 1e-2, "float64": 1e-2}
_WRONG_IN_HALF = 1e-1
_ADVICE = "run it with onnxruntime, or export it with other operators"


@final
@dataclass(frozen=True, slots=True)
class Torch:
    """torch on a device: "cpu", "cuda" or "cuda:1"; a `Backend`.

    Raises `UsageError` where the extra is not installed, or torch finds no such device. torch
    has one pool of threads for the process: what was compiled last says its size.
    """

    device: str = "cpu"

    def __post_init__(self) -> None:
        torch = _libraries().torch
        try:
            torch.empty(1, device=self.device)
        except Exception as error:  # torch raises several kinds, its own among them
            raise UsageError(
                f"--device must be one that the installed torch can use, such as cpu or cuda "
                f"(not {self.device!r}): "
                + refusal(error, advice="install the torch that is built for it")
            ) from None

    @property
    def name(self) -> str:
        return f"torch-{self.device}"

    @property
    def unit(self) -> float:
        return FLOAT32

    @property
    def repeats(self) -> bool:
        """On a GPU sums are taken in an order that changes from run to run."""
        return self.device == "cpu"

    def compile(self, model: bytes | Path, *, threads: int = 1) -> TorchRunner:
        _libraries().torch.set_num_threads(threads)
        return TorchRunner(model, self)

    def trace(
        self, model: bytes, feeds: Mapping[str, Array], *, threads: int, runs: int
    ) -> tuple[bytes, list[dict[str, float]]]:
        """Time every node by itself; none is fused into another."""
        runner = self.compile(model, threads=threads)
        values = {name: self.upload(array) for name, array in feeds.items()}
        return model, [runner.trace(values) for _ in range(runs)]

    def upload(self, array: Array) -> Value:
        torch = _libraries().torch
        if not array.flags.writeable or not array.flags.c_contiguous:
            array = array.copy()  # torch has no tensors that must not be written
        if array.dtype == ml_dtypes.bfloat16:
            tensor = torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(array)
        return tensor.to(self.device)

    def download(self, value: Value) -> Array:
        torch = _libraries().torch
        value = value.detach().cpu().contiguous()
        if value.dtype == torch.bfloat16:
            narrow: Array = value.view(torch.uint16).numpy()
            return narrow.view(ml_dtypes.bfloat16)
        array: Array = value.numpy()
        return array


@final
class TorchRunner:
    """A model as a torch module; a `Runner`. Values are tensors on the backend's device.

    The first run is held against onnxruntime's on the same values: what a converter makes may
    be wrong without a word.
    """

    def __init__(self, model: bytes | Path, backend: Torch) -> None:
        # The converter reads no weights of bfloat16.
        wide, self._narrow = widened(model) or (model, frozenset())
        proto = (
            onnx.load(str(wide))
            if isinstance(wide, Path)
            else onnx.load_model_from_string(wide)
        )
        self.inputs = tuple(value.name for value in proto.graph.input)
        self.outputs = tuple(value.name for value in proto.graph.output)
        self._torch = _libraries().torch
        self._cuda = backend.device.partition(":")[0] == "cuda"
        self._current = threading.local()
        libraries = _libraries()
        try:
            plain = convertible(proto, without=() if libraries.vision else _VISION)
            self._module = _convert(plain).eval().to(backend.device)
        except MidstreamError:
            raise
        except Exception as error:  # the converter raises a dozen unrelated types
            raise ModelError(
                "the model must consist of operators that onnx2pytorch can make of torch's, "
                "and it says: " + refusal(error, advice=_ADVICE)
            ) from error
        self._names = self._hook(plain)
        self._backend = backend
        self._unchecked: bytes | Path | None = model
        if RandomNodes.of(proto).operators:
            self._unchecked = None  # two runs of it differ by themselves

    def run(
        self,
        feeds: Mapping[str, Value],
        outputs: Sequence[str] | None = None,
        *,
        stop: Stop | None = None,
    ) -> dict[str, Value]:
        """As `Runner.run`; a stop takes effect before the next node that is a module."""
        try:
            values = [
                feeds[name].float() if name in self._narrow else feeds[name]
                for name in self.inputs
            ]
        except KeyError as error:
            raise TensorError(
                f"the model needs the inputs {', '.join(self.inputs)}; {error} is missing"
            ) from None
        self._current.stop = stop
        try:
            with self._torch.inference_mode():
                made = self._module(*values)
        except Stopped:
            raise
        except Exception as error:  # torch raises many kinds
            raise TensorError(
                "the model cannot run on this input: "
                + refusal(error, advice="give one of another size, or other values")
            ) from error
        finally:
            self._current.stop = None
        found = dict(zip(self.outputs, made if len(self.outputs) > 1 else [made], strict=True))
        # Sums follow the layout in memory: across a cut it is C order, so it is within, too.
        narrow = self._torch.bfloat16
        found = {
            name: (value.to(narrow) if name in self._narrow else value).contiguous()
            for name, value in found.items()
        }
        if self._unchecked is not None:
            self._check(self._unchecked, feeds, found)
            self._unchecked = None
        return {name: found[name] for name in outputs or self.outputs}

    def _check(
        self, model: bytes | Path, feeds: Mapping[str, Value], found: Mapping[str, Value]
    ) -> None:
        download = self._backend.download
        given = {name: download(feeds[name]) for name in self.inputs}
        for name, expected in Executor(model).run(given).items():
            if expected.dtype.kind not in "fV":  # a rank or a class may change by rounding
                continue
            error = apart(expected, download(found[name])).relative
            if not error <= _WRONG.get(str(expected.dtype), _WRONG_IN_HALF):
                raise ModelError(
                    "what onnx2pytorch makes of the model must answer as onnxruntime does, "
                    f"and {name} differs by {error:.2g} of its largest value: {_ADVICE}"
                )

    def trace(self, feeds: Mapping[str, Value]) -> dict[str, float]:
        """Seconds by the name of every node that is a module, in one run."""
        times: dict[str, float] = {}
        self._current.times = times
        try:
            self.run(feeds)
        finally:
            del self._current.times
        return times

    def _hook(self, plain: onnx.ModelProto) -> dict[Any, str]:
        """Have every module that a node became check for stops and take its time."""
        names = {}
        children = dict(self._module.named_children())
        for node in plain.graph.node:
            child = children.get(self._module.mapping[node.output[0]])
            if child is not None:
                names[child] = node.name
                child.register_forward_pre_hook(self._before)
                child.register_forward_hook(self._behind)
        return names

    def _before(self, child: Any, given: Any) -> None:
        stop: Stop | None = getattr(self._current, "stop", None)
        if stop is not None and stop.told:
            raise Stopped
        if hasattr(self._current, "times"):
            self._current.started_s = time.perf_counter()

    def _behind(self, child: Any, given: Any, made: Any) -> None:
        times: dict[str, float] | None = getattr(self._current, "times", None)
        if times is not None:
            if self._cuda:
                self._torch.cuda.synchronize()
            times[self._names[child]] = time.perf_counter() - self._current.started_s


def _convert(model: onnx.ModelProto) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # It guesses a function of torch by an operator's name, and says so in a warning.
        warnings.filterwarnings("error", message="No explicit conversion")
        return _libraries().converter(model)


@final
@dataclass(frozen=True, slots=True)
class _Libraries:
    torch: Any
    converter: Any
    vision: bool


@cache
def _libraries() -> _Libraries:
    try:
        import torch
    except ImportError:
        raise _missing() from None
    vision = True
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError):  # absent, or built for another torch
        vision = False
    with warnings.catch_warnings(), _standing_in(absent=not vision):
        warnings.simplefilter("ignore")
        try:
            from onnx2pytorch import ConvertModel
        except ImportError:
            raise _missing() from None
    # Of its own code, run after run: nothing that a user could mend.
    warnings.filterwarnings("ignore", module=r"onnx2pytorch\.")
    # TF32, its default for convolutions, keeps 10 bits of 23.
    torch.backends.cudnn.allow_tf32 = False
    return _Libraries(torch, ConvertModel, vision)


def _missing() -> UsageError:
    return UsageError(
        "running on torch needs torch and onnx2pytorch: install pip install 'midstream[torch]'"
    )


@contextmanager
def _standing_in(*, absent: bool) -> Iterator[None]:
    """Let the converter be imported without torchvision, of which it needs five operators.

    A torchvision for GPUs cannot be loaded beside a torch for CPUs, where there may be no
    other. What would call it is refused before it is compiled.
    """
    if not absent:
        yield
        return
    names = ("torchvision", "torchvision.ops", "torchvision.io")
    for name in names:
        module = types.ModuleType(name)
        module.__dict__["__getattr__"] = lambda attribute: None
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in names:
            with suppress(KeyError):
                del sys.modules[name]
