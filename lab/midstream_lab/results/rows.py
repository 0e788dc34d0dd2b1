"""Records of runs: a row per request, the facts of the run, files of both.

One finished run is one file, written whole or not at all. All rows of an experiment together
are a table in CSV, which everything reads.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, JsonValue
from pydantic.dataclasses import dataclass as checked_dataclass

from midstream_wire.errors import MidstreamError
from midstream_wire.foreign_text import file_name

#: Moments on a trace's clock, and the rate from each on.
Curve = tuple[tuple[float, float], ...]
Kind = Literal["number", "integer", "word", "flag"]

#: A file of a run that has a field nobody knows is refused.
STRICT = ConfigDict(extra="forbid")
_DTYPES: Mapping[Kind, Any] = {
    "number": np.float64, "integer": np.int64, "word": np.str_, "flag": np.bool_,
}  # fmt: skip
#: What stands for a value that is not there.
_MISSING: Mapping[Kind, Any] = {"number": math.nan, "integer": 0, "word": "", "flag": False}


@final
@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table of requests."""

    name: str
    kind: Kind
    meaning: str


#: A row per request, in the order of submission.
COLUMNS: tuple[Column, ...] = (
    Column("at_s", "number", "when it was submitted, from the run's start"),
    Column("trace_s", "number", "the same on the trace's own clock"),
    Column("latency_s", "number", "from submission to answer; empty where there was none"),
    Column("where", "word", "cloud, edge, edge-after-cloud-failed, edge-before-cloud"),
    Column("hedged", "flag", "whether the edge ran the rest as well"),
    Column("reason", "word", "why the edge finished it, where it did after all"),
    Column("k", "integer", "segments that the edge ran first"),
    Column("cut", "word", "id of the cut"),
    Column("codec", "word", "id of the codec"),
    Column("payload_nbytes", "integer", "sent"),
    Column("reply_nbytes", "integer", "received"),
    Column("head_s", "number", "measured: the first segments, on the edge"),
    Column("encode_s", "number", "making the payload"),
    Column("uplink_s", "number", "the payload on its way"),
    Column("queue_s", "number", "waiting for the cloud"),
    Column("decode_s", "number", "reading the payload"),
    Column("tail_s", "number", "the remaining segments"),
    Column("downlink_s", "number", "the reply on its way"),
    Column("predicted_s", "number", "what the policy expected altogether, a hedge counted"),
    Column("link", "word", "connected, suspect or down"),
    Column("uplink_bps", "number", "the trace's rate at submission"),
    Column("belief_bps", "number", "what the policy believed of it"),
    Column("belief_low_bps", "number", "lower end of that belief"),
    Column("belief_high_bps", "number", "upper end of that belief"),
    Column("belief_rtt_s", "number", "what it believed of the round trip"),
    Column("edge_busy_s", "number", "seconds of computing on the edge, hedged work included"),
    Column("energy_j", "number", "what the edge spent"),
    Column("switched", "flag", "whether the placement differs from the one before"),
    Column("failed", "word", "why there is no answer; empty where there is one"),
)
#: The kind of every column, by name.
COLUMN_KINDS = {column.name: column.kind for column in COLUMNS}


@final
@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """The key of a run: policy, model, trace, and the seed of all that is random."""

    model: str
    trace: str
    policy: str
    seed: int

    @property
    def cell(self) -> tuple[str, str, int]:
        """Return what policies are compared over: the same model, trace and seed."""
        return self.model, self.trace, self.seed

    @property
    def filename(self) -> str:
        """Readable where possible, and different for different keys in any case."""
        parts = (self.model, self.trace, self.policy, str(self.seed))
        return "~".join(map(file_name, parts)) + ".json.gz"

    def __str__(self) -> str:
        return f"{self.policy} on {self.model} over {self.trace}, seed {self.seed}"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The requests of one run: for every one of `COLUMNS` an array, all of one length."""

    columns: Mapping[str, NDArray[Any]]

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["at_s"])

    def where(self, mask: NDArray[np.bool_]) -> Rows:
        return Rows({name: column[mask] for name, column in self.columns.items()})

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Return a mask of those that have a latency."""
        return np.asarray(np.isfinite(self["latency_s"]))


def rows_of(records: Iterable[Mapping[str, Any]]) -> Rows:
    """Rows from one mapping per request; what one of them lacks is empty."""
    listed = list(records)
    return Rows(
        {
            column.name: column_array(
                column.kind, [record.get(column.name) for record in listed]
            )
            for column in COLUMNS
        }
    )


def column_array(kind: Kind, values: Sequence[Any]) -> NDArray[Any]:
    """Return `values` as an array of the dtype of `kind`; None is what is missing."""
    missing = _MISSING[kind]
    given = [missing if value is None else value for value in values]
    return np.asarray(given, dtype=_DTYPES[kind])


@final
@checked_dataclass(frozen=True, config=STRICT)
class Facts:
    """Facts of a run besides its rows.

    `validity` is the emulation's word on itself and `void` why the run does not count, None
    where it does. `settings` are all that the outcome depends on, as the scenario has it.
    `menu` are the placements that could be chosen, as the profiles have them, and `bandwidth`
    is the true uplink over the run. `cuts` are the moments on the run's clock at which the
    link was cut, and for how long. `policy_errors` counts how often the policy raised, or
    answered with what cannot be.
    """

    kind: Literal["measured", "simulated"]
    began: str
    duration_s: float
    requests: int
    answered: int
    lost: int
    duplicated: int
    local: int
    hedges: int
    switches: int
    reconnects: int
    probe_nbytes: int
    uplink_nbytes: int
    downlink_nbytes: int
    probe_share: float
    edge: dict[str, JsonValue]
    cloud: dict[str, JsonValue]
    link: dict[str, JsonValue]
    versions: dict[str, str]
    settings: dict[str, JsonValue]
    validity: dict[str, JsonValue] | None = None
    void: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)  # "cut codec" -> for people
    menu: tuple[dict[str, JsonValue], ...] = ()
    bandwidth: Curve = ()
    deadline_s: float | None = None
    cuts: tuple[tuple[float, float], ...] = ()
    policy_errors: int = 0


@final
@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """One finished run."""

    key: RunKey
    facts: Facts
    rows: Rows


def read_log(path: Path, *, origin_s: float, uplink: Curve) -> Iterator[dict[str, Any]]:
    """Records for `rows_of` from what `midstream edge run --log` writes, line by line.

    `origin_s` is the monotonic moment at which the trace began.
    """
    times_s = [at_s for at_s, _ in uplink]
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = _record(json.loads(line), origin_s)
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                raise MidstreamError(
                    f"a log must have one JSON object per request; line {number} of {path} "
                    f"has none ({error}): run it again"
                ) from None
            step = bisect_right(times_s, record["trace_s"]) - 1
            yield record | ({"uplink_bps": uplink[max(step, 0)][1]} if uplink else {})


def _record(line: Mapping[str, Any], origin_s: float) -> dict[str, Any]:
    """One request; one that failed has no latency, whatever it waited."""
    belief = line.get("belief") or {}
    timings = line.get("timings") or {}
    record = {name: line.get(name) for name in COLUMN_KINDS}
    record |= {name: value for name, value in timings.items() if name in COLUMN_KINDS}
    return record | {
        "trace_s": line["monotonic_s"] - origin_s,
        "latency_s": line["latency_s"] if line["failed"] is None else None,
        "predicted_s": line.get("expected_s"),
        "belief_bps": belief.get("uplink_bps"),
        "belief_low_bps": belief.get("low_bps"),
        "belief_high_bps": belief.get("high_bps"),
        "belief_rtt_s": belief.get("rtt_s"),
    }
