"""The base install knows torch modules by a sentence alone."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from midstream_partitioner.intake.torch_module import from_torch
from midstream_wire.errors import UsageError


def test_without_torch_the_error_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for library in ("torch", "onnxscript"):
        monkeypatch.setitem(sys.modules, library, None)
    module: Any = object()
    with pytest.raises(UsageError, match=r"pip install 'midstream\[torch\]'"):
        from_torch(module, ())
