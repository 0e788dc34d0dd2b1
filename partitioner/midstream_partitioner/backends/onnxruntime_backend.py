"""onnxruntime as a backend: running an ONNX model, on any provider."""

from __future__ import annotations

import functools
import json
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from midstream_partitioner.backends.backend import Value
from midstream_partitioner.backends.onnxruntime_sessions import (
    MEMORY_SHARE,
    ON_CPU,
    open_session,
    refused,
    session_options,
)
from midstream_partitioner.backends.providers import CPU, Provider, parse_provider
from midstream_partitioner.backends.refusals import refusal
from midstream_partitioner.backends.stopping import Stop, Stopped
from midstream_partitioner.scratch import scratch_folder
from midstream_wire.errors import (
    MidstreamError,
    ModelError,
    ResourceError,
    TensorError,
)
from midstream_wire.tensors import Array

#: A run's option to give back what the shared arena does not use once the run has ended.
_GIVE_BACK = ("memory.enable_memory_arena_shrinkage", "cpu:0")

#: How long the run may take in which a network's shapes are observed: a Loop need not end.
OBSERVED_S = 120.0

#: Below ALL, so that nodes keep the names of their tensors: ALL rewrites convolutions into a
#: blocked layout and renames what lies between them.
_TRACE_LEVEL = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


#: Threads of all sessions of a process together. Each session has a pool of its own, since
#: the workers of the one that onnxruntime has for a process spin
#: (docs/explanation/backends.md), and a container is often allowed a thousand.
MOST_THREADS = 768


@final
class _Threads:
    """The count of threads in the pools of all open sessions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def claim(self, session: object, count: int) -> None:
        """Count a session's pool for as long as that lives; `ResourceError` if too many."""
        with self._lock:
            if self._count + count > MOST_THREADS:
                raise ResourceError(
                    f"the sessions of a process may have at most {MOST_THREADS} threads "
                    f"together, and {self._count + count} would be: give --threads less, or "
                    "hold fewer models"
                )
            self._count += count
        weakref.finalize(session, self._give_back, count)

    def _give_back(self, count: int) -> None:
        with self._lock:
            self._count -= count


_THREADS = _Threads()


@final
class Executor:
    """One onnxruntime session, whose values are arrays; a `Runner`."""

    def __init__(
        self,
        model: bytes | Path,
        *,
        threads: int = 1,
        optimised: bool = True,
        provider: Provider = ON_CPU,
    ) -> None:
        """Compile `model`; `ModelError` if it has operators or types that cannot run here.

        Not `optimised`, every node is computed as it stands, fused with none.
        From a file, other threads go on meanwhile; bytes are copied with the interpreter held,
        40 ms for 100 MB.
        """
        _THREADS.claim(self, threads - 1)
        options = session_options(threads)
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._opened = open_session(model, options, provider)
        if provider.traits.memory and self._opened.narrow:
            raise ModelError(
                "tensors of bfloat16 cross no cut in the memory of a device, and "
                f"{', '.join(sorted(self._opened.narrow))} would on {provider}: run the "
                "model with --backend torch, or on the CPU"
            )
        self._session = self._opened.session
        self._memory = provider.traits.memory
        self._device_id = provider.device_id
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())

    def run(
        self,
        feeds: Mapping[str, Value],
        outputs: Sequence[str] | None = None,
        *,
        stop: Stop | None = None,
    ) -> dict[str, Value]:
        """Outputs by name for `feeds` by name.

        Raises `TensorError` if the network refuses them, `Stopped` if `stop` was told.
        """
        names = self.outputs if outputs is None else tuple(outputs)
        options = None
        ending: AbstractContextManager[None] = nullcontext()
        if stop is not None:
            options = ort.RunOptions()
            ending = stop.calling(partial(setattr, options, "terminate", True))
        try:
            wanted = {name: feeds[name] for name in self.inputs}
            with ending:
                values = self._values(names, wanted, options)
        except KeyError as error:
            raise TensorError(
                f"the model needs the inputs {', '.join(self.inputs)}; {error} is missing"
            ) from None
        except Exception as error:  # onnxruntime raises a dozen unrelated types
            if stop is not None and stop.told:
                raise Stopped from None
            raise TensorError(
                "the model cannot run on this input: "
                + refusal(error, advice="give one of another size, or other values")
            ) from error
        return dict(zip(names, values, strict=True))

    def _values(
        self, names: Sequence[str], feeds: Mapping[str, Value], options: ort.RunOptions | None
    ) -> Sequence[Value]:
        if not self._memory:
            return self._opened.run(names, feeds, options)
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, self._memory, self._device_id)
        self._session.run_with_iobinding(binding, options)
        return cast(Sequence[Value], binding.get_outputs())


@final
@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """onnxruntime with one of its providers, the CPU unless another is given; a `Backend`.

    What a provider cannot run, onnxruntime runs on the CPU.
    """

    provider: Provider = ON_CPU

    @property
    def name(self) -> str:
        return f"onnxruntime-{self.provider}"

    @property
    def unit(self) -> float:
        return self.provider.unit

    @property
    def repeats(self) -> bool:
        return self.provider.traits.repeats

    def compile(self, model: bytes | Path, *, threads: int = 1) -> Executor:
        """Compile; other threads go on meanwhile where `model` is a file. See `Executor`."""
        return Executor(model, threads=threads, provider=self.provider)

    def trace(
        self, model: bytes, feeds: Mapping[str, Array], *, threads: int, runs: int
    ) -> tuple[bytes, list[dict[str, float]]]:
        """Time the kernels of the optimised model; see `Backend`."""
        with scratch_folder("midstream-trace-") as folder:
            options = session_options(threads)
            options.graph_optimization_level = _TRACE_LEVEL
            options.optimized_model_filepath = str(folder / "optimised.onnx")
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / "trace")
            try:
                opened = open_session(model, options, self.provider)
            except Exception as error:
                raise _untold(error, self.name) from error
            names = [value.name for value in opened.session.get_outputs()]
            for _ in range(runs):
                opened.run(names, feeds, None)
            events = json.loads(Path(opened.session.end_profiling()).read_text("utf-8"))
            optimised = Path(options.optimized_model_filepath).read_bytes()
        return optimised, _split_runs(events)

    def upload(self, array: Array) -> Value:
        memory = self.provider.traits.memory
        if not memory:
            return array
        return ort.OrtValue.ortvalue_from_numpy(array, memory, self.provider.device_id)

    def download(self, value: Value) -> Array:
        return cast(Array, value.numpy() if isinstance(value, ort.OrtValue) else value)


def onnxruntime_with(provider: str = CPU) -> OnnxRuntime:
    """Return onnxruntime with the provider that `provider` says: NAME or NAME:KEY=VALUE,...

    Raises `UsageError` where the installed build has none such.
    """
    known, held = ort.get_all_providers(), ort.get_available_providers()
    return OnnxRuntime(parse_provider(provider, known, held))


def observe(model: bytes, feeds: Mapping[str, Array]) -> dict[str, Any]:
    """Every output of one run whose memory is given back at once.

    Raises `ModelError` if the network cannot run, on these inputs or within the memory there
    is, or not within `OBSERVED_S`. What is no tensor comes as a list or None.
    """
    opened = open_session(model, session_options(1), ON_CPU)
    once = ort.RunOptions()
    once.add_run_config_entry(*_GIVE_BACK)
    names = [value.name for value in opened.session.get_outputs()]
    limit = threading.Timer(OBSERVED_S, setattr, (once, "terminate", True))
    limit.daemon = True
    limit.start()
    try:
        return dict(zip(names, opened.run(names, feeds, once), strict=True))
    except Exception as error:  # onnxruntime raises a dozen unrelated types
        if once.terminate:
            raise ModelError(
                f"a model must run within {OBSERVED_S:.0f} s on one input, and this one was "
                "given up then: does every Loop in it end?"
            ) from None
        raise ModelError(
            f"a model must run on the inputs it declares, within {MEMORY_SHARE:.0%} of "
            "this machine's memory; onnxruntime says: "
            + refusal(error, advice="say their sizes with --size, or give one with --input")
        ) from error
    finally:
        limit.cancel()


def release_working_memory() -> None:
    """Give back what no session needs of the memory that they share, in milliseconds.

    Not an option of the runs that took it: what a segment made is in use until the next one
    has run, and would stay behind.
    """
    session = _idle_session()
    once = ort.RunOptions()
    once.add_run_config_entry(*_GIVE_BACK)
    session.run(None, {"x": np.zeros(1, np.float32)}, once)


@functools.cache
def _idle_session() -> ort.InferenceSession:
    """A session that does nothing, to have its runs' options heeded."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "idle",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return open_session(model.SerializeToString(), session_options(1), ON_CPU).session


def _split_runs(events: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Kernel times of a chrome trace, one mapping per `model_run` span."""
    spans = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("name") == "model_run"
    )
    times: list[dict[str, float]] = [{} for _ in spans]
    for event in events:
        name = event.get("name", "")
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        for (start, end), run in zip(spans, times, strict=True):
            if start <= event["ts"] <= end:
                node = name.removesuffix("_kernel_time")
                run[node] = run.get(node, 0.0) + event["dur"] * 1e-6
    return times


def _untold(error: Exception, name: str) -> MidstreamError:
    if "compiled nodes" not in str(error):
        return refused(error)
    return ModelError(
        f"layers can be timed where a backend tells them apart, and {name} compiles many into "
        "one: partition the model, and profile the partition on it"
    )
