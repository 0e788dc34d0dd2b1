"""Asking a server what it holds, and whether it serves."""

from __future__ import annotations

from midstream_edge.channel import Dial, fetch_description, fetch_health
from midstream_wire.descriptions import ModelDescription
from midstream_wire.errors import CloudUnavailable, ProtocolError

#: Describing is one small exchange; the profile of a large network is some 100 KB.
TIMEOUT_S = 5.0


def describe(
    server: str | Dial, *, model: str = "", timeout_s: float = TIMEOUT_S
) -> tuple[ModelDescription, ...]:
    """The models that `server` holds, or the one called `model`.

    Each comes with its digests, its cuts (as sets of nodes, with the tensors that cross), the
    codecs the server reads, and its profile as JSON text. An address alone is spoken to in
    plaintext, on loopback; a `Dial` says more. Raises `CloudUnavailable`, `CloudRefused` (an
    unknown model, bad credentials) or `ProtocolError`.
    """
    dial = Dial.of(server) if isinstance(server, str) else server
    models = fetch_description(dial, model=model, timeout_s=timeout_s).models
    if model and [found.name for found in models] != [model]:
        raise ProtocolError(
            f"the server at {dial.address} must describe {model!r} when asked for it "
            f"(not {[found.name for found in models]!r}): use the same version on both sides"
        )
    return models


def check_health(server: str | Dial, *, timeout_s: float = TIMEOUT_S) -> None:
    """Return if `server` says that it serves; otherwise raise as `describe` does."""
    dial = Dial.of(server) if isinstance(server, str) else server
    if not fetch_health(dial, timeout_s=timeout_s):
        raise CloudUnavailable(
            f"the server at {dial.address} must be serving, but says that it is not: it is "
            "starting or stopping, try again"
        )
