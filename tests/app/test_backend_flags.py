"""The flags of backends, and what is said where a profile is of another one."""

from __future__ import annotations

from pathlib import Path

import pytest

import midstream
from midstream.cli.flags.common import Execution
from midstream.cli.opening import read_profile
from midstream.cli.output import console
from midstream.serving import make_repository
from midstream_lab.experiment.scenario import SideTable
from midstream_lab.processes.pair import CloudSetting, EdgeSetting
from midstream_partitioner.backends.onnxruntime_backend import OnnxRuntime
from midstream_partitioner.backends.providers import Provider
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution.chain import ONNXRUNTIME
from midstream_wire.errors import UsageError


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(console, "note", found.append)
    return found


def stored(path: Path, backend: str) -> Path:
    device = Device("here", threads=1, backend=backend)
    path.write_text(Profile(device, "g", "p", (), (), ()).to_json(), encoding="utf-8")
    return path


def test_a_profile_of_another_backend_is_told_in_one_sentence(
    tmp_path: Path, notes: list[str]
) -> None:
    path = stored(tmp_path / "edge.json", "torch-cpu")
    assert read_profile(path, ONNXRUNTIME) is not None
    (told,) = notes
    assert "edge.json was measured on torch-cpu, and onnxruntime-cpu runs here" in told
    notes.clear()
    read_profile(stored(path, "onnxruntime-cpu"), ONNXRUNTIME)
    read_profile(path)  # of the other side, where nothing of it runs here
    assert (notes, read_profile(None, ONNXRUNTIME)) == ([], None)


def test_flags_reach_other_processes_as_they_were_typed() -> None:
    given = Execution(backend="torch", device="cuda:1")
    flags = tuple(given.flags())
    assert flags == ("--backend", "torch", "--device", "cuda:1")
    assert flags == SideTable(backend="torch", device="cuda:1").run_by()
    for setting in (EdgeSetting(run_by=flags), CloudSetting(run_by=flags)):
        assert " ".join(flags) in " ".join(setting.flags())
    assert SideTable().run_by() == ()
    assert Execution(provider="cpu").open() == ONNXRUNTIME
    with pytest.raises(UsageError, match="--device is torch's"):
        Execution(device="cuda").open()


def test_a_server_runs_its_models_on_the_backend(models: Path) -> None:
    part = midstream.partition(models / "tiny.onnx")
    named = OnnxRuntime(Provider("CPUExecutionProvider", (("kind", "named"),)))
    found = make_repository({"tiny": part}, runs=3, backend=named).models["tiny"]
    assert found.chain.backend is named
    assert found.profile is not None
    assert found.profile.device.backend == "onnxruntime-cpu:kind=named"
