"""Descriptions of the models that a server holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from midstream_wire.frames import CodecName
from midstream_wire.tensors import TensorSpec


@final
@dataclass(frozen=True, slots=True)
class TransformDescription:
    """A transform by its name, and what crosses the cut under it."""

    name: str
    tensors: tuple[TensorSpec, ...]


@final
@dataclass(frozen=True, slots=True)
class CutDescription:
    """A cut: the nodes in front of it as runs (start, end, start, ...), and what crosses."""

    id: str
    head_runs: tuple[int, ...]
    tensors: tuple[TensorSpec, ...]
    transforms: tuple[TransformDescription, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A partition that a server holds; `profile` is its profile's JSON, empty = none.

    `feed` says what feeds it, by field, as far as that is part of its graph; empty = untold.
    `own_codecs` are those of users' own that the server has loaded.
    """

    name: str
    graph_digest: str
    partition_digest: str
    cuts: tuple[CutDescription, ...]
    codecs: tuple[str, ...]
    profile: str = ""
    feed: tuple[tuple[str, str], ...] = ()
    own_codecs: tuple[CodecName, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Description:
    """The answer to Describe; `unreadable` are names of further models, and why so."""

    server: str
    models: tuple[ModelDescription, ...]
    unreadable: tuple[tuple[str, str], ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Preparation:
    """Asks a server to cut its copy of a model anew, behind `heads` (runs, as in a cut).

    `partition_digest` is of the partition that the server describes: both sides cut the
    network that it holds, and keep its transforms where they can.
    """

    model: str
    graph_digest: str
    partition_digest: str
    heads: tuple[tuple[int, ...], ...]


@final
@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of a preparation: once `ready`, sessions with this digest may begin."""

    ready: bool
    partition_digest: str = ""
