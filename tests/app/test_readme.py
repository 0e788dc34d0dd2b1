"""README's picture and the text under it are of one run: docs/readme.py makes both."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "docs/readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(script: Any) -> Any:
    return json.loads(script.DATA.read_text(encoding="utf-8"))


def test_the_figures_of_the_text_are_those_in_the_pictures_data(
    script: Any, data: Any
) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script.in_readme(readme, script.DEMO) == script.text_of(data)
    assert script.in_readme(readme, script.EXAMPLE) == script.output_of(data)


def test_the_picture_is_of_that_data(script: Any) -> None:
    with Image.open(script.PICTURE) as picture:
        picture.load()
        told = picture.info[script.KEY]
    assert told == hashlib.sha256(script.DATA.read_bytes()).hexdigest()


def test_the_text_has_every_placement_that_the_picture_shows(script: Any, data: Any) -> None:
    (shown,) = [each for each in data["networks"] if each["network"]["name"] == script.SHOWN]
    text = script.text_of(data)
    for each in shown["placements"]:
        assert f"{each['p50_s'] * 1e3:.0f}" in text
        assert each["label"] in text or each["name"] in text
    assert {each["network"]["name"] for each in data["networks"]} == {"3g", "lte", "wifi"}


def test_other_figures_are_noticed(script: Any, data: Any) -> None:
    changed = json.loads(json.dumps(data))
    for document in changed["networks"]:
        for each in document["placements"]:
            each["measured"]["total_s"] *= 1.1
    assert script.text_of(changed) != script.text_of(data)
