"""The example that takes a torch module."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.torch


def test_the_torch_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    from examples.torch_module import main

    main()
    assert re.search(r"^cloud: within \S+ of the whole module", capsys.readouterr().out)
