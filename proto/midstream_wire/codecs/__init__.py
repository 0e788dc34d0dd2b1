"""Activation codecs: arrays to payloads and back. docs/reference/wire.md has the bytes."""

from __future__ import annotations

from midstream_wire.codecs.base import Codec, DecodeBlock, EncodeBlock, Encoding
from midstream_wire.codecs.decoder import Decoder, decode, decode_small
from midstream_wire.codecs.encoder import JOIN_NBYTES, encode, encode_bytes, encode_small
from midstream_wire.codecs.header import BLOCK_NBYTES
from midstream_wire.codecs.registry import CODECS, codec, load_codec, split_codec, usable

__all__ = [
    "BLOCK_NBYTES",
    "CODECS",
    "JOIN_NBYTES",
    "Codec",
    "DecodeBlock",
    "Decoder",
    "EncodeBlock",
    "Encoding",
    "codec",
    "decode",
    "decode_small",
    "encode",
    "encode_bytes",
    "encode_small",
    "load_codec",
    "split_codec",
    "usable",
]
