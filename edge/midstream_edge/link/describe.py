"""Asking a server what it holds, and whether it serves."""

from __future__ import annotations

from midstream_edge.link.channel import fetch_description, fetch_health
from midstream_edge.link.endpoint import Endpoint
from midstream_wire.descriptions import Description, ModelDescription
from midstream_wire.errors import CloudUnavailable, ProtocolError

#: Describing is one small exchange; the profile of a large network is some 100 KB.
TIMEOUT_S = 5.0


def describe(
    server: str | Endpoint, *, model: str = "", timeout_s: float = TIMEOUT_S
) -> tuple[ModelDescription, ...]:
    """The models that `server` holds, or the one called `model`.

    Each comes with its digests, its cuts (as sets of nodes, with the tensors that cross), the
    codecs the server reads, and its profile as JSON text. An address alone is spoken to in
    plaintext, on loopback; an `Endpoint` says more. Models that cannot be read are left out,
    for `describe_all` to name. Raises `CloudUnavailable`, `CloudRefused` (unknown model, bad
    credentials) or `ProtocolError`, also where no model can be read.
    """
    endpoint = Endpoint.of(server) if isinstance(server, str) else server
    description = fetch_description(endpoint, model=model, timeout_s=timeout_s)
    models = description.models
    if description.unreadable and not models:
        name, why = description.unreadable[0]
        raise ProtocolError(
            f"the server at {endpoint.address} describes {name!r} wrongly: {why}"
        )
    if model and [found.name for found in models] != [model]:
        raise ProtocolError(
            f"the server at {endpoint.address} must describe {model!r} when asked for it "
            f"(not {[found.name for found in models]!r}): use the same version on both sides"
        )
    return models


def describe_all(endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S) -> Description:
    """The models that a server holds, and the names of those that cannot be read."""
    return fetch_description(endpoint, model="", timeout_s=timeout_s)


def check_health(server: str | Endpoint, *, timeout_s: float = TIMEOUT_S) -> None:
    """Return if `server` says that it serves; otherwise raise as `describe` does."""
    endpoint = Endpoint.of(server) if isinstance(server, str) else server
    if not fetch_health(endpoint, timeout_s=timeout_s):
        raise CloudUnavailable(
            f"the server at {endpoint.address} must be serving, but says that it is not: it "
            "is starting or stopping, try again"
        )
