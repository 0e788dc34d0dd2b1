"""The generated code is what the compiler makes of midstream.proto."""

from __future__ import annotations

from pathlib import Path

import pytest

from midstream_wire.errors import UsageError
from midstream_wire.generate import (
    GRPCIO_TOOLS_VERSION,
    OUTPUTS,
    ROOT,
    compiler_version,
    generate,
    main,
)


@pytest.mark.skipif(
    compiler_version() != GRPCIO_TOOLS_VERSION,
    reason=f"needs grpcio-tools {GRPCIO_TOOLS_VERSION}, which made the committed code",
)
def test_the_committed_code_is_what_the_compiler_makes(tmp_path: Path) -> None:
    generate(tmp_path)
    for output in OUTPUTS:
        assert (tmp_path / output).read_text() == (ROOT / output).read_text(), output


def test_another_compiler_is_refused_with_the_command_that_gets_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("midstream_wire.generate.compiler_version", lambda: "1.0.0")
    with pytest.raises(UsageError, match=f"grpcio-tools=={GRPCIO_TOOLS_VERSION}"):
        generate(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())
