"""Cloud, link and edge as three processes on one machine, and what they measured together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from midstream_lab.emulation.emulate import Emulation
from midstream_lab.processes.process import Process
from midstream_lab.traces.conditions import Condition

#: Loading and profiling a large network takes seconds on a small machine.
START_S = 120.0

#: The policy that knows the uplink's future.
ORACLE = "oracle"

Say = Callable[[str], None]


@final
@dataclass(frozen=True, slots=True)
class CloudSetting:
    """Settings of the cloud process; `profile` is a file that stands in for measuring it."""

    threads: int = 1
    slowdown: float = 1.0
    profile: Path | None = None
    run_by: tuple[str, ...] = ()  # the flags of a backend, as typed

    def flags(self) -> list[str]:
        flags = ["--threads", str(self.threads), "--slowdown", str(self.slowdown)]
        flags += self.run_by
        return [*flags, "--profile", str(self.profile)] if self.profile else flags


@final
@dataclass(frozen=True, slots=True)
class EdgeSetting:
    """Settings of the edge process: its speed, its input, its plan."""

    threads: int = 1
    slowdown: float = 1.0
    requests: int = 20
    input: str | None = None
    seed: int = 0
    planning: tuple[str, ...] = ()  # further flags of `midstream edge run`, as typed
    run_by: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        flags = ["--threads", str(self.threads), "--slowdown", str(self.slowdown)]
        flags += self.run_by
        flags += ["--requests", str(self.requests)]
        # Only random inputs have a seed.
        drawn = ["--seed", str(self.seed)]
        flags += drawn if self.input is None else ["--input", self.input]
        return [*flags, *self.planning]


@contextmanager
def cloud_process(
    folder: Path,
    setting: CloudSetting,
    *,
    listen: str = "127.0.0.1:0",
    prefix: Sequence[str] = (),
) -> Iterator[str]:
    """A cloud that serves the partition in `folder`; yields its address."""
    flags = ["--listen", listen, *setting.flags(), "--json"]
    # Behind a prefix it is alone with the edge in namespaces that nobody else can reach.
    flags += ["--insecure"] if prefix else []
    arguments = ["cloud", "serve", str(folder), *flags]
    with Process("cloud", "midstream", arguments, prefix=prefix) as cloud:
        yield cloud.document(START_S)["listening"]


@contextmanager
def link_process(target: str, condition: Condition) -> Iterator[str]:
    """An emulated link to `target`; yields the address of its near end."""
    flags = ["--listen", "127.0.0.1:0", "--target", target, "--link", condition.name]
    with Process("link", "midstream_lab.emulation.proxy.proxy", flags) as link:
        yield link.document(START_S)["listening"]


def edge_trial(folder: Path, server: str, setting: EdgeSetting) -> dict[str, Any]:
    """An edge process that plans, runs every placement in turn, and reports."""
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


@final
@dataclass(frozen=True, slots=True)
class Drive:
    """A run under a policy: who chooses, for how long, and when requests are sent.

    `trace` is the uplink's trace as a file or a kind, for a policy that knows the future.
    """

    policy: str = "adaptive"
    duration_s: float = 60.0
    every_s: float | None = None
    log: Path | None = None
    trace: str | None = None
    probe_budget: str | None = None

    def flags(self) -> list[str]:
        flags = ["--adaptive", "--policy", self.policy, "--duration", f"{self.duration_s}s"]
        flags += ["--every", f"{self.every_s}s"] if self.every_s is not None else []
        flags += ["--log", str(self.log)] if self.log is not None else []
        flags += ["--probe-budget", self.probe_budget] if self.probe_budget else []
        if self.trace is not None and self.policy == ORACLE:
            flags += ["--trace", self.trace]
        return [*flags, "--gate"]


def run_policy(
    folder: Path,
    link: Emulation,
    drive: Drive,
    *,
    cloud: CloudSetting,
    edge: EdgeSetting,
    say: Say,
) -> dict[str, Any]:
    """The document of one run under a policy over a link that is up.

    The link's trace begins when the edge stands ready, so that every policy meets the same.
    """
    with cloud_process(
        folder, cloud, listen=link.cloud_listen, prefix=link.cloud_prefix
    ) as address:
        say(f"{drive.policy} over {link.backend} for {drive.duration_s:g} s")
        arguments = ["edge", "run", str(folder), "--server", link.reach(address)]
        arguments += ["--insecure"] if link.edge_prefix else []
        arguments += [*drive.flags(), *edge.flags(), "--json-line"]
        with Process("edge", "midstream", arguments, prefix=link.edge_prefix) as process:
            process.document(START_S)  # it is ready
            link.begin()
            origin_s = link.start_trace()
            process.tell(repr(origin_s))
            document = process.document(START_S + 2 * drive.duration_s)
    return {**document, "trace_origin_s": origin_s, "emulation": link.describe()}
