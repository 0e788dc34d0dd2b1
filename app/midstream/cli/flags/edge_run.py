"""The flags of `midstream edge run` but for those of a policy, as three values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import typer

from midstream.cli.flags.common import Input, Runs, Seed, Slowdown, Threads, takes
from midstream.cli.opening import opened_partition, read_profile
from midstream.cli.output import console
from midstream.deployment import Deployment, EdgeSetup, EdgeSide, deploy
from midstream.feeding import Feeding
from midstream.loaders import Inputs, open_samples
from midstream_edge.link.endpoint import Endpoint
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.costs.size_spans import parse_sizes
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.inputs.samples import Sample
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.profiling.profiler import no_progress
from midstream_partitioner.units import parse_duration
from midstream_wire.descriptions import ModelDescription

#: Requests where nobody says how many.
REQUESTS = 10


@final
@dataclass(frozen=True, slots=True)
class Workload:
    """The inputs of the requests, and their number."""

    input: Input = None
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of requests. Default: 10; with --output every input once.",
        ),
    ] = None
    seed: Seed = 0

    @property
    def count(self) -> int:
        """Requests where each is not one of the inputs."""
        return REQUESTS if self.requests is None else self.requests

    def stream(self, part: Partition, *, every_once: bool) -> Iterator[Sample]:
        """Read an input for every request, or every one once where that was not said."""
        every_once = every_once and self.requests is None and self.input is not None
        count = None if every_once else self.count
        return read_inputs(part.feed, part.inputs, self.input, count=count, seed=self.seed)

    def open(self, part: Partition, *, distinct: int) -> Inputs:
        """Read at most `distinct` inputs, which come in turn."""
        count = min(self.count, distinct)
        return open_samples(part, self.input, most=count, drawn=count, seed=self.seed)


@final
@dataclass(frozen=True, slots=True)
class Holding:
    """The segments that this edge holds, and the device's speed."""

    name: Annotated[str | None, typer.Option(help="Name of the model on the server.")] = None
    profile: Annotated[
        Path | None, typer.Option(help="Profile of this edge. Default: measured.")
    ] = None
    runs: Runs = 20
    segments: Annotated[
        int | None,
        typer.Option(min=0, help="Number of first segments to hold, to save memory."),
    ] = None
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Compile the plan's head into one piece (fuse it).")
    ] = False
    fuse_after: Annotated[
        int,
        typer.Option(
            min=0,
            help="Fuse the head in the background after this many consecutive requests with "
            "the same cut (0: never).",
        ),
    ] = 0
    threads: Threads = 1
    slowdown: Slowdown = 1.0

    def setup(
        self,
        *,
        inputs: str | None,
        codecs: Sequence[str] | None,
        backend: Backend,
        within_nbytes: int | None,
    ) -> EdgeSetup:
        """The same as a value; raises `UsageError` for a profile that cannot be read."""
        return EdgeSetup(
            threads=self.threads,
            slowdown=self.slowdown,
            segments=self.segments,
            runs=self.runs,
            profile=read_profile(self.profile, backend),
            inputs=inputs,
            codecs=codecs or (),
            backend=backend,
            within_nbytes=within_nbytes,
        )

    def fuse_head(self, chain: Chain, k: int) -> None:
        """As was asked: the head of `k` segments now, any that stays in use later."""
        if self.fuse:
            chain.fuse(0, k)
        chain.fuse_stable(self.fuse_after)


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """The network that an edge runs, as it was named here and on the server."""

    model: str
    name: str | None
    feed: Feeding
    size: Sequence[str] | None

    def deploy(
        self,
        endpoint: Endpoint,
        setup: EdgeSetup,
        *,
        held: EdgeSide | None = None,
        models: tuple[ModelDescription, ...] | None = None,
    ) -> Deployment:
        """Agree with the server at `endpoint`, and measure what is held here; see `deploy`."""
        what = "agreeing with the server and profiling"
        # A session that runs already has the terminal for its answers.
        with console.progress(what) if held is None else nullcontext(no_progress) as tick:
            return deploy(
                self.model, endpoint, setup, feed=self.feed,
                sizes=parse_sizes(self.size or ()), model=self.name, progress=tick, held=held,
                models=models,
            )  # fmt: skip

    def hold(self, setup: EdgeSetup) -> EdgeSide:
        """Cut the network here, and measure it, for a server that cannot be asked yet."""
        with console.progress("profiling") as tick:
            part = opened_partition(
                self.model, feed=self.feed, size=self.size, like=setup.inputs
            )
            return setup.hold(part, model=self.name, progress=tick)


@final
@dataclass(frozen=True, slots=True)
class PlanFlags:
    """The use of the plan: followed, compared with others, or replaced by `cut`."""

    cut: str | None = None
    codec: str = "raw"
    compare: bool = False
    timeout_s: float | None = None
    require_cloud: bool = False


def _choice(
    cut: Annotated[
        str | None, typer.Option(help="Cut to use (its id), instead of planning.")
    ] = None,
    codec: Annotated[str, typer.Option(help="Codec, with --cut.")] = "raw",
    timeout: Annotated[
        str | None,
        typer.Option(
            help="Timeout of the cloud (5s). Default: 3 times the prediction, at least 5s."
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Run the plan beside all baselines, and check the answers."
        ),
    ] = False,
    require_cloud: Annotated[
        bool,
        typer.Option(
            "--require-cloud",
            help="Exit with code 1 if no answer came from the cloud, and say why.",
        ),
    ] = False,
) -> PlanFlags:
    timeout_s = parse_duration(timeout) if timeout is not None else None
    return PlanFlags(cut, codec, compare, timeout_s, require_cloud)


takes_workload = takes("workload", Workload)
takes_holding = takes("holding", Holding)
takes_choice = takes("choice", _choice)
