"""Completion of a command as it is typed: models, links, policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from midstream_edge.policies.registry import POLICIES
from midstream_lab.networks import NETWORKS
from midstream_lab.traces.conditions import CONDITIONS


def models(incomplete: str) -> list[str]:
    """Built-in models, and whatever may be a model or lead to one."""
    return [*_among(NETWORKS, incomplete), *_files(incomplete, (".onnx",))]


def simulated(incomplete: str) -> list[str]:
    """The same, and menus and scenarios."""
    return [*_among(NETWORKS, incomplete), *_files(incomplete, (".onnx", ".json", ".toml"))]


def links(incomplete: str) -> list[str]:
    """Links between both sides, by name."""
    return list(_among(CONDITIONS, incomplete))


def policies(incomplete: str) -> list[str]:
    """Policies; of one that names a cut, what stands in front of it."""
    names = (name.removesuffix("CUT:CODEC") for name in POLICIES)
    return list(_among(names, incomplete))


def _among(names: Iterable[str], incomplete: str) -> Iterator[str]:
    return (name for name in names if name.startswith(incomplete))


def _files(incomplete: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Files that end so, and folders, which typer's shells leave to the command."""
    above, slash, begun = incomplete.rpartition("/")
    try:
        entries = sorted(Path(above + slash or ".").iterdir())
    except OSError:
        return
    for entry in entries:
        hidden = entry.name.startswith(".") and not begun.startswith(".")
        if hidden or not entry.name.startswith(begun):
            continue
        if entry.is_dir():
            yield f"{above}{slash}{entry.name}/"
        elif entry.suffix in suffixes:
            yield f"{above}{slash}{entry.name}"
