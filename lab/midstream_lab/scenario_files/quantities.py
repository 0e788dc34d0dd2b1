"""Fields of scenario files: quantities with units, and errors of one sentence.

Scenarios are frozen pydantic dataclasses; `read_scenario` makes one from a TOML file and turns
the first thing that is wrong into a `UsageError` naming the field and what it may be. Other
documents that pydantic reads say what is wrong with them by `first_wrong`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, final, get_args, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from midstream_partitioner.units import (
    parse_duration,
    parse_nbytes,
    parse_points,
    parse_rate,
    parse_share,
)
from midstream_wire.errors import UsageError
from midstream_wire.text import read_text

T = TypeVar("T")


def written(name: str) -> str:
    """Return how a field is called in the file, where values bring their units: rtt for
    rtt_s.
    """
    return re.sub(r"_(s|bps|nbytes)$", "", name)


CONFIG = ConfigDict(extra="forbid", alias_generator=written)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Words:
    """Words that sentences about a document use for it, and for its fields."""

    whole: str
    spell: Callable[[str], str]


_SCENARIO = Words("the scenario", written)

_OWN = "midstream"
#: Characters of a wrong value that a sentence shows.
_MOST_SHOWN = 80


def _quantity(parse: Callable[[str], float], what: str, example: str) -> BeforeValidator:
    def read(value: object) -> object:
        if not isinstance(value, str):
            raise wrong(
                f'must be {what} with its unit, such as "{example}" (not {_shown(value)})'
            )
        try:
            return parse(value)
        except UsageError as error:
            raise wrong(f"is wrong: {error}") from None

    return BeforeValidator(read)


def wrong(sentence: str, *where: str | int) -> PydanticCustomError:
    """Return what a validator raises; `sentence` goes on after the field's name, which is
    `where` in the table that is looked at, if that is a table.
    """
    return PydanticCustomError(_OWN, "{sentence}", {"sentence": sentence, "where": where})


def _share(value: object) -> object:
    if isinstance(value, str):
        try:
            return parse_share(value)
        except UsageError as error:
            raise wrong(f"is wrong: {error}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise wrong(f'must be a share from 0 to 1, such as "70%" or 0.7 (not {_shown(value)})')
    return float(value)


def within(least: float, most: float) -> AfterValidator:
    """The bounds of a number, both told where it lies outside."""

    def check(value: float) -> float:
        if not least <= value <= most:  # nor is NaN inside
            raise wrong(f"must be from {least:,} to {most:,} (not {_shown(value)})")
        return value

    return AfterValidator(check)


def above(least: float, most: float) -> AfterValidator:
    """The same without the lower bound itself."""

    def check(value: float) -> float:
        if not least < value <= most:
            raise wrong(f"must be above {least:,} and at most {most:,} (not {_shown(value)})")
        return value

    return AfterValidator(check)


def _printable(text: str) -> str:
    """Names become paths, and stand in tables of one line a row."""
    if not text.isprintable():
        raise wrong(f"must have no line ends or other control characters (not {_shown(text)})")
    return text


Rate = Annotated[float, _quantity(parse_rate, "a rate", "8Mbit")]
Duration = Annotated[float, _quantity(parse_duration, "a duration", "40ms")]
Size = Annotated[int, _quantity(parse_nbytes, "a size", "150KB")]
Share = Annotated[float, BeforeValidator(_share)]
Points = Annotated[float, _quantity(parse_points, "a loss", "0.5pt")]
# No coercion: 1 is no name, "1" no number.
Name = Annotated[
    str, Field(min_length=1, max_length=200, strict=True), AfterValidator(_printable)
]
Flag = Annotated[bool, Field(strict=True)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False, strict=True)]
Slowdown = Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32, strict=True)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1)]


def read_scenario(kind: type[T], path: Path) -> T:
    """The scenario in the TOML file at `path`; `UsageError` if it is not one."""
    try:
        tables = tomllib.loads(read_text(path, "a scenario"))
    except RecursionError:
        raise UsageError(f"{path} must be a TOML file with fewer tables in tables") from None
    except ValueError as error:  # no TOML, a number that none can hold
        raise UsageError(f"{path} must be a readable TOML file ({error})") from None
    return scenario_from(kind, tables, source=str(path))


def scenario_from(kind: type[T], tables: Mapping[str, Any], *, source: str) -> T:
    """The same from tables that were read already."""
    try:
        return TypeAdapter(kind).validate_python(tables)
    except ValidationError as error:
        raise UsageError(f"{source}: {first_wrong(kind, error)}") from None


def first_wrong(kind: type, error: ValidationError, words: Words = _SCENARIO) -> str:
    """The first thing that is wrong with a document that `kind` describes, as a sentence: the
    field, what must hold, what came."""
    return _sentence(kind, min(error.errors(), key=_consequence), words)


def _consequence(error: ErrorDetails) -> int:
    """Return what is missing may be what was misspelt, and a list be empty for what was in
    it.
    """
    return {"missing": 1, "too_short": 2}.get(error["type"], 0)


#: What pydantic says in words of programmers.
_MUST = {
    "dataclass_type": "a table of fields",
    "tuple_type": "a list",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
}


def _sentence(kind: type, error: ErrorDetails, words: Words) -> str:
    where, came, context = error["loc"], _shown(error["input"]), error.get("ctx", {})
    field = _spelled((*where, *context.get("where", ()))) or words.whole
    match error["type"]:
        case "unexpected_keyword_argument":
            return _unknown_field(kind, where, words)
        case "missing":
            return f"{field} must be given"
        case "literal_error":
            return f"{field} must be {context['expected']} (not {came})"
        case "too_short":
            return f"{field} must not be empty"
        case type_ if type_ in _MUST:
            return f"{field} must be {_MUST[type_]} (not {came})"
        case type_ if type_ == _OWN:
            return f"{field} {error['msg']}"
    must = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{field} must be {must[0].lower()}{must[1:]} (not {came})"


def _shown(value: object) -> str:
    """Return what came, but no page of it."""
    try:
        text = repr(value)
    except ValueError:  # Python spells no whole number of more than 4,300 digits
        return "one of thousands of digits"
    except RecursionError:
        return "one of thousands of levels"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def _spelled(where: Sequence[str | int]) -> str:
    """ "traces[1].rate": as one would look for it in the file, counted from 1."""
    text = ""
    for part in where:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _unknown_field(kind: type, where: Sequence[str | int], words: Words) -> str:
    *table, name = where
    fields = dataclasses.fields(_table_at(kind, table, words.spell))
    known = [words.spell(each.name) for each in fields]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"{_spelled(table) or words.whole} has no field {_shown(name)}: {hint}"


def _table_at(kind: Any, where: Sequence[str | int], spell: Callable[[str], str]) -> Any:
    """The dataclass that describes the table at `where` in a scenario of `kind`."""
    for part in where:
        if isinstance(part, str):
            hints = {spell(name): hint for name, hint in get_type_hints(kind).items()}
            kind = _dataclass_in(hints[part])
    return kind


def _dataclass_in(hint: Any) -> Any:
    """The dataclass inside tuple[X, ...] and X | None."""
    if dataclasses.is_dataclass(hint):
        return hint
    found = (_dataclass_in(each) for each in get_args(hint))
    return next((each for each in found if each is not None), None)
