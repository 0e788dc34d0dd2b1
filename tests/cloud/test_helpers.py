"""Processes that decode for workers: alike, and done without when they fail."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import pytest

from midstream_cloud import helpers
from midstream_cloud.helpers import Decoding, Helper
from midstream_wire.codecs import Decoder, codec, encode_bytes
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array, TensorSpec


@pytest.fixture(scope="module")
def activations() -> Array:
    noise = np.random.default_rng(0).standard_normal((1, 24, 32, 32), np.float32)
    return np.maximum(noise, 0)  # 96 KiB


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    helper = Helper()
    yield helper
    helper.close()


def _decoder(array: Array, *, damaged: bool = False) -> Decoder:
    """A payload that has come whole, in pieces, and was not decoded."""
    payload = bytearray(encode_bytes(codec("ctx:0.5"), array))
    payload[-1] ^= damaged
    spec = TensorSpec("a", array.dtype.name, ("n", *array.shape[1:]))
    decoder = Decoder(spec, max_nbytes=array.nbytes, defer=True)
    for start in range(0, len(payload), 1000):
        decoder.feed(bytes(payload[start : start + 1000]))
    return decoder


def _asked(helper: Helper, decoder: Decoder) -> Array:
    """What a helper makes of a payload, once it has started up."""
    while (array := helper.decode(decoder)) is None:
        time.sleep(0.01)
    return array


def test_a_helper_decodes_alike(helper: Helper, activations: Array) -> None:
    twice = np.concatenate([activations] * 12)  # of two blocks
    for array in (activations, twice, activations.astype(np.float16)):
        decoder = _decoder(array)
        found = _asked(helper, decoder)
        np.testing.assert_array_equal(found, decoder.result())
        assert (found.dtype, found.flags.writeable) == (array.dtype, True)
        assert helper.decode(decoder) is None  # what is decoded already is none for it


def test_a_helper_refuses_alike_and_goes_on(helper: Helper, activations: Array) -> None:
    damaged = _decoder(activations, damaged=True)
    with pytest.raises(CodecError) as caught:
        _asked(helper, damaged)
    with pytest.raises(CodecError) as own:
        damaged.result()
    assert str(caught.value) == str(own.value)
    assert np.array_equal(
        _asked(helper, _decoder(activations)), _decoder(activations).result()
    )


def test_workers_do_without_a_helper_that_failed(
    activations: Array, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Broken] = []

    class Broken:
        def __init__(self) -> None:
            self.asked = self.closed = 0
            made.append(self)

        def decode(self, decoder: Decoder) -> Array | None:
            self.asked += 1
            raise BrokenPipeError("a helper ended")

        def close(self) -> None:
            self.closed += 1

    monkeypatch.setattr(helpers, "Helper", Broken)
    decoding = Decoding(workers=2)
    for _ in range(2):
        decoder = _decoder(activations)
        assert np.array_equal(decoding.decode(decoder), decoder.result())
    decoding.close()
    assert [(each.asked, each.closed) for each in made] == [(1, 1)]
    assert "by themselves from now on" in caplog.text


@pytest.mark.parametrize(("workers", "id"), [(1, "ctx:0.5"), (2, "ec:0.5"), (2, "raw")])
def test_one_worker_or_another_codec_takes_no_helper(
    activations: Array, monkeypatch: pytest.MonkeyPatch, workers: int, id: str
) -> None:
    monkeypatch.setattr(helpers, "Helper", None)
    spec = TensorSpec("a", "float32", activations.shape)
    decoder = Decoder(spec, max_nbytes=activations.nbytes, defer=True)
    decoder.feed(encode_bytes(codec(id), activations))
    decoding = Decoding(workers)
    assert decoding.decode(decoder).shape == activations.shape
    decoding.close()


def test_a_helper_ends_with_what_it_is_asked(activations: Array) -> None:
    answers = io.BytesIO()
    with tempfile.TemporaryFile() as memory:
        helpers.serve(io.BytesIO(b"half"), answers, memory.fileno())
    assert answers.getvalue() == b"+"


def test_a_helper_that_was_killed_or_closed_says_so(activations: Array) -> None:
    helper = Helper()
    _asked(helper, _decoder(activations))
    helper._process.kill()
    with pytest.raises(OSError, match=r"ended|Broken pipe"):
        helper.decode(_decoder(activations))
    helper.close()
    with pytest.raises(OSError, match="closed"):
        helper.decode(_decoder(activations))
