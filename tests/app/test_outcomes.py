"""What `pair` and `verify` say of how far answers lie apart, and of what was not finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from midstream.cli.commands import verify as command
from midstream.cli.main import app
from midstream.cli.output.outcomes import verdict
from midstream_lab.verification import verify
from midstream_partitioner.compare import EXACT


def trial(error: float | None, *, local: int = 0) -> dict[str, Any]:
    fast = {"label": "cloud-only raw", "is_chosen": False, "p50_s": 0.1}
    chosen = {"label": "edge-only", "is_chosen": True, "p50_s": 0.2}
    return {
        "model": "net", "answered": 6, "requests": 6, "local": local,
        "max_relative_error": error, "placements": [chosen, fast],
    }  # fmt: skip


@pytest.mark.parametrize("error", [0.0, 1.9e-6, EXACT])
def test_answers_within_rounding_are_called_equal(error: float) -> None:
    assert f"equal to the unsplit model within {error:.1e};" in verdict(trial(error))


@pytest.mark.parametrize(
    ("error", "told"), [(2 * EXACT, "2.0e-05"), (0.15, "1.5e-01"), (None, "inf")]
)
def test_answers_beyond_rounding_are_not_called_equal(error: float | None, told: str) -> None:
    said = verdict(trial(error))
    assert "equal" not in said
    assert f"up to {told} from the unsplit model" in said
    assert "`midstream verify net`" in said


def test_a_choice_that_was_not_fastest_is_told_with_what_was() -> None:
    said = verdict(trial(0.0, local=2))
    assert "2 of them finished on the edge" in said
    assert said.endswith("the plan chose edge-only, 2.00 times the best, cloud-only raw.")


Stop = Callable[..., None]


@pytest.mark.parametrize("cuts", ["all", "partition"])
def test_an_interrupted_verification_prints_what_it_has(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cuts: str,
) -> None:
    name = {"all": "verify_cuts", "partition": "verify_partition"}[cuts]
    run = getattr(verify, name)

    def stopped(*given: Any, progress: Stop, **more: Any) -> Any:
        def stop(done: int, total: int) -> None:
            if done == 1:
                raise KeyboardInterrupt

        return run(*given, progress=stop, **more)

    monkeypatch.setattr(command, name, stopped)
    line = f"verify {models / 'tiny.onnx'} --cuts {cuts}"
    with pytest.raises(typer.Abort):
        app(line.split(), standalone_mode=False)
    told = capsys.readouterr().out
    assert told.startswith("1 of ")
    assert ": interrupted cuts" in told.splitlines()[0]
    assert "largest relative error" in told
    with pytest.raises(typer.Abort):
        app([*line.split(), "--json"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    assert document["checked"] == len(document["rows"]) == 1 < document["cuts"]
