"""What a server says about the models it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

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
    """A partition that a server holds; `profile` is its profile's JSON, empty = none."""

    name: str
    graph_digest: str
    partition_digest: str
    cuts: tuple[CutDescription, ...]
    codecs: tuple[str, ...]
    profile: str = ""


@final
@dataclass(frozen=True, slots=True)
class Description:
    """The answer to Describe."""

    server: str
    models: tuple[ModelDescription, ...]
