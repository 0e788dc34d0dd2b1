"""A menu as a file: simulating then needs no model and no measuring."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from midstream_edge.policies.menu import Menu
from midstream_lab.scenario_files.quantities import Words, first_wrong, within
from midstream_partitioner.costs.device import Device
from midstream_partitioner.graph.cuts import EDGE_ONLY
from midstream_partitioner.planning.placements import SIMPLE_PIPELINE, Pipeline, Placement
from midstream_wire.errors import UsageError
from midstream_wire.text import read_text

#: What a menu's name ends in, by which commands know it for one.
SUFFIX = ".json"
#: A menu has some dozens of placements; this is room for thousands.
MOST_NBYTES = 4 << 20
#: Of one placement's stage: eleven days.
MOST_S = 1_000_000
#: Of one placement's payload, 64 GiB: a hundred million of them still add up in an int64.
MOST_SENT_NBYTES = 1 << 36
#: Figures of a placement, and what each is at most.
_BOUNDS: dict[str, float] = {
    **dict.fromkeys(("head_s", "encode_s", "decode_s", "tail_s", "rest_s"), MOST_S),
    **dict.fromkeys(("payload_nbytes", "payloads_nbytes", "reply_nbytes"), MOST_SENT_NBYTES),
    "k": 1_000_000,
}
#: Deviation of the logarithm of computing times; two times in three within a factor of seven.
MOST_SCATTER = 2
#: What computed the times of a menu that does not say so.
UNKNOWN = Device("?", 1)


@final
@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A menu and the edge's device it was measured on, whose power figures price energy.

    `scatter` is by how much that edge's times varied: the deviation of their logarithms.
    """

    name: str
    menu: Menu
    device: Device
    scatter: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return what `read_menu` reads."""
        return {
            "model": self.name,
            "device": self.device.to_dict(),
            "objective": self.menu.objective,
            "scatter": self.scatter,
            "pipeline": asdict(self.menu.pipeline),
            "menu": [asdict(placement) for placement in self.menu.placements],
        }


@final
@dataclass(frozen=True, slots=True)
class _File:
    """The document; what older files do not have, and written by hand need not, is assumed."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    menu: Annotated[tuple[Placement, ...], Field(min_length=1)]
    model: Annotated[str, Field(min_length=1)] | None = None
    device: Device = UNKNOWN
    objective: Literal["latency", "throughput", "energy"] = "latency"
    scatter: Annotated[float, within(0, MOST_SCATTER)] = 0.0
    pipeline: Pipeline = SIMPLE_PIPELINE


_FILE = TypeAdapter(_File)
_WORDS = Words("the menu's file", str)


def read_menu(path: Path) -> MeasuredModel:
    """Read the menu in a JSON file, as `midstream simulate MODEL --menu-output` writes it.

    The file is an object with `menu` (a list of placements) and, where they are not to be
    assumed, `device`, `model`, `objective`, `scatter` and `pipeline`. Raises `UsageError`.
    """
    content = read_text(path, "a menu", max_nbytes=MOST_NBYTES)
    try:
        found = _FILE.validate_json(content)
        _check(found.menu)
    except ValidationError as error:
        raise UsageError(f"{path}: {_told(error)}") from None
    except UsageError as error:  # of a device, or a placement's figures
        raise UsageError(f"{path}: {error}") from None
    menu = Menu(found.menu, found.objective, found.pipeline)
    return MeasuredModel(found.model or path.stem, menu, found.device, found.scatter)


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"a menu must be JSON ({first['msg'].removeprefix('Invalid JSON: ')})"
    return first_wrong(_File, error, _WORDS)


def _check(placements: tuple[Placement, ...]) -> None:
    """Figures that can be: a simulation would never end with others."""
    for number, placement in enumerate(placements, 1):
        if placement.remote == (placement.cut == EDGE_ONLY):
            raise UsageError(
                f"menu[{number}].remote of {placement.label!r} must be false for {EDGE_ONLY} "
                f"and true for any other cut (not {placement.remote} for {placement.cut!r})"
            )
        for name, most in _BOUNDS.items():
            given = getattr(placement, name)
            values = given if isinstance(given, tuple) else (given,)
            wrong = [each for each in values if each is not None and not 0 <= each <= most]
            if wrong:
                raise UsageError(
                    f"menu[{number}].{name} of {placement.label!r} must be from 0 to {most:,} "
                    f"(not {wrong[0]!r})"
                )
