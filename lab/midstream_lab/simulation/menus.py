"""What a policy may choose, as a file: simulating then needs no network and no measuring."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from pydantic import TypeAdapter, ValidationError

from midstream_edge.policies.menu import Menu
from midstream_edge.policies.values import Option
from midstream_partitioner.device import Device
from midstream_wire.errors import UsageError

#: A menu has some dozens of options; this is room for thousands.
MOST_NBYTES = 4 << 20

_OPTIONS = TypeAdapter(tuple[Option, ...])
_DEVICE = TypeAdapter(Device)


@final
@dataclass(frozen=True, slots=True)
class Offered:
    """A menu and the edge's device it was measured on, whose power figures price energy."""

    name: str
    menu: Menu
    device: Device

    def to_dict(self) -> dict[str, Any]:
        """What `read_menu` reads."""
        options = [asdict(option) for option in self.menu.options]
        return {"model": self.name, "device": self.device.to_dict(), "menu": options}


def read_menu(path: Path) -> Offered:
    """The menu in a JSON file: an object with `menu` (a list of options), `device`, `model`,
    as `midstream simulate MODEL --menu-output` writes it. Raises `UsageError`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_NBYTES + 1)
    except OSError as error:
        raise UsageError(f"a menu must be readable ({path}: {error.strerror})") from None
    if len(content) > MOST_NBYTES:
        raise UsageError(f"a menu must have at most {MOST_NBYTES} bytes ({path} has more)")
    try:
        document = json.loads(content)
    except ValueError as error:
        raise UsageError(f"a menu must be JSON ({path}: {error})") from None
    if not isinstance(document, Mapping) or "menu" not in document:
        raise UsageError(f"a menu's file must be an object with a list `menu` ({path})")
    try:
        options = _OPTIONS.validate_python(document["menu"])
        device = _DEVICE.validate_python(document.get("device") or {"name": "?", "threads": 1})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "menu"
        raise UsageError(f"{path}: {where} is wrong: {first['msg']}") from None
    _check(options, path)
    return Offered(str(document.get("model") or path.stem), Menu(options), device)


def _check(options: tuple[Option, ...], path: Path) -> None:
    """Figures that can be: a simulation would never end with others."""
    for at, option in enumerate(options):
        times = (option.head_s, option.encode_s, option.decode_s, option.tail_s)
        sizes = (option.payload_nbytes, option.reply_nbytes, option.k)
        rest_s = 0.0 if option.rest_s is None else option.rest_s
        if not all(0 <= each < 1e6 for each in (*times, rest_s)) or not all(
            0 <= each < 1 << 40 for each in sizes
        ):
            raise UsageError(
                f"{path}: times and sizes must be finite and not negative (menu.{at}, "
                f"{option.label!r})"
            )
