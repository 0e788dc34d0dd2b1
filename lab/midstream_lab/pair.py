"""Cloud, link and edge as three processes on one machine, and what they measured together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from midstream_lab.conditions import Condition
from midstream_lab.processes import Process

#: Loading and profiling a large network takes seconds on a small machine.
START_S = 120.0

Say = Callable[[str], None]


@final
@dataclass(frozen=True, slots=True)
class CloudSetting:
    """How the cloud process runs."""

    threads: int = 1
    slowdown: float = 1.0


@final
@dataclass(frozen=True, slots=True)
class EdgeSetting:
    """How the edge process runs: its speed, its input, how it plans."""

    threads: int = 1
    slowdown: float = 1.0
    requests: int = 20
    input: str | None = None
    seed: int = 0
    planning: tuple[str, ...] = ()  # further flags of `midstream edge run`, as typed

    def flags(self) -> list[str]:
        flags = ["--threads", str(self.threads), "--slowdown", str(self.slowdown)]
        flags += ["--requests", str(self.requests), "--seed", str(self.seed)]
        flags += ["--input", self.input] if self.input is not None else []
        return [*flags, *self.planning]


@contextmanager
def cloud_process(folder: Path, setting: CloudSetting) -> Iterator[str]:
    """A cloud that serves the partition in `folder`; yields its address."""
    flags = ["--listen", "127.0.0.1:0", "--threads", str(setting.threads)]
    flags += ["--slowdown", str(setting.slowdown), "--json"]
    with Process("cloud", "midstream", ["cloud", "serve", str(folder), *flags]) as cloud:
        yield cloud.document(START_S)["listening"]


@contextmanager
def link_process(target: str, condition: Condition) -> Iterator[str]:
    """An emulated link to `target`; yields the address of its near end."""
    flags = ["--listen", "127.0.0.1:0", "--target", target, "--network", condition.name]
    with Process("link", "midstream_lab.proxy", flags) as link:
        yield link.document(START_S)["listening"]


def edge_trial(folder: Path, server: str, setting: EdgeSetting) -> dict[str, Any]:
    """An edge process that plans, runs every strategy in turn, and reports."""
    arguments = ["edge", "run", str(folder), "--server", server, "--compare", "--json-line"]
    patience_s = START_S + 60.0 * setting.requests
    with Process("edge", "midstream", [*arguments, *setting.flags()]) as edge:
        return edge.document(patience_s)


def run_pair(
    folder: Path, condition: Condition, *, cloud: CloudSetting, edge: EdgeSetting, say: Say
) -> dict[str, Any]:
    """The document of one trial under one network condition."""
    (document,) = run_pairs(folder, [condition], cloud=cloud, edge=edge, say=say)
    return document


def run_pairs(
    folder: Path,
    conditions: Sequence[Condition],
    *,
    cloud: CloudSetting,
    edge: EdgeSetting,
    say: Say,
) -> list[dict[str, Any]]:
    """A trial under each condition, all against the same cloud process."""
    documents = []
    say(f"starting the cloud with {folder.name}")
    with cloud_process(folder, cloud) as server:
        for condition in conditions:
            say(f"{condition}: measuring the link, then {edge.requests} requests a plan")
            with link_process(server, condition) as near_end:
                trial = edge_trial(folder, near_end, edge)
            documents.append({"network": asdict(condition), **trial})
    return documents
