"""Guides work as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import midstream
from midstream_lab.networks.photo import photo

if TYPE_CHECKING:
    from tests.app.conftest import Environment

ROOT = Path(__file__).resolve().parents[2]
#: Pages that a reader follows word by word.
GUIDES = tuple(
    page
    for room in ("tutorials", "how-to")
    for page in sorted((ROOT / "docs" / room).glob("*.md"))
)
BLOCK = re.compile(r"^(<!-- fragment.*-->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: "Write `careful.py`:" in front of a block.
FILE = re.compile(r"`([\w.]+\.(?:py|toml))`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_the_python_page_has_every_public_name() -> None:
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    told = re.findall(r"^::: midstream\.(\w+)$", page, re.MULTILINE)
    errors = {
        name
        for name in midstream.__all__
        if isinstance(each := getattr(midstream, name), type) and issubclass(each, Exception)
    }
    assert sorted(set(told)) == sorted(set(midstream.__all__) - errors)
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == errors - {
        "MidstreamError"
    }


def programs(page: Path) -> list[str]:
    """Its Python blocks in order, but those marked as fragments."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for mark, language, code in found if language == "python" and not mark]


def classifier() -> onnx.ModelProto:
    """A model of pictures, small enough to be profiled in a moment."""
    draw = np.random.default_rng(0)
    weights = {"first": (8, 3, 3, 3), "second": (4, 8, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [
            numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


@pytest.fixture
def folder(tmp_path: Path, certificates: Path) -> Path:
    """The files that guides have their readers bring, small ones of each kind."""
    model = midstream.load(classifier(), feed=midstream.Feed(kind="image"))
    midstream.save_partition(midstream.partition(model), tmp_path / "net.midstream")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(photo(number, 64, 64)).save(tmp_path / f"photos/{number}.jpg")
    Image.fromarray(photo(3, 64, 64)).save(tmp_path / "photo.jpg")
    (tmp_path / "ca.pem").write_bytes((certificates / "authority.pem").read_bytes())
    row = {"cut": "edge-only", "codec": "raw", "where": "edge"}
    (tmp_path / "adaptive.jsonl").write_text(f"{json.dumps(row)}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("page", [page for page in GUIDES if programs(page)], ids=name_of)
def test_programs_of_a_guide_run(page: Path, folder: Path, environment: Environment) -> None:
    """One after the other, in a folder that has what the guide asks for."""
    for name, content in FILE.findall(page.read_text(encoding="utf-8")):
        (folder / name).write_text(content, encoding="utf-8")
    for code in programs(page):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
