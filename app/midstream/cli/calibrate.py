"""`midstream calibrate`: what codecs do to a network's answers, kept beside its partition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from midstream.cli import console
from midstream.cli.codecs import (
    DataSource,
    Labels,
    Ladder,
    MetricName,
    Samples,
    ladder,
    print_codecs,
)
from midstream.cli.opened import opened_partition
from midstream.cli.options import Json, Model, Runs, Seed, Size, Threads, takes_feed
from midstream.documents import calibration_document
from midstream.feeding import Feeding
from midstream.sources import open_metric
from midstream_partitioner.artefact import (
    SUFFIX,
    check_room,
    is_partition,
    load_partition,
    save_partition,
    save_profile,
)
from midstream_partitioner.calibrate import calibrate as measure
from midstream_partitioner.calibration import save_calibration
from midstream_partitioner.chain import Chain
from midstream_partitioner.data import read_data
from midstream_partitioner.device import this_device
from midstream_partitioner.fitting import fit_transforms
from midstream_partitioner.measure import (
    BEHIND_TRANSFORMS,
    CODECS,
    LADDER,
    SIZED,
    behind_transforms,
    ladder_of,
    profile_segments,
)
from midstream_partitioner.partition import Partition
from midstream_partitioner.units import parse_share
from midstream_wire.errors import UsageError


@takes_feed
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
    transforms: Annotated[
        str | None,
        typer.Option(
            "--transforms",
            help="Fit transforms (KLT) that keep these shares of the energy: 99.9%,99%.",
        ),
    ] = None,
    priors: Annotated[
        str | None,
        typer.Option(
            "--priors",
            help="Fit priors for these steps, in standard deviations: 0.45,0.6,1.",
        ),
    ] = None,
    shaped: Annotated[
        str | None,
        typer.Option(
            "--shaped",
            help="The same, rounded as the next layers notice least: 0.7,1 (slower).",
        ),
    ] = None,
    size: Size = None,
    seed: Seed = 0,
    threads: Threads = 1,
    runs: Runs = 20,
    json: Json = False,
) -> None:
    """Run samples through every cut and codec, and keep what that does to the answers.

    The calibration lies in the partition's folder, beside a profile of this machine; a
    network is partitioned first. Every plan of that folder then chooses cut and codec
    together, within a budget of accuracy. What was interrupted goes on where it was. Use
    samples that the network was not trained on, and not those you will report results on.
    Without --data only sizes are measured, and plans stay as cautious as without.

    --transforms adds changes of coordinates over channels in front of the codecs, --priors
    and --shaped codes fitted to what crosses each cut, for the smallest payloads. All are part
    of the partition, which then has another digest: give cloud and edge the same folder.
    """
    part = opened_partition(model, feed=feed, size=size, like=data, calibrated=False)
    score = open_metric(metric)
    names = ladder(only)
    source = read_data(part, data, labels=labels, count=samples, seed=seed)
    chain = Chain(part, threads=threads)
    shares = [parse_share(share) for share in transforms.split(",")] if transforms else []
    plain, noticed = (
        [_parse_dial(dial) for dial in dials.split(",")] if dials else []
        for dials in (priors, shaped)
    )
    if shares or plain or noticed:
        _check_fits(names or LADDER, shares)
        with console.progress(f"fitting transforms of {part.name}") as tick:
            part = fit_transforms(
                chain, source.inputs, shares, dials=plain, shaped=noticed, progress=tick
            )
        chain = Chain(part, threads=threads)
    folder = _folder(model, part, output)
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
    with console.progress(f"profiling {part.name}") as tick:
        profile = profile_segments(
            chain,
            source.inputs[:SIZED],
            this_device(threads=threads),
            runs=runs,
            codecs=(*CODECS, *found.codecs),
            progress=tick,
        )
    save_profile(profile, folder)
    if json:
        console.print_json(calibration_document(part.name, folder, found))
        return
    print_codecs(part, found, profile.codecs)
    console.say(f"calibration and profile written to {folder}", to=console.err)


def _check_fits(names: Sequence[str], shares: Sequence[float]) -> None:
    """Refuse to fit, for minutes, what is not measured afterwards."""
    whole = [name for name in names if "+" in name]
    if whole:
        raise UsageError(
            f"--codecs must name codecs alone where transforms are fitted (not {whole[0]!r}): "
            "they are measured behind each of the new transforms"
        )
    if shares and not behind_transforms(names):
        raise UsageError(
            f"--transforms needs a codec behind them, {', '.join(BEHIND_TRANSFORMS)} (not "
            f"{', '.join(names)}): name one in --codecs, or leave --codecs out"
        )


def _parse_dial(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            "--priors and --shaped must be steps in standard deviations, as 0.45,0.6 "
            f"(not {text!r})"
        ) from None


def _folder(model: str, part: Partition, output: Path | None) -> Path:
    """Where the partition lies, after writing it there if it does not yet."""
    at = Path(model)
    folder = output or (at if is_partition(at) else Path(f"{part.name}{SUFFIX}"))
    if is_partition(folder):
        there = load_partition(folder, calibrated=False)
        if (there.digest, there.feed) == (part.digest, part.feed):
            return folder
    check_room(folder)
    save_partition(part, folder)
    return folder
