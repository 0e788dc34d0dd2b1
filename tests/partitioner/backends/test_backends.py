"""What runs segments, by name; and that values stay with it until they cross."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import onnxruntime as ort
import pytest

from midstream_partitioner.backends import onnxruntime_sessions, providers, torch_backend
from midstream_partitioner.backends.backend import DEFAULT_NAME, Value
from midstream_partitioner.backends.by_name import open_backend
from midstream_partitioner.backends.onnxruntime_backend import Executor, OnnxRuntime
from midstream_partitioner.backends.providers import FLOAT32, REDUCED, Provider, parse_provider
from midstream_partitioner.backends.stopping import Stop, Stopped
from midstream_partitioner.compare import EXACT
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution.chain import ONNXRUNTIME, Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.profiling.profiler import profile_layers, profile_segments
from midstream_wire.errors import ModelError, UsageError
from midstream_wire.tensors import Array

KNOWN = ("CPUExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider")


@final
@dataclass(frozen=True, slots=True)
class Boxed:
    """A value that nothing but its backend can look into."""

    array: Array = field(repr=False)


@final
class BoxedRunner:
    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.inputs, self.outputs = executor.inputs, executor.outputs

    def run(
        self,
        feeds: Mapping[str, Value],
        outputs: Sequence[str] | None = None,
        *,
        stop: Stop | None = None,
    ) -> dict[str, Value]:
        opened = {name: feeds[name].array for name in self.inputs}
        made = self._executor.run(opened, outputs, stop=stop)
        return {name: Boxed(array) for name, array in made.items()}


@final
@dataclass
class Opaque:
    """onnxruntime behind boxes, which notes what is moved."""

    uploaded: list[Array] = field(default_factory=list)
    downloaded: list[Value] = field(default_factory=list)
    name: str = "opaque"
    unit: float = EXACT
    repeats: bool = True

    def compile(self, model: bytes | Path, *, threads: int = 1) -> BoxedRunner:
        return BoxedRunner(Executor(model, threads=threads))

    def trace(
        self, model: bytes, feeds: Mapping[str, Array], *, threads: int, runs: int
    ) -> tuple[bytes, list[dict[str, float]]]:
        return ONNXRUNTIME.trace(model, feeds, threads=threads, runs=runs)

    def upload(self, array: Array) -> Value:
        self.uploaded.append(array)
        return Boxed(array)

    def download(self, value: Value) -> Array:
        self.downloaded.append(value)
        array: Array = value.array
        return array


@pytest.fixture(scope="module")
def part(branches: Network) -> Partition:
    return partition(branches, position_cuts(branches.graph))


def test_only_what_crosses_becomes_numpy(part: Partition, inputs: dict[str, Array]) -> None:
    backend, last = Opaque(), len(part.segments)
    assert last >= 3
    answer = Chain(part, backend=backend).run(inputs, 0, last)
    assert len(backend.downloaded) == len(part.outputs)
    assert len(backend.uploaded) == len(part.inputs)
    expected = Chain(part).run(inputs, 0, last)
    assert {name: a.tobytes() for name, a in answer.items()} == {
        name: a.tobytes() for name, a in expected.items()
    }


def test_what_a_segment_does_not_read_is_not_moved(
    part: Partition, inputs: dict[str, Array]
) -> None:
    """An input that only a later segment reads passes as the array that it is."""
    backend = Opaque()
    chain = Chain(part, backend=backend)
    unread = {"early": np.zeros((1, 8), np.float32)}
    crossed = chain.run({**inputs, **unread}, 0, 1)
    assert [array is inputs["x"] for array in backend.uploaded] == [True]
    assert crossed["x"] is inputs["x"]
    assert len(backend.downloaded) == len(crossed) - 2


def test_a_stale_answer_in_the_state_is_not_taken_for_the_new_one(
    part: Partition, inputs: dict[str, Array]
) -> None:
    expected = Chain(part).run(inputs, 0, len(part.segments))
    stale = {**inputs, "y": np.zeros_like(expected["y"])}
    for backend in (ONNXRUNTIME, Opaque()):
        answer = Chain(part, backend=backend).run(stale, 0, len(part.segments))
        np.testing.assert_array_equal(answer["y"], expected["y"])


def test_a_profile_says_what_it_was_measured_on(
    part: Partition, inputs: dict[str, Array]
) -> None:
    device = Device("here", threads=1)
    default = profile_segments(Chain(part), [inputs], device, runs=2, codecs=["raw"])
    assert default.device.backend == DEFAULT_NAME
    assert default.device.label() == "here"
    other = profile_segments(
        Chain(part, backend=Opaque()), [inputs], device, runs=2, codecs=["raw"]
    )
    assert other.device.label() == "here on opaque"
    assert Profile.from_json(other.to_json()).device.backend == "opaque"


def test_profiles_of_before_are_of_onnxruntime_on_the_cpu(
    part: Partition, inputs: dict[str, Array]
) -> None:
    device = Device("here", threads=1)
    made = profile_segments(Chain(part), [inputs], device, runs=2, codecs=["raw"])
    line = f',\n  "backend": "{DEFAULT_NAME}"'
    assert line in made.to_json()
    assert Profile.from_json(made.to_json().replace(line, "")) == made


def test_layers_are_timed_on_the_backend(branches: Network, inputs: dict[str, Array]) -> None:
    backend = Opaque()
    made = profile_layers(branches, inputs, Device("here", threads=1), runs=3, backend=backend)
    assert made.device.backend == "opaque"
    assert backend.downloaded


def test_names_and_options_of_providers() -> None:
    found = parse_provider("cuda:device_id=1", KNOWN, KNOWN)
    assert found == Provider("CUDAExecutionProvider", (("device_id", "1"),))
    assert (str(found), found.device_id, found.unit) == ("cuda:device_id=1", 1, FLOAT32)
    assert found.settings(threads=2) == {"device_id": "1", "use_tf32": "0"}
    loose = parse_provider("CUDA:use_tf32=1", KNOWN, KNOWN)
    assert (loose.settings(2)["use_tf32"], loose.unit) == ("1", REDUCED)
    assert parse_provider("cpu", KNOWN, KNOWN).unit == EXACT
    unknown = Provider("NewExecutionProvider")
    assert (unknown.unit, unknown.traits.repeats) == (REDUCED, False)


@pytest.mark.parametrize(
    ("text", "held", "says"),
    [
        ("cuda", KNOWN[:1], "cpu \\('cuda' is not in it\\)"),
        ("azure", KNOWN, "runs nothing on this machine"),
        ("cudnn", KNOWN, "is none of onnxruntime's"),
        ("cuda:", KNOWN, "NAME:KEY=VALUE"),
        ("cuda:device_id", KNOWN, "NAME:KEY=VALUE"),
        ("cuda:device_id=one", KNOWN, "device_id must be a number"),
    ],
)
def test_a_provider_that_cannot_be_is_refused(
    text: str, held: Sequence[str], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        parse_provider(text, KNOWN, held)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "tvm"}, "--backend must be onnxruntime or torch"),
        ({"device": "cuda"}, "--device is torch's"),
        ({"name": "torch", "provider": "cpu"}, "--provider is one of onnxruntime's"),
    ],
)
def test_a_backend_that_cannot_be_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_backend(**given)


def test_a_provider_without_its_device_is_refused_not_replaced(
    part: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime itself would go on with the CPU, and say so in its log alone."""
    real = ort.InferenceSession

    def without_cuda(model: bytes, options: Any, providers: Any, **others: Any) -> Any:
        assert providers == [("CUDAExecutionProvider", {"use_tf32": "0"})]
        return real(model, options, providers=["CPUExecutionProvider"], **others)

    monkeypatch.setattr(ort, "InferenceSession", without_cuda)
    backend = OnnxRuntime(Provider("CUDAExecutionProvider"))
    with pytest.raises(UsageError, match="cuda must find its device and libraries"):
        backend.compile(part.segments[0].compilable)


def test_values_of_a_device_stay_in_its_memory(
    part: Partition, inputs: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound in and out as on a GPU, with the CPU's memory in the place of one's."""
    traits = providers.Traits(EXACT, repeats=True, memory="cpu")
    monkeypatch.setitem(vars(providers)["_TRAITS"], "cpu", traits)
    last = len(part.segments)
    held = Chain(part, backend=OnnxRuntime())
    found = held.run(inputs, 0, last)
    monkeypatch.undo()
    expected = Chain(part).run(inputs, 0, last)
    for name, array in expected.items():
        assert type(found[name]) is np.ndarray
        np.testing.assert_array_equal(found[name], array)


def test_a_provider_that_compiles_many_layers_into_one_tells_no_times(
    part: Partition, inputs: dict[str, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any) -> Any:
        raise ValueError("Unable to serialize model as it contains compiled nodes.")

    monkeypatch.setattr(onnxruntime_sessions, "compile_session", refuse)
    with pytest.raises(ModelError, match="onnxruntime-cpu compiles many into one"):
        ONNXRUNTIME.trace(b"", inputs, threads=1, runs=1)


def test_a_stop_ends_what_is_begun_after_it(part: Partition, inputs: dict[str, Array]) -> None:
    stop = Stop()
    chain = Chain(part)
    assert chain.run(inputs, 0, 1, stop=stop)
    stop.tell()
    with pytest.raises(Stopped):
        chain.run(inputs, 0, 1, stop=stop)
    calls: list[str] = []
    with stop.calling(lambda: calls.append("begun too late")):
        stop.tell()
    assert calls == ["begun too late"] * 2
    stop.tell()
    assert len(calls) == 2


def test_without_its_libraries_torch_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch_backend._libraries.cache_clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"pip install 'midstream\[torch\]'"):
        open_backend("torch")
    torch_backend._libraries.cache_clear()
