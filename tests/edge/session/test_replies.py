"""Replies of servers that lie about shapes: refused before anything of them is decoded."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from midstream_edge.link.channel import Stream
from midstream_edge.session.transmission import Transmission
from midstream_partitioner.costs.sizes import Binder
from midstream_wire.codecs import codec, encode_bytes
from midstream_wire.errors import MidstreamError
from midstream_wire.frames import Piece, Reply, ServerTimings, Status
from midstream_wire.tensors import TensorSpec

X = TensorSpec("x", "float32", ("batch", 4))
Y = TensorSpec("y", "float32", ("batch", 1000))


def reply(batch: int, codec_id: str = "raw") -> Reply:
    array = np.zeros((batch, 1000), np.float32)
    payload = encode_bytes(codec(codec_id), array)
    return Reply(1, Status(), ("y",), (Piece(0, payload),), ServerTimings())


def sent() -> Transmission:
    return Transmission(
        1, cast(Stream, None), {}, k=1, codec="raw", useful_s=1e9, message_nbytes=65536
    )


def test_a_reply_of_the_requests_batch_is_read() -> None:
    binder = Binder([X])
    specs = binder.tie([Y], binder.bind({"x": np.zeros((2, 4), np.float32)}))
    outputs = sent().read(reply(2), specs)
    assert outputs is not None
    assert outputs["y"].shape == (2, 1000)


@pytest.mark.parametrize("codec_id", ["raw", "lossless"])
@pytest.mark.parametrize("batch", [0, 1, 7, 60_000])
def test_a_reply_of_another_batch_is_refused(batch: int, codec_id: str) -> None:
    if batch == 60_000 and codec_id == "raw":
        pytest.skip("240 MB would have to be sent")
    binder = Binder([X])
    specs = binder.tie([Y], binder.bind({"x": np.zeros((2, 4), np.float32)}))
    with pytest.raises(MidstreamError, match="y"):
        sent().read(reply(batch, codec_id), specs)
