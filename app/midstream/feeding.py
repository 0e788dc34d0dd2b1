"""A caller's words on a model's feed: none, all of it, or single fields on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

from midstream_partitioner.inputs.feed import OUTSIDE, PICTURES, Feed
from midstream_partitioner.partition.partition import Partition
from midstream_wire.errors import UsageError

#: Flags of another name: --input names files, --labels right answers.
_RENAMED = {
    "input": "--feed-input",
    "labels": "--feed-labels",
    "sizes": "--size",
    "spans": "--size",
}


@final
@dataclass(frozen=True, slots=True)
class Feeding:
    """A feed in place of a network's own (`whole`), and `fields` on top of either."""

    whole: Feed | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(file: Path | None, fields: Mapping[str, object]) -> Feeding:
        """Read the feed in `file`, and the fields that are not None; raises `UsageError`."""
        said = {name: value for name, value in fields.items() if value is not None}
        checked = Feed.from_dict(said)
        return Feeding(
            None if file is None else Feed.load(file),
            {name: getattr(checked, name) for name in said},
        )

    @property
    def is_silent(self) -> bool:
        """Return True if nothing is said, so that a network keeps its own feed."""
        return self.whole is None and not self.fields

    def over(self, own: Feed | None) -> Feed | None:
        """Return the feed of a network whose own is `own`, None where nobody says one.

        Raises `UsageError` for fields of pictures where arrays are fed.
        """
        base = self.whole or own
        if not self.fields:
            return base
        feed = replace(base or Feed(), **self.fields)
        useless = [flag_of(name) for name in self.fields if name in PICTURES]
        if useless and feed.kind != "image":
            raise UsageError(
                f"{useless[0]} must be of a model that is fed pictures, and this one takes "
                "arrays: give --kind image as well, or leave it out"
            )
        return feed

    def beside(self, part: Partition, path: Path) -> Partition:
        """Return the partition in `path`, fed otherwise where that needs no other graph.

        Raises `UsageError` for what became part of its graph.
        """
        if self.is_silent:
            return part
        fixed = [flag_of(name) for name in self.fields if name not in OUTSIDE]
        if self.whole is not None or fixed:
            raise UsageError(
                f"what feeds {path} is part of the partition, but for "
                f"{', '.join(map(flag_of, OUTSIDE))}: leave "
                f"{fixed[0] if fixed else '--feed'} out, or write it again with `midstream "
                "partition`"
            )
        feed = self.over(part.feed)
        assert feed is not None
        return replace(part, feed=feed)


#: A network keeps the feed that it has.
AS_IT_IS: Final = Feeding()


def flag_of(name: str) -> str:
    """Return the flag that gives a feed's field."""
    return _RENAMED.get(name, f"--{name}")
