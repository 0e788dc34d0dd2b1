"""`--size` on the command line: profiles over sizes, and plans at one or over several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from midstream_lab.networks.open_sizes import text_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sizes")
    onnx.save(text_encoder(width=16, layers=1), str(folder / "text.onnx"))
    return folder


@pytest.fixture(scope="module")
def profile(command: Any, folder: Path) -> Path:
    """Of a partition with one cut, at three lengths."""
    where = f"{folder}/text.midstream"
    made = command(
        f"partition {folder}/text.onnx --size seq=8 --at relu11 --runs 3 -o {where}"
    )
    assert made.code == 0, made.err
    path = folder / "edge.json"
    run = command(f"profile {where} --size seq=8..32 --runs 3 -o {path}")
    assert run.code == 0, run.err
    return path


def test_a_length_is_asked_for_by_its_name(command: Any, folder: Path) -> None:
    run = command(f"plan {folder}/text.onnx --link lte")
    assert run.code == 2
    assert "costs depend on seq" in run.complaint
    assert "--size seq=128" in run.complaint


def test_a_plan_is_for_the_size_asked_and_tells_where_another_wins(
    command: Any, folder: Path, profile: Path, schema: Any
) -> None:
    line = f"plan {folder}/text.midstream --edge {profile} --cloud {profile} --link lte --json"
    found = command(f"{line} --size seq=8..32").document
    schema.check(found, "PlanDocument")
    (curve,) = found["over_sizes"]
    assert (curve["name"], curve["others"]) == ("seq", {"batch": 1})
    assert curve["pieces"][0]["first"] == 8
    assert curve["pieces"][-1]["last"] == 32
    totals = [each["estimate"]["total_s"] for each in curve["samples"]]
    assert len(totals) > 8
    payloads = {}
    for size in (8, 20, 32):
        one = command(f"{line} --size seq={size}").document
        assert one["sizes"] == {"batch": 1, "seq": size}
        assert one["over_sizes"] == []
        (raw,) = (c for c in one["candidates"] if c["label"] == "cloud-only raw")
        payloads[size] = raw["payload_nbytes"]
    assert payloads[32] - payloads[20] == pytest.approx(8 * 12, abs=2)
    assert payloads[20] - payloads[8] == pytest.approx(8 * 12, abs=2)


def test_figures_beyond_what_was_measured_are_told(
    command: Any, folder: Path, profile: Path
) -> None:
    run = command(
        f"plan {folder}/text.midstream --edge {profile} --cloud {profile} --link lte "
        "--size seq=500 --json"
    )
    assert run.code == 0
    assert "seq=500 lies beyond the 8 to 32 that the edge's profile was measured at" in (
        " ".join(run.err.split())
    )


def test_a_profile_from_before_sizes_is_refused(
    command: Any, folder: Path, profile: Path
) -> None:
    old = json.loads(profile.read_text())
    del old["sizes"], old["others"]
    path = folder / "old.json"
    path.write_text(json.dumps(old))
    run = command(
        f"plan {folder}/text.midstream --edge {path} --cloud {profile} --link lte --size seq=8"
    )
    assert run.code == 2
    assert "must say which sizes of batch, seq it was measured at" in run.complaint
    assert "measure it again" in run.complaint
