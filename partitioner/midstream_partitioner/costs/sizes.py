"""The sizes that figures refer to where a network leaves dimensions open.

A network that takes pictures of any size has no one time and no one payload: costs are of
inputs of certain sizes. A size is given by the name of its dimension, or as INPUT:AXIS where
that has none; what nobody gives is assumed. Sizes are no part of a digest: they change neither
what a network computes nor where a given cut lies, only what is believed of its costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import numpy as np

from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array, TensorSpec

#: Bindings: the name of each open dimension and its size, by name.
Sizes = tuple[tuple[str, int], ...]

#: The name of an open dimension that has none.
UNKNOWN = "?"

#: What the first axis is called where it is no batch.
_LENGTHS = ("seq", "len", "time", "frame", "token", "sample")

#: Assumed of a picture's open side: halved eight times without a rest, and in the usual range.
SIDE = 256


def nominal_shape(spec: TensorSpec, sizes: Sizes) -> tuple[int, ...]:
    """The shape of `spec` with every open dimension at the size given or assumed."""
    given = dict(sizes)
    sides = _open_sides(spec)
    return tuple(
        size
        if isinstance(size, int)
        else given.get(f"{spec.name}:{axis}", given.get(size, SIDE if axis in sides else 1))
        for axis, size in enumerate(spec.shape)
    )


def assumed_sizes(specs: Sequence[TensorSpec], sizes: Sizes) -> Sizes:
    """The open dimensions of the inputs `specs` that `sizes` leaves out, as assumed."""
    given = dict(sizes)
    assumed: dict[str, int] = {}
    for spec in specs:
        for axis, size in enumerate(nominal_shape(spec, sizes)):
            name = open_name(spec, axis)
            if name and name not in given and f"{spec.name}:{axis}" not in given:
                assumed.setdefault(name, size)
    return tuple(sorted(assumed.items()))


def sentence(specs: Sequence[TensorSpec], sizes: Sizes) -> str:
    """Return what figures of a network with the inputs `specs` rest on; "" where all is
    fixed.
    """
    assumed = assumed_sizes(specs, sizes)
    told = f"figures are for {listed((*sizes, *assumed))}" if sizes or assumed else ""
    if not assumed:
        return told
    name, size = assumed[-1]
    names = ", ".join(name for name, _ in assumed)
    return (
        f"{told}, where {names} {'is' if len(assumed) == 1 else 'are'} assumed: say otherwise "
        f"with --size {name}={2 * size}, or give --input"
    )


def check_told(specs: Sequence[TensorSpec], sizes: Sizes) -> None:
    """Raise `UsageError` where costs hang on a size that is neither given nor usual.

    A batch of 1 and a picture of `SIDE` pixels are usual; a text has no usual length.
    """
    given = dict(sizes)
    for spec in specs:
        sides = _open_sides(spec)
        for axis in range(len(spec.shape)):
            name = open_name(spec, axis)
            told = not name or name in given or f"{spec.name}:{axis}" in given
            if not told and axis not in sides and not is_batch(name, axis):
                raise UsageError(
                    f"costs depend on {name}, which the model leaves open ({spec.name}: "
                    f"{spec}): say it with --size {name}=128, or {name}=8..512 for a range, "
                    "in the feed's sizes, or give --input"
                )


def is_batch(name: str, axis: int | None = None) -> bool:
    """Return True for a dimension that counts samples; the axis is in INPUT:AXIS, too."""
    lower = name.lower()
    if axis is None:
        axis = int(lower.rpartition(":")[2]) if lower.rpartition(":")[2].isdecimal() else -1
    return "batch" in lower or (axis == 0 and not any(word in lower for word in _LENGTHS))


def check_sizes(specs: Sequence[TensorSpec], names: Iterable[str]) -> None:
    """Raise `UsageError` unless `names` are of open dimensions of the inputs `specs`."""
    open_dims = {name for spec in specs for axis in range(len(spec.shape))
                 for name in (open_name(spec, axis), f"{spec.name}:{axis}")
                 if open_name(spec, axis)}  # fmt: skip
    for name in names:
        if name not in open_dims:
            shown = ", ".join(name for name, _ in assumed_sizes(specs, ())) or "none"
            raise UsageError(
                f"a size must be of a dimension that the model leaves open, {shown} "
                f"(not {name!r}): leave it out, or name one of these"
            )


def bind_sizes(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> Sizes:
    """The sizes that the open dimensions of `specs` have in one input; see `Binder`."""
    return Binder(specs).bind(arrays)


@final
class Binder:
    """Reads the bindings of one network's inputs, again and again."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        self._open = [
            (spec.name, axis, open_name(spec, axis))
            for spec in specs
            for axis in range(len(spec.shape))
            if open_name(spec, axis)
        ]

    def bind(self, arrays: Mapping[str, Array]) -> Sizes:
        """The sizes by name. What `arrays` lack, or have too few axes for, is left out.

        So is what is no array: an input is checked, and refused, where it is run.
        Where two inputs give one name different sizes, the later is told as INPUT:AXIS.
        """
        found: dict[str, int] = {}
        for tensor, axis, name in self._open:
            array = arrays.get(tensor)
            shape = array.shape if isinstance(array, np.ndarray) else ()
            if axis < len(shape) and found.setdefault(name, shape[axis]) != shape[axis]:
                found[f"{tensor}:{axis}"] = shape[axis]
        return tuple(sorted(found.items()))

    def tie(self, specs: Iterable[TensorSpec], sizes: Sizes) -> tuple[TensorSpec, ...]:
        """Return `specs` with the dimensions that `sizes` of a request give them.

        Names to which two inputs give different sizes stay open, as do all others.
        """
        given = dict(sizes)
        for tensor, axis, name in self._open:
            if f"{tensor}:{axis}" in given and name != f"{tensor}:{axis}":
                given.pop(name, None)
        return tuple(
            TensorSpec(
                spec.name,
                spec.dtype,
                tuple(
                    given.get(size, size) if isinstance(size, str) else size
                    for size in spec.shape
                ),
            )
            for spec in specs
        )


def middle_sizes(found: Sequence[Sizes]) -> Sizes:
    """Return the middle one of `found` by the product of its sizes; () of none."""
    order = sorted(found, key=lambda sizes: (math.prod(size for _, size in sizes), sizes))
    return order[len(order) // 2] if order else ()


def listed(sizes: Sizes) -> str:
    """For people: "height=480, width=640"."""
    return ", ".join(f"{name}={size}" for name, size in sizes)


def open_names(specs: Iterable[TensorSpec]) -> tuple[str, ...]:
    """The names of the dimensions that the inputs `specs` leave open, each once."""
    named = (open_name(spec, axis) for spec in specs for axis in range(len(spec.shape)))
    return tuple(dict.fromkeys(name for name in named if name))


def open_name(spec: TensorSpec, axis: int) -> str:
    """Name an open dimension: its own name, or INPUT:AXIS; "" for one that is fixed."""
    size = spec.shape[axis]
    if isinstance(size, int):
        return ""
    return f"{spec.name}:{axis}" if size == UNKNOWN else size


def _open_sides(spec: TensorSpec) -> tuple[int, ...]:
    """The axes of height and width, where `spec` looks like pictures of any width.

    A cache of keys or values, [batch, heads, past, width], has a fixed width.
    """
    if len(spec.shape) != 4 or not (spec.dtype.startswith("float") or spec.dtype == "uint8"):
        return ()
    channels = next((axis for axis in (1, 3) if spec.shape[axis] in (1, 3)), None)
    if channels is None:
        return ()
    sides = (2, 3) if channels == 1 else (1, 2)
    return sides if isinstance(spec.shape[sides[1]], str) else ()
