"""Codecs by name."""

from __future__ import annotations

import pytest

from midstream_wire import codecs
from midstream_wire.codecs import CODECS, codec
from midstream_wire.errors import UsageError


def test_every_family_is_found_by_its_name() -> None:
    assert CODECS == ("raw", "lossless", "half", "int8", "int8c", "png", "jpeg", "webp")
    assert [codec(family).family for family in CODECS] == list(CODECS)


@pytest.mark.parametrize(
    ("asked", "got"),
    [("raw", "raw"), ("jpeg", "jpeg:90"), ("webp", "webp:80"), ("jpeg:1", "jpeg:1"),
     ("webp:100", "webp:100"), ("png", "png")],
)  # fmt: skip
def test_an_id_names_the_quality_it_will_use(asked: str, got: str) -> None:
    assert codec(asked).id == got
    assert codec(got) == codec(asked)


@pytest.mark.parametrize(
    "asked",
    ["", "gzip", "RAW", "raw:1", "png:9", "jpeg:", "jpeg:0", "jpeg:101", "jpeg:090", "jpeg:٩",
     "jpeg:-1", "jpeg:9.5", "jpeg:1000000000000000000000000", "webp:80:1", "int8:4"],
)  # fmt: skip
def test_an_unknown_id_is_refused_with_the_known_ones(asked: str) -> None:
    with pytest.raises(UsageError, match=r"must be one of raw, lossless, .*jpeg\[:1\.\.100\]"):
        codec(asked)


def test_only_exact_codecs_call_themselves_lossless() -> None:
    assert {family for family in CODECS if codec(family).lossless} == {
        "raw",
        "lossless",
        "png",
    }


def test_the_public_names_are_there() -> None:
    assert all(hasattr(codecs, name) for name in codecs.__all__)
