"""Preparation that all runs of a model share: partition, profiles, fixed placements.

Made once with the commands that a user types and kept in the experiment's folder, so that
every run, also one after an interruption, plans from the same figures.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from midstream_lab.experiment.scenario import EVERY_FIXED, ModelTable, Scenario, SideTable
from midstream_lab.processes.process import environment
from midstream_partitioner.codec_plugins import plugin_flags
from midstream_partitioner.codec_spec import full_id
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import load_profile
from midstream_partitioner.graph.cuts import EDGE_ONLY
from midstream_partitioner.lifeline import tied
from midstream_partitioner.partition.folder import SUFFIX, is_partition, load_partition
from midstream_partitioner.planning.envelope import envelope_of
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.profiling.codec_ladder import calibrated_codecs, usual_codecs
from midstream_wire.errors import MidstreamError, UsageError
from midstream_wire.foreign_text import file_name

#: Fixed placements are those that are best at some uplink between these.
FROM_BPS, TO_BPS = 100e3, 1e9
#: The downlink that placements are compared at, where the scenario gives none.
DOWNLINK_BPS = 100e6
#: Runs of a profile; more than for a single plan, as all runs stand on it.
RUNS = 30


@final
@dataclass(frozen=True, slots=True)
class Prepared:
    """A model ready to run: its partition, both profiles, the policies to be run."""

    table: ModelTable
    folder: Path
    edge_profile: Path
    cloud_profile: Path
    digest: str
    policies: tuple[str, ...]


def cut_all(models: Sequence[ModelTable], folder: Path) -> dict[str, Path]:
    """The folders of all `models`' partitions, by name; those not there yet lie in `folder`.

    Raises what is wrong with each that cannot be cut, in one sentence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Path] = {}
    wrong: list[tuple[str, MidstreamError]] = []
    for model in models:
        try:
            found[model.name] = _partition(model, folder)
            load_partition(found[model.name])
        except MidstreamError as error:
            wrong.append((model.name, error))
    if wrong:
        asked = all(isinstance(error, UsageError) for _, error in wrong)
        told = "; ".join(f"{name}: {error}" for name, error in wrong)
        raise (UsageError if asked else MidstreamError)(f"models: {told}")
    return found


def prepare(
    scenario: Scenario, model: ModelTable, folder: Path, *, partition: Path
) -> Prepared:
    """Profile `model` into `folder`, as far as it is not there already."""
    edge = _profile(scenario, model, scenario.edge, partition, folder)
    cloud = _profile(scenario, model, scenario.cloud, partition, folder)
    return Prepared(
        model,
        partition,
        edge,
        cloud,
        digest_of(*_known(partition), edge.read_bytes(), cloud.read_bytes()),
        _policies(scenario, partition, edge, cloud),
    )


def _known(partition: Path) -> list[bytes]:
    """The partition's digest, and its calibration where there is one."""
    part = load_partition(partition)
    found = part.calibration
    return [part.digest.encode(), *([found.to_json().encode()] if found else [])]


def _partition(model: ModelTable, folder: Path) -> Path:
    """Cut by arithmetic alone, so that every machine compares the same placements."""
    if is_partition(Path(model.source)):
        return Path(model.source)
    path = folder / f"{file_name(model.name)}{SUFFIX}"
    if not is_partition(path):
        _command(["partition", model.source, "--no-measure", "-o", str(path)])
    return path


def _profile(
    scenario: Scenario, model: ModelTable, side: SideTable, partition: Path, folder: Path
) -> Path:
    """The profile of one side; another speed, input or calibration has another file."""
    flags = ["--threads", str(side.threads), "--slowdown", f"{side.slowdown:g}"]
    flags += [*side.run_by(), *plugin_flags(scenario.codec_plugins)]
    flags += ["--input", model.input] if model.input else []
    calibrated = calibrated_codecs(load_partition(partition))
    known = {*map(full_id, usual_codecs()), *calibrated}
    further = [name for name in map(full_id, scenario.planning.codecs) if name not in known]
    flags += ["--codecs", ",".join(further)] if further else []
    measured = [*flags, str(partition), *calibrated]
    digest = digest_of(" ".join(measured).encode())
    path = folder / f"{file_name(model.name)}.{digest}.json"
    if not path.exists():
        partial = path.with_suffix(".partial")
        runs = ["--runs", str(RUNS), "-o", str(partial)]
        _command(["profile", str(partition), *flags, *runs])
        partial.replace(path)
    return path


def _policies(scenario: Scenario, partition: Path, edge: Path, cloud: Path) -> tuple[str, ...]:
    """The scenario's, "fixed" spelled out as every placement that is best somewhere.

    With all else given, a placement's latency is a line in 1/bandwidth, and so is its mean
    over any trace: the best fixed placement of a trace is one that is best at some bandwidth.
    """
    if EVERY_FIXED not in scenario.policies:
        return scenario.policies
    part = load_partition(partition)
    planner = Planner(
        part,
        *map(load_profile, (edge, cloud)),
        constraints=scenario.planning.constraints(),
    )
    downlink_bps = scenario.link.downlink_bps or DOWNLINK_BPS
    link = Link(FROM_BPS, downlink_bps, scenario.link.rtt_s)
    rows = envelope_of(planner, link, from_bps=FROM_BPS, to_bps=TO_BPS).rows
    fixed = [
        EDGE_ONLY if row.cut == EDGE_ONLY else f"fixed:{row.cut}:{row.codec}" for row in rows
    ]
    at = scenario.policies.index(EVERY_FIXED)
    return tuple(
        dict.fromkeys([*scenario.policies[:at], *fixed, *scenario.policies[at + 1 :]])
    )


def digest_of(*contents: bytes) -> str:
    """Short, by which to see that something is not what it was."""
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:12]


def _command(arguments: Sequence[str]) -> None:
    """Run a command of midstream to its end; raises its own complaint."""
    done = subprocess.run(
        [sys.executable, "-m", "midstream", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        # Ctrl-C reaches the parent alone, which ends this.
        start_new_session=True,
        **tied(environment()),
    )
    if done.returncode:
        said = " ".join(done.stderr.split()).removeprefix("error: ") or "without a word"
        kind = UsageError if done.returncode == 2 else MidstreamError
        raise kind(f"`midstream {' '.join(arguments[:2])}` ended: {said}")
