"""A user's samples and labels, to calibrate with: from files, or from a Python function."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import xxhash

from midstream_partitioner.execution.chain import State
from midstream_partitioner.inputs.arrays import ONLY, load_arrays
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.python_names import PYTHON, import_function
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array, dtype_of, require_array
from midstream_wire.text import read_text

#: The array of labels in an .npz that holds one.
LABELS = "labels"


@final
@dataclass(frozen=True, slots=True)
class Data:
    """Inputs of a network, and labels where there are any: as many, one entry per input.

    A label is an array whose first axis is the input's batch. `generated` inputs say nothing
    about accuracy.
    """

    source: str
    inputs: tuple[State, ...]
    labels: tuple[Array, ...] | None = None
    generated: bool = False

    def digest(self) -> str:
        """Over all names, shapes and values: what tells whether two runs saw the same."""
        whole = xxhash.xxh3_128(b"labelled" if self.labels is not None else b"")
        for sample in self.inputs:
            for name in sorted(sample):
                _feed(whole, name, sample[name])
        for label in self.labels or ():
            _feed(whole, LABELS, label)
        return whole.hexdigest()


def _feed(whole: xxhash.xxh3_128, name: str, array: Array) -> None:
    whole.update(f"{name} {dtype_of(array)} {array.shape} ".encode())
    whole.update(np.ascontiguousarray(array).tobytes())


def read_data(
    part: Partition,
    source: str | None,
    *,
    labels: str | None = None,
    count: int = 256,
    seed: int = 0,
) -> Data:
    """At most `count` samples from `source`, every one once.

    `source` is a picture or a folder of pictures, an .npz (`images`, or a key per input), an
    .npy, or python:module:function, which yields inputs or pairs of inputs and label; None
    stands for generated inputs. `labels` is a key of the .npz, or a file: .npy, or text with
    a whole number a line, in the order of the samples; the key "labels" is taken unasked.
    Raises `UsageError` for what does not fit.
    """
    if source is None:
        if labels is not None:
            raise UsageError("labels need the data that they belong to: give --data as well")
        inputs = tuple(read_inputs(part.feed, part.inputs, None, count=count, seed=seed))
        return Data("generated inputs", inputs, generated=True)
    if source.startswith(PYTHON):
        if labels is not None:
            raise UsageError(
                f"{source} must yield the labels itself, as pairs of inputs and label: leave "
                "--labels out"
            )
        return _from_function(part, source, count)
    every = tuple(
        itertools.islice(read_inputs(part.feed, part.inputs, source, count=None), count)
    )
    found = _read_labels(Path(source), labels)
    if found is None:
        return Data(source, every)
    return Data(source, every, _in_batches(found, part, len(every), cut=len(every) == count))


def _read_labels(source: Path, named: str | None) -> Array | None:
    """The labels that `named` tells, or those in the .npz; None where there are none."""
    key = LABELS if named is None else named
    if source.suffix.lower() == ".npz":
        arrays = load_arrays(source, only=key)
        if key in arrays:
            return _whole_numbers(arrays[key], f"{source}: {key}")
    if named is None:
        return None
    path = Path(named)
    if not path.is_file():
        inside = f", nor a key of {source.name}" if source.suffix.lower() == ".npz" else ""
        raise UsageError(
            f"labels must be a file (.npy, or text with a whole number a line); {named} is "
            f"none{inside}"
        )
    try:
        read = (
            load_arrays(path)[ONLY]
            if path.suffix.lower() == ".npy"
            else np.array([int(word) for word in read_text(path, "labels").split()])
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{named} must hold labels: an .npy, or text with a whole number a line ({error})"
        ) from None
    return _whole_numbers(read, named)


def _whole_numbers(array: Any, what: str) -> Array:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.ndim == 0:
        came = f"{array.dtype.name} {list(array.shape)}" if hasattr(array, "dtype") else "more"
        raise UsageError(f"{what} must be whole numbers, one a sample (not {came})")
    return array


def _in_batches(
    labels: Array, part: Partition, samples: int, *, cut: bool
) -> tuple[Array, ...]:
    """`labels` dealt out to the samples, each of which may be a batch."""
    shape = part.inputs[0].shape
    batch = shape[0] if shape and isinstance(shape[0], int) else 1
    wanted = samples * batch
    if len(labels) < wanted or (len(labels) >= wanted + batch and not cut):
        raise UsageError(
            f"there must be a label for each of {wanted} samples (not {len(labels)}): give "
            "data and labels of one set"
        )
    return tuple(labels[at : at + batch] for at in range(0, wanted, batch))


def _from_function(part: Partition, source: str, count: int) -> Data:
    function = import_function(source)
    try:
        yielded = list(itertools.islice(_every(function()), count))
    except UsageError:
        raise
    except Exception as error:  # whatever the user's function raises
        raise UsageError(
            f"{source} must yield inputs, and raised {type(error).__name__}: {error}"
        ) from None
    if not yielded:
        raise UsageError(f"{source} must yield at least one input, and yields none")
    pairs = [_pair(each) for each in yielded]
    inputs = tuple(_sample(part, source, each) for each, _ in pairs)
    labels = [label for _, label in pairs]
    if all(label is None for label in labels):
        return Data(source, inputs)
    if any(label is None for label in labels):
        raise UsageError(f"{source} must yield a label with every input, or with none")
    return Data(source, inputs, tuple(_label(source, each) for each in labels))


def _label(source: str, given: object) -> Array:
    """A label as an array: of whole numbers, or of whatever the user's metric takes."""
    if isinstance(given, np.ndarray):
        given = require_array(f"a label that {source} yields", given)
    return np.atleast_1d(np.asarray(given))


def _every(yielded: object) -> Iterator[object]:
    if not isinstance(yielded, Iterable):
        raise TypeError(f"it returned a {type(yielded).__name__}")
    return iter(yielded)


def _pair(yielded: object) -> tuple[object, object]:
    """Inputs and label, or inputs and None."""
    if isinstance(yielded, tuple) and len(yielded) == 2:
        return yielded
    return yielded, None


def _sample(part: Partition, source: str, yielded: object) -> State:
    """Return what a function yielded, as arrays by the names of the network's inputs."""
    specs: Sequence[Any] = part.inputs
    if isinstance(yielded, np.ndarray) and len(specs) == 1:
        given: Mapping[str, Any] = {specs[0].name: yielded}
    elif isinstance(yielded, Mapping) and all(spec.name in yielded for spec in specs):
        given = yielded
    else:
        names = ", ".join(spec.name for spec in specs)
        raise UsageError(
            f"{source} must yield arrays by the names of the inputs, {names} (an array alone "
            f"where there is one input); it yielded a {type(yielded).__name__}"
        )
    sample = {}
    for spec in specs:
        array = require_array(f"what {source} yields for {spec.name}", given[spec.name])
        if len(array.shape) + 1 == len(spec.shape):
            array = array[None]
        if not spec.admits(dtype_of(array), array.shape):
            raise UsageError(
                f"{source} must yield {spec} for {spec.name} (not {dtype_of(array)} "
                f"{list(array.shape)})"
            )
        sample[spec.name] = array
    return sample
