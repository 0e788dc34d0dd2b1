"""Codecs of users' own on the wire: names, private codes, and what they may not do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from examples.own_codec import BlockFloat, make

from midstream_wire.codecs import (
    Codec,
    Decoder,
    Encoding,
    codec,
    decode,
    encode_bytes,
    load_codec,
    plugins,
)
from midstream_wire.codecs.header import FIRST_PRIVATE, Header, parse_header
from midstream_wire.codecs.plugins import (
    answers_of,
    codes_for,
    loaded_codes,
    loaded_names,
    refused_by,
)
from midstream_wire.errors import CodecError, UsageError
from midstream_wire.frames import CodecName
from midstream_wire.limits import MAX_CODEC_NAMES
from midstream_wire.tensors import Array, TensorSpec

pytestmark = pytest.mark.usefixtures("no_codec_plugins")

Forge = Callable[..., bytes]

FLOATS = np.random.default_rng(5).standard_normal((1, 4, 6, 6), np.float32)
SPEC = TensorSpec("x", "float32", (1, 4, 6, 6))


@dataclass(frozen=True, slots=True)
class Odd(Codec):
    """Raw bytes, but for what a test has it do."""

    encoded: object = None
    raises: type[BaseException] | None = None
    fills: bool = True
    name: str = ""

    @property
    def id(self) -> str:
        return self.name or self.family

    def accepts(self, dtype: str, shape: tuple[int, ...]) -> bool:
        return True

    def error_bound(self, array: Array) -> float | None:
        return 0.0

    def begin(self, array: Array) -> Encoding | None:
        return Encoding(b"", self._encode)

    def _encode(self, block: Array, start: int) -> Sequence[bytes | memoryview]:
        return [block.tobytes()] if self.encoded is None else self.encoded  # type: ignore[return-value]

    def resume(
        self, dtype: str, shape: tuple[int, ...], params: bytes
    ) -> Callable[[memoryview, Array, int], None]:
        def fill(body: memoryview, out: Array, start: int) -> None:
            if self.raises is not None:
                raise self.raises("for no reason")
            if self.fills:
                out.view(np.uint8)[:] = np.frombuffer(body, np.uint8)

        return fill


def odd(family: str = "odd", version: str = "1", **what: object) -> Codec:
    return load_codec(lambda _: Odd(family, lossless=True, version=version, **what))  # type: ignore[arg-type]


def test_a_loaded_codec_is_named_like_the_others() -> None:
    with pytest.raises(UsageError, match=r"must be one of raw, .* \(not 'bfp:4'\); .*plugin"):
        codec("bfp:4")
    assert load_codec(make).id == "bfp:8"
    assert load_codec(make).id == "bfp:8"  # again, it changes nothing
    assert codec("bfp").id == "bfp:8"
    assert codec("bfp:4").id == "bfp:4"
    for wrong in ("bfp:9", "bfp:", "bfp@4", "bfp:4:4"):
        with pytest.raises(UsageError):
            codec(wrong)


def test_two_sides_may_load_in_different_orders() -> None:
    load_codec(make)
    odd()
    names, codes = loaded_names(), loaded_codes()
    payload = encode_bytes(codec("bfp:4"), FLOATS, codes=codes)
    plugins._LOADED = dict(reversed(plugins._LOADED.items()))
    assert loaded_names() == tuple(reversed(names))
    got = decode(payload, SPEC, max_nbytes=FLOATS.nbytes, codes=codes_for(names))
    bound = codec("bfp:4").error_bound(FLOATS)
    assert bound is not None
    assert np.abs(got - FLOATS).max() <= bound


def test_a_payload_is_decoded_by_what_its_parameters_say_and_not_by_the_default() -> None:
    load_codec(make)
    sizes = set()
    for bits in range(2, 9):
        payload = encode_bytes(codec(f"bfp:{bits}"), FLOATS, codes=loaded_codes())
        sizes.add(len(payload))
        got = decode(payload, SPEC, max_nbytes=FLOATS.nbytes, codes=loaded_codes())
        bound = codec(f"bfp:{bits}").error_bound(FLOATS)
        assert bound is not None
        assert np.abs(got - FLOATS).max() <= bound
    assert len(sizes) == 7


@pytest.mark.parametrize(
    ("held", "why"),
    [
        ((), "the codec bfp must be loaded on the server, and is not"),
        ((CodecName("bfp", "2"),), r"the server has 2, the edge 1\): install the same"),
        ((CodecName("other", "1"),), "must be loaded on the server"),
        ((CodecName("other", "1"), CodecName("bfp", "1")), None),
    ],
)
def test_an_edge_knows_beforehand_what_a_server_refuses(
    held: tuple[CodecName, ...], why: str | None
) -> None:
    load_codec(make)
    refused = refused_by(held)
    if why is None:
        assert refused == ()
        return
    ((family, told),) = refused
    assert family == "bfp"
    assert re.search(why, told)


def test_what_a_hello_names_is_answered_by_name_and_refused_when_it_comes() -> None:
    load_codec(make)
    payload = encode_bytes(codec("bfp"), FLOATS, codes=loaded_codes())
    for asked in (CodecName("nosuch", "1"), CodecName("bfp", "0.9")):
        codes = codes_for([asked])
        (answer,) = answers_of([asked], codes)
        assert answer.name == asked.name
        assert asked.name in answer.refusal
        with pytest.raises(CodecError, match=answer.refusal[:40]):
            decode(payload, SPEC, max_nbytes=FLOATS.nbytes, codes=codes)
    assert answers_of(loaded_names(), codes_for(loaded_names()))[0].refusal == ""


def test_a_private_code_means_nothing_outside_its_session() -> None:
    load_codec(make)
    payload = encode_bytes(codec("bfp"), FLOATS, codes=loaded_codes())
    assert payload[3] == FIRST_PRIVATE
    with pytest.raises(CodecError, match=r"agreed on \(not number 128\)"):
        decode(payload, SPEC, max_nbytes=FLOATS.nbytes)
    with pytest.raises(CodecError, match="bfp:8 must have been agreed on"):
        encode_bytes(codec("bfp"), FLOATS)


def test_a_payload_that_tells_a_quality_with_a_private_code_is_refused(forge: Forge) -> None:
    load_codec(make)
    header = Header(FIRST_PRIVATE, 5, False, "float32", FLOATS.shape, b"\x08")
    with pytest.raises(CodecError, match="bfp must not be used with quality 5"):
        decode(forge(header), SPEC, max_nbytes=FLOATS.nbytes, codes=loaded_codes())


@pytest.mark.parametrize("error", [ValueError, IndexError, RecursionError, AssertionError])
def test_whatever_it_raises_is_one_refusal_that_names_it(error: type[Exception]) -> None:
    chosen = odd(raises=error)
    payload = encode_bytes(chosen, FLOATS, codes=loaded_codes())
    with pytest.raises(CodecError, match=f"codec odd must not fail .*{error.__name__}"):
        decode(payload, SPEC, max_nbytes=FLOATS.nbytes, codes=loaded_codes())


def test_a_lack_of_memory_is_no_fault_of_the_payload() -> None:
    payload = encode_bytes(odd(raises=MemoryError), FLOATS, codes=loaded_codes())
    with pytest.raises(MemoryError):
        decode(payload, SPEC, max_nbytes=FLOATS.nbytes, codes=loaded_codes())


def test_what_it_does_not_fill_is_zero_and_never_old_memory() -> None:
    payload = encode_bytes(odd(fills=False), FLOATS, codes=loaded_codes())
    got = decode(payload, SPEC, max_nbytes=FLOATS.nbytes, codes=loaded_codes())
    assert not got.any()


def test_nothing_is_allocated_for_what_was_not_declared() -> None:
    payload = encode_bytes(odd(), FLOATS, codes=loaded_codes())
    other = TensorSpec("x", "float32", (1, 4, 6, 7))
    with pytest.raises(CodecError, match="must be float32"):
        decode(payload, other, max_nbytes=1 << 20, codes=loaded_codes())
    with pytest.raises(CodecError, match="at most 100 bytes"):
        decode(payload, SPEC, max_nbytes=100, codes=loaded_codes())


@pytest.mark.parametrize(
    ("encoded", "told"),
    [
        ([b""], "must make 1 to"),
        ([], "must make 1 to"),
        ([b"x" * 10_000], "must make 1 to"),
        ("text", "must make a list of bytes"),
        (["text"], "must make a list of bytes"),
        (7, "must make a list of bytes"),
    ],
)
def test_what_it_makes_of_a_block_is_looked_at(encoded: object, told: str) -> None:
    chosen = odd(encoded=encoded)
    with pytest.raises(CodecError, match=told):
        encode_bytes(chosen, FLOATS, codes=loaded_codes())


@pytest.mark.parametrize(
    ("family", "version", "name", "told"),
    [
        ("raw", "1", "", "'raw' is taken"),
        ("jpeg", "1", "", "'jpeg' is taken"),
        ("Odd", "1", "", "must be 1 to 32 of a-z"),
        ("o:d", "1", "", "must be 1 to 32 of a-z"),
        ("", "1", "", "must be 1 to 32 of a-z"),
        ("o" * 33, "1", "", "must be 1 to 32 of a-z"),
        ("odd", "", "", "version of the codec odd must be"),
        ("odd", "1 2", "", "version of the codec odd must be"),
        ("odd", "1", "even", "id of the codec odd must be"),
        ("odd", "1", "odd:", "id of the codec odd must be"),
        ("odd", "1", "odd:a,b", "id of the codec odd must be"),
        ("odd", "1", "odd:a+b", "id of the codec odd must be"),
    ],
)
def test_names_that_would_not_travel_are_refused(
    family: str, version: str, name: str, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        odd(family, version, name=name)
    assert loaded_names() == ()


def test_what_is_no_codec_is_refused() -> None:
    with pytest.raises(UsageError, match=r"must derive from midstream.Codec \(not str"):
        load_codec(lambda setting: setting)  # type: ignore[arg-type,return-value]
    with pytest.raises(UsageError, match="must return a codec, and raised ZeroDivisionError"):
        load_codec(lambda setting: 1 / 0)  # type: ignore[arg-type,return-value]
    with pytest.raises(UsageError, match="must have neither code nor quality"):
        load_codec(lambda _: BlockFloat("bfp", 200, lossless=False, version="1"))


def test_a_family_has_one_maker_and_keeps_its_promise_with_every_setting() -> None:
    load_codec(make)
    with pytest.raises(UsageError, match="'bfp' is taken"):
        load_codec(lambda setting: make(setting))
    load_codec(lambda setting: Odd("odd", lossless=not setting, version="1"))
    with pytest.raises(UsageError, match="must keep its family, version and loss"):
        codec("odd:lossy")


def test_no_more_are_loaded_than_a_hello_may_name() -> None:
    for number in range(MAX_CODEC_NAMES):
        odd(f"odd{number}")
    with pytest.raises(UsageError, match="at most 16"):
        odd("another")


def test_large_arrays_go_block_by_block() -> None:
    load_codec(make)
    large = np.random.default_rng(1).standard_normal((3, 300_000), np.float32)
    payload = encode_bytes(codec("bfp"), large, codes=loaded_codes())
    decoder = Decoder(
        TensorSpec("x", "float32", large.shape), max_nbytes=large.nbytes, codes=loaded_codes()
    )
    for start in range(0, len(payload), 100_000):
        decoder.feed(payload[start : start + 100_000])
    assert decoder.codec_id == "bfp:8"
    assert np.abs(decoder.result() - large).max() <= 2.0**-4


def test_nan_goes_without_loss_and_says_so() -> None:
    load_codec(make)
    array = FLOATS.copy()
    array[0, 0, 0, 0] = np.nan
    payload = encode_bytes(codec("bfp"), array, codes=loaded_codes())
    assert parse_header(payload[: 8 + 32 + 4 + 8]).fallback
    assert decode(payload, SPEC, max_nbytes=array.nbytes).tobytes() == array.tobytes()
