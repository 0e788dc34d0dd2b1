"""Fields of scenario files: quantities with units, and errors of one sentence.

Scenarios are frozen pydantic dataclasses; `read_scenario` makes one from a TOML file and turns
the first thing that is wrong into a `UsageError` naming the field and what it may be.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from midstream_partitioner.units import (
    parse_duration,
    parse_nbytes,
    parse_points,
    parse_rate,
    parse_share,
)
from midstream_wire.errors import UsageError

T = TypeVar("T")


def written(name: str) -> str:
    """How a field is called in the file, where values bring their units: rtt for rtt_s."""
    return re.sub(r"_(s|bps|nbytes)$", "", name)


CONFIG = ConfigDict(extra="forbid", alias_generator=written)

_OWN = "midstream"


def _quantity(parse: Callable[[str], float], what: str, example: str) -> BeforeValidator:
    def read(value: object) -> object:
        if not isinstance(value, str):
            raise wrong(f'must be {what} with its unit, such as "{example}" (not {value!r})')
        try:
            return parse(value)
        except UsageError as error:
            raise wrong(f"is wrong: {error}") from None

    return BeforeValidator(read)


def wrong(sentence: str) -> PydanticCustomError:
    """What a validator raises; `sentence` goes on after the field's name."""
    return PydanticCustomError(_OWN, "{sentence}", {"sentence": sentence})


Rate = Annotated[float, _quantity(parse_rate, "a rate", "8Mbit")]
Duration = Annotated[float, _quantity(parse_duration, "a duration", "40ms")]
Size = Annotated[int, _quantity(parse_nbytes, "a size", "150KB")]
Share = Annotated[float, _quantity(parse_share, "a share", "1%")]
Points = Annotated[float, _quantity(parse_points, "a loss", "0.5pt")]
# No coercion: 1 is no name, "1" no number.
Name = Annotated[str, Field(min_length=1, max_length=200, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False, strict=True)]
Slowdown = Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32, strict=True)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]


def read_scenario(kind: type[T], path: Path) -> T:
    """The scenario in the TOML file at `path`; `UsageError` if it is not one."""
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such file: {path} (a scenario is described in TOML)") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} must be a readable TOML file ({error})") from None
    return scenario_from(kind, tables, source=str(path))


def scenario_from(kind: type[T], tables: Mapping[str, Any], *, source: str) -> T:
    """The same from tables that were read already."""
    try:
        return TypeAdapter(kind).validate_python(tables)
    except ValidationError as error:
        first = min(error.errors(), key=_consequence)
        raise UsageError(f"{source}: {_sentence(kind, first)}") from None


def _consequence(error: ErrorDetails) -> int:
    """What is missing may be what was misspelt, and a list be empty for what was in it."""
    return {"missing": 1, "too_short": 2}.get(error["type"], 0)


def _sentence(kind: type, error: ErrorDetails) -> str:
    """One pydantic error as: the field, what must hold, what came."""
    where, came, context = error["loc"], error["input"], error.get("ctx", {})
    field = _spelled(where)
    match error["type"]:
        case "unexpected_keyword_argument":
            return _unknown_field(kind, where)
        case "missing":
            return f"{field} must be given"
        case "dataclass_type":
            return f"{field} must be a table of fields (not {came!r})"
        case "literal_error":
            return f"{field} must be {context['expected']} (not {came!r})"
        case "tuple_type":
            return f"{field} must be a list (not {came!r})"
        case "too_short":
            return f"{field} must not be empty"
        case kind_ if kind_ == _OWN:
            return f"{field} {error['msg']}"
    must = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{field} must be {must[0].lower()}{must[1:]} (not {came!r})"


def _spelled(where: Sequence[str | int]) -> str:
    """ "traces[1].rate": as one would look for it in the file, counted from 1."""
    text = ""
    for part in where:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the scenario"


def _unknown_field(kind: type, where: Sequence[str | int]) -> str:
    *table, name = where
    known = [written(each.name) for each in dataclasses.fields(_table_at(kind, table))]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{_spelled(table)} has no field {str(name)!r}: {hint}"


def _table_at(kind: Any, where: Sequence[str | int]) -> Any:
    """The dataclass that describes the table at `where` in a scenario of `kind`."""
    for part in where:
        if isinstance(part, str):
            hints = {written(name): hint for name, hint in get_type_hints(kind).items()}
            kind = _dataclass_in(hints[part])
    return kind


def _dataclass_in(hint: Any) -> Any:
    """The dataclass inside tuple[X, ...] and X | None."""
    if dataclasses.is_dataclass(hint):
        return hint
    found = (_dataclass_in(each) for each in get_args(hint))
    return next((each for each in found if each is not None), None)
