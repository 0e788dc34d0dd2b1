"""Codecs by name."""

from __future__ import annotations

import pytest

from midstream_wire import codecs
from midstream_wire.codecs import CODECS, codec, split_codec
from midstream_wire.errors import UsageError


def test_every_family_is_found_by_its_name() -> None:
    assert CODECS == (
        "raw", "lossless", "half", "int8", "int8c", "ec", "ecc", "ctx", "png", "jpeg", "webp",
        "avif",
    )  # fmt: skip
    assert [codec(family).family for family in CODECS] == list(CODECS)


@pytest.mark.parametrize(
    ("asked", "got"),
    [("raw", "raw"), ("jpeg", "jpeg:90"), ("webp", "webp:80"), ("jpeg:1", "jpeg:1"),
     ("webp:100", "webp:100"), ("avif", "avif:80"),
     ("png", "png"), ("ec", "ec:0.5"), ("ecc", "ecc:0.5"),
     ("ec:1", "ec:1"), ("ec:0.1250", "ec:0.125"), ("ecc:16", "ecc:16"), ("ec@16KB", "ec@16KB"),
     ("ctx", "ctx:0.5"), ("ctx:2.25", "ctx:2.25"),
     ("ec@16000", "ec@16KB"), ("ec@16KiB", "ec@16384B"), ("ec@2MB", "ec@2000KB")],
)  # fmt: skip
def test_an_id_names_the_quality_it_will_use(asked: str, got: str) -> None:
    assert codec(asked).id == got
    assert codec(got) == codec(asked)


@pytest.mark.parametrize(
    "asked",
    ["", "gzip", "RAW", "raw:1", "png:9", "jpeg:", "jpeg:0", "jpeg:101", "jpeg:090", "jpeg:٩",
     "jpeg:-1", "jpeg:9.5", "jpeg:1000000000000000000000000", "webp:80:1", "int8:4",
     "ec:", "ec:0", "ec:0.009", "ec:17", "ec:-1", "ec:1e-1", "ec:nan", "ec:.5", "ec:٠.٥",
     "ctx:", "ctx:0", "ctx:17", "ctx@1KB", "ec@", "ec@0", "ec@1.5KB", "ec@16kb", "ecc@1KB",
     "ec@9999999999MiB", "ec:1@1KB", "raw@1KB", "klt:16+ec:0.5", "ec\n", "ec:1\n"],
)  # fmt: skip
def test_an_unknown_id_is_refused_with_the_known_ones(asked: str) -> None:
    with pytest.raises(UsageError, match=r"must be one of raw, lossless, .*jpeg\[:1\.\.100\]"):
        codec(asked)


def test_the_refusal_tells_what_may_follow_a_name() -> None:
    with pytest.raises(UsageError, match=r"int8c, ec\[:0\.01\.\.16\], ec@NBYTES, ecc\[:0"):
        codec("ec:99")


@pytest.mark.parametrize(
    ("id", "parts"),
    [
        ("klt:16+ec:0.5", ("klt:16", "ec:0.5")),
        ("ec:0.5", ("", "ec:0.5")),
        ("klt:8+ec@16KB", ("klt:8", "ec@16KB")),
        ("", ("", "")),
    ],
)
def test_a_plans_codec_is_a_transform_and_a_codec(id: str, parts: tuple[str, str]) -> None:
    assert split_codec(id) == parts


def test_only_exact_codecs_call_themselves_lossless() -> None:
    assert {family for family in CODECS if codec(family).lossless} == {
        "raw",
        "lossless",
        "png",
    }


def test_the_public_names_are_there() -> None:
    assert all(hasattr(codecs, name) for name in codecs.__all__)
