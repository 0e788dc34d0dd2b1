"""The terms of a feed: what of it is in the graph, so that both sides must say it alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.inputs.reading import pictures_among
from midstream_wire.limits import MAX_FEED_CHARS
from midstream_wire.tensors import TensorSpec

#: Fields of a feed and their values as JSON text, long ones shortened under a digest.
Terms = tuple[tuple[str, str], ...]

#: More of them say no more to a reader.
_MOST_TOLD = 4


def terms_of(feed: Feed, inputs: Sequence[TensorSpec]) -> Terms:
    """Return what `feed` made of a network that now takes `inputs`.

    Neutral values are told alike however they were said; where nothing is done to arrays,
    they are all there is to tell.
    """
    said: dict[str, object] = {"kind": feed.kind}
    if feed.kind == "array" and not feed.changes_values:
        return tuple((name, _text(value)) for name, value in said.items())
    if feed.input:
        said["input"] = feed.input
    said["layout"] = feed.layout
    if feed.kind == "image":
        said["color"] = feed.color
        for picture in pictures_among(feed, inputs)[:1]:
            said["height"], said["width"] = picture.shape[1:3]
    said["scale"] = feed.scale
    said["mean"] = feed.mean if any(feed.mean) else ()
    said["std"] = feed.std if any(each != 1 for each in feed.std) else ()
    return tuple((name, _text(value)) for name, value in said.items())


def difference(here: Terms, there: Terms) -> str:
    """Return how the terms of this side and of the server differ; "" where they do not.

    A side that names no input has but one, so that is no difference.
    """
    ours, theirs = dict(here), dict(there)
    told = []
    for name in dict.fromkeys((*ours, *theirs)):
        one, other = ours.get(name), theirs.get(name)
        if one == other or (name == "input" and None in (one, other)):
            continue
        sides = [(one, "here"), (other, "on the server")]
        values = " and ".join(f"{value} {side}" for value, side in sides if value is not None)
        told.append(f"{name} is {values}")
    hidden = len(told) - _MOST_TOLD
    more = [f"and {hidden} more"] if hidden > 0 else []
    return ", ".join([*told[:_MOST_TOLD], *more])


def _text(value: object) -> str:
    text = json.dumps(value)
    if len(text) <= MAX_FEED_CHARS:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{text[: MAX_FEED_CHARS // 2]}... (sha256 {digest})"
