"""`midstream calibrate`: what codecs do to a model's answers, kept beside its partition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import typer

from midstream.cli.commands.codecs import (
    DataSource,
    Labels,
    Ladder,
    MetricName,
    Samples,
    ladder,
    print_codecs,
)
from midstream.cli.flags.common import (
    CodecPlugins,
    Json,
    Model,
    Runs,
    Seed,
    Size,
    Threads,
    takes,
)
from midstream.cli.flags.feed import takes_feed
from midstream.cli.opening import opened_partition
from midstream.cli.output import console
from midstream.documents import calibration_document
from midstream.feeding import Feeding
from midstream.loaders import open_metric
from midstream_partitioner.costs.calibration import Calibration, save_calibration
from midstream_partitioner.costs.device import this_device
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.folder import (
    SUFFIX,
    check_room,
    is_partition,
    load_partition,
    save_partition,
    save_profile,
)
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.profiling.buckets import profile_sizes
from midstream_partitioner.profiling.calibrator import calibrate as measure
from midstream_partitioner.profiling.codec_ladder import (
    BEHIND_TRANSFORMS,
    LADDER,
    behind_transforms,
    ladder_of,
    usual_codecs,
)
from midstream_partitioner.profiling.dataset import Data, read_data
from midstream_partitioner.profiling.fit_transforms import fit_transforms
from midstream_partitioner.profiling.profiler import SIZED
from midstream_partitioner.units import parse_share
from midstream_wire.errors import UsageError


@final
@dataclass(frozen=True, slots=True)
class Fits:
    """Transforms and priors to fit to the samples before codecs are measured."""

    shares: Sequence[float] = ()
    dials: Sequence[float] = ()
    shaped: Sequence[float] = ()

    def to(self, chain: Chain, source: Data, codecs: Sequence[str] | None) -> Chain:
        """Return the chain of the partition with what is asked for, fitted to `source`.

        Raises `UsageError` where `codecs` would measure none of it.
        """
        if not (self.shares or self.dials or self.shaped):
            return chain
        self.check(codecs or LADDER)
        with console.progress(f"fitting transforms of {chain.partition.name}") as tick:
            part = fit_transforms(
                chain, source.inputs, self.shares,
                dials=self.dials, shaped=self.shaped, progress=tick,
            )  # fmt: skip
        return Chain(part, threads=chain.threads)

    def check(self, codecs: Sequence[str]) -> None:
        """Refuse to fit, for minutes, what is not measured afterwards."""
        whole = [name for name in codecs if "+" in name]
        if whole:
            raise UsageError(
                "--codecs must name codecs alone where transforms are fitted (not "
                f"{whole[0]!r}): they are measured behind each of the new transforms"
            )
        if self.shares and not behind_transforms(codecs):
            raise UsageError(
                f"--transforms needs a codec behind them, {', '.join(BEHIND_TRANSFORMS)} (not "
                f"{', '.join(codecs)}): name one in --codecs, or leave --codecs out"
            )


def _fits(
    transforms: Annotated[
        str | None,
        typer.Option(
            "--transforms",
            help="Shares of the energy that fitted transforms (KLT) keep (99.9%,99%).",
        ),
    ] = None,
    priors: Annotated[
        str | None,
        typer.Option(
            "--priors",
            help="Steps of fitted priors, in standard deviations (0.45,0.6,1).",
        ),
    ] = None,
    shaped: Annotated[
        str | None,
        typer.Option(
            "--shaped",
            help="Steps of priors with noise shaping, which are slower to encode (0.7,1).",
        ),
    ] = None,
) -> Fits:
    return Fits(
        _listed(transforms, parse_share),
        _listed(priors, _endpoint),
        _listed(shaped, _endpoint),
    )


def _listed(text: str | None, parse: Callable[[str], float]) -> tuple[float, ...]:
    return () if text is None else tuple(map(parse, text.split(",")))


@takes_feed
@takes("fits", _fits)
def calibrate(
    model: Model,
    feed: Feeding,
    data: DataSource = None,
    labels: Labels = None,
    metric: MetricName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help=f"The partition's folder; NAME{SUFFIX} if not given."
        ),
    ] = None,
    samples: Samples = 512,
    only: Ladder = None,
    codec_plugin: CodecPlugins = None,  # loaded as it is read
    *,
    fits: Fits,
    size: Size = None,
    seed: Seed = 0,
    threads: Threads = 1,
    runs: Runs = 20,
    json: Json = False,
) -> None:
    """Run samples through every cut and codec, and keep what that does to the answers.

    The calibration lies in the partition's folder, beside a profile of this machine; a
    model is partitioned first. Every plan of that folder then chooses cut and codec
    together, within a budget of accuracy. What was interrupted goes on where it was. Use
    samples that the model was not trained on, and not those you will report results on.
    Without --data only sizes are measured, and plans stay as cautious as without.

    --transforms adds changes of coordinates over channels in front of the codecs, --priors
    and --shaped codes fitted to what crosses each cut, for the smallest payloads. All are part
    of the partition, which then has another digest: give cloud and edge the same folder.
    """
    part = opened_partition(model, feed=feed, size=size, like=data, calibrated=False)
    folder = _folder(model, part, output)
    score, names = open_metric(metric), ladder(only)
    source = read_data(part, data, labels=labels, count=samples, seed=seed)
    chain = fits.to(Chain(part, threads=threads), source, names)
    part = chain.partition
    _keep(part, folder)
    with console.progress(f"calibrating {part.name}") as tick:
        found = measure(
            chain,
            source,
            codecs=ladder_of(part, names),
            metric=score,
            folder=folder,
            progress=tick,
        )
    save_calibration(found, folder)
    profile = _profile(chain, source, found, runs=runs)
    save_profile(profile, folder)
    if json:
        console.print_json(calibration_document(part.name, folder, found))
        return
    print_codecs(part, found, profile.codecs)
    console.say(f"calibration and profile written to {folder}", to=console.err)


def _profile(chain: Chain, source: Data, found: Calibration, *, runs: int) -> Profile:
    """Return what this machine takes, with every codec that was calibrated."""
    with console.progress(f"profiling {chain.partition.name}") as tick:
        return profile_sizes(
            chain,
            source.inputs[:SIZED],
            this_device(threads=chain.threads),
            runs=runs,
            codecs=(*usual_codecs(), *found.codecs),
            progress=tick,
        )


def _endpoint(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            "--priors and --shaped must be steps in standard deviations, as 0.45,0.6 "
            f"(not {text!r})"
        ) from None


def _folder(model: str, part: Partition, output: Path | None) -> Path:
    """Return where the partition is kept; `UsageError`, before any work, where it cannot
    be.
    """
    at = Path(model)
    if is_partition(at) and output in (None, at):
        return at
    folder = output or Path(f"{part.name}{SUFFIX}")
    check_room(folder)
    return folder


def _keep(part: Partition, folder: Path) -> None:
    """Write the partition, unless it is there already."""
    if is_partition(folder):
        there = load_partition(folder, calibrated=False)
        if (there.digest, there.feed) == (part.digest, part.feed):
            return
    save_partition(part, folder)
