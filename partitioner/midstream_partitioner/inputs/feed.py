"""The feed of a model, described once: pictures or arrays, and their preprocessing.

A network is fed

    y = (x * scale - mean) / std        per channel, in float32

and that arithmetic is part of the graph: `preprocess.prepend` puts it in front of the network
as ONNX nodes. Only resizing stays outside, with what reads the picture (`inputs.reading`).
The description is a few lines of TOML beside the model:

    kind = "image"                  # or "array"
    layout = "NCHW"                 # or "NHWC"
    resize = "crop"                 # or "stretch", "pad", "keep"
    scale = "1/255"
    mean = [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
    labels = "imagenet.txt"         # one a line, or a list

docs/reference/feeds.md has every field.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from midstream_partitioner.costs.size_spans import Spans, checked_sizes, nominal_sizes, several
from midstream_partitioner.costs.sizes import Sizes
from midstream_wire.errors import UsageError
from midstream_wire.tensors import TensorSpec
from midstream_wire.text import read_text

#: Field -> the values it may have.
CHOICES: dict[str, tuple[str, ...]] = {
    "kind": ("image", "array"),
    "layout": ("NCHW", "NHWC"),
    "resize": ("stretch", "crop", "pad", "keep"),
    "color": ("RGB", "BGR", "GRAY"),
}

#: Fields that never become nodes: whoever reads the inputs, or plans, heeds them.
OUTSIDE = ("resize", "labels", "public")

#: A side no picture for a network has; keeps a typing error from asking for gigabytes.
MAX_SIDE = 16_384

#: Fields that say something of pictures alone.
PICTURES = ("resize", "color", "height", "width")


@final
@dataclass(frozen=True, slots=True)
class Feed:
    """The feed of one input of a model. Anything malformed raises `UsageError`.

    `input` names the network's input and may be empty where there is only one. `height` and
    `width` matter where the network leaves them open; otherwise its own are taken. `mean` and
    `std` have one value, or one per channel; empty means 0 and 1. `sizes` are those that
    figures refer to, of dimensions that the network leaves open (see `sizes.py`).
    `public` names the inputs of the network that are no secret, as a mask, for plans that
    keep the others private.
    """

    input: str = ""
    kind: str = "array"
    layout: str = "NCHW"
    height: int | None = None
    width: int | None = None
    resize: str = "stretch"
    color: str = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    sizes: Sizes = ()
    public: tuple[str, ...] = ()
    spans: Spans = ()

    def __post_init__(self) -> None:
        for field, allowed in CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise UsageError(f"{field} must be {either(allowed)} (not {value!r})")
        for field in ("height", "width"):
            side = getattr(self, field)
            if side is not None and not 1 <= side <= MAX_SIDE:
                raise UsageError(f"{field} must be from 1 to {MAX_SIDE} pixels (not {side})")
        numbers = (self.scale, *self.mean, *self.std)
        if not all(map(math.isfinite, numbers)):
            raise UsageError(f"scale, mean and std must be finite numbers (not {numbers})")
        if self.scale == 0 or 0 in self.std:
            raise UsageError("scale and std must not be zero: the input would be lost")

    @property
    def channels(self) -> int:
        """Channels of a picture: 1 for GRAY, otherwise 3."""
        return 1 if self.color == "GRAY" else 3

    @property
    def changes_values(self) -> bool:
        """Return True if scale, mean or std do anything."""
        return self.scale != 1 or any(self.mean) or any(std != 1 for std in self.std)

    @staticmethod
    def load(path: str | Path) -> Feed:
        """Read a TOML file; raises `UsageError` that names the file and the field."""
        path = Path(path)
        try:
            fields = tomllib.loads(read_text(path, "a feed"))
        except (ValueError, RecursionError) as error:  # no TOML, a number that none can hold
            raise UsageError(f"{path} must be a readable TOML file ({error})") from None
        try:
            if isinstance(fields.get("labels"), str):
                named = path.parent / fields["labels"]
                fields["labels"] = read_text(named, "a list of labels").splitlines()
            return Feed.from_dict(fields)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    @staticmethod
    def find(model_path: str | Path) -> Feed | None:
        """The feed described in `net.toml` beside `net.onnx`, or None where there is none."""
        path = Path(model_path).with_suffix(".toml")
        return Feed.load(path) if path.is_file() else None

    @staticmethod
    def from_dict(fields: Mapping[str, object]) -> Feed:
        """The inverse of `to_dict`; raises `UsageError` for unknown fields and wrong types."""
        known = [f.name for f in dataclasses.fields(Feed) if f.name != "spans"]
        for field in fields:
            if field not in known:
                near = difflib.get_close_matches(field, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise UsageError(f"a feed has no field {field!r}: {hint}")
        feed = Feed(**{name: _coerced(name, value) for name, value in fields.items()})
        return feed.sized(feed.sizes)

    def sized(self, sizes: Spans) -> Feed:
        """The same feed, its figures for `sizes`: of several the middle one counts."""
        return dataclasses.replace(self, sizes=nominal_sizes(sizes), spans=several(sizes))

    @property
    def asked(self) -> Spans:
        """All sizes that were given, as `sized` takes them."""
        spanned = {each for name, _ in self.spans for each in name.split("=")}
        single = ((name, size) for name, size in self.sizes if name not in spanned)
        return tuple(sorted((*self.spans, *single)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML; fields that say nothing are left out."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        said = {name: value for name, value in fields.items() if value not in ("", None, ())}
        plain = {f: list(v) if isinstance(v, tuple) else v for f, v in said.items()}
        plain.pop("spans", None)
        return plain | ({"sizes": _plain(self.asked)} if self.sizes else {})


def _plain(sizes: Spans) -> dict[str, int | list[int]]:
    return {name: size if isinstance(size, int) else list(size) for name, size in sizes}


def guess_feed(input_spec: TensorSpec) -> Feed:
    """A feed that claims nothing: arrays as the network declares them.

    A float [N, 3, H, W] is probably a picture, but with which mean and std nobody can see, and
    a wrong guess gives wrong answers silently. Only the layout is guessed; who knows more
    writes it down.
    """
    shape = input_spec.shape
    channels_last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
    return Feed(input=input_spec.name, layout="NHWC" if channels_last else "NCHW")


def _coerced(field: str, value: object) -> Any:
    if field in ("height", "width"):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise UsageError(f"{field} must be a whole number of pixels (not {value!r})")
    if field == "sizes":
        if isinstance(value, Mapping):
            return checked_sizes(value)
        raise UsageError(
            f'sizes must be a table, {{ height = 480, width = "320..1280" }} (not {value!r})'
        )
    if field == "scale":
        return _number(field, value)
    if field in ("mean", "std"):
        values = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_number(field, each) for each in values)
    if field in ("labels", "public"):
        if isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise UsageError(f"{field} must be a list of strings (not {value!r})")
    if isinstance(value, str):
        return value
    allowed = either(CHOICES[field]) if field in CHOICES else "a string"
    raise UsageError(f"{field} must be {allowed} (not {value!r})")


def _number(field: str, value: object) -> float:
    """A number, or a fraction such as "1/255", which no decimal writes exactly."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str):
            above, slash, below = value.partition("/")
            return float(above) / (float(below) if slash else 1.0)
    except (ValueError, ArithmeticError):
        pass
    raise UsageError(f'{field} must be a number or a fraction such as "1/255" (not {value!r})')


def either(values: Sequence[str]) -> str:
    """Values as a message lists them: "a" or "b"."""
    return " or ".join(json.dumps(value) for value in values)
