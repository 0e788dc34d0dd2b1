"""Networks and partitions as commands open them: what their figures rest on is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from midstream import loaders as sources
from midstream.cli.output import console
from midstream.feeding import Feeding
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.costs.profile import Profile, load_profile
from midstream_partitioner.costs.size_spans import (
    parse_sizes,
)
from midstream_partitioner.costs.sizes import sentence
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.python_names import PYTHON
from midstream_wire.tensors import TensorSpec


def opened_network(
    model: str, *, feed: Feeding, size: Sequence[str] | None, like: str | None = None
) -> Network:
    """Open the network called `model` at the sizes of `--size`, or of the inputs in `like`."""
    sizes = parse_sizes(size or ())
    network = sources.open_network(model, feed=feed, sizes=sizes, like=_file(like))
    graph = network.graph
    say_sizes([graph.tensors[name].spec for name in graph.inputs], network.feed)
    return network


def opened_partition(
    model: str,
    *,
    feed: Feeding,
    size: Sequence[str] | None,
    like: str | None = None,
    calibrated: bool = True,
) -> Partition:
    """Open the partition in a folder, or of a network as `opened_network` does."""
    sizes = parse_sizes(size or ())
    part = sources.open_partition(
        model, feed=feed, sizes=sizes, like=_file(like), calibrated=calibrated
    )
    say_sizes(part.inputs, part.feed)
    return part


def say_sizes(specs: Sequence[TensorSpec], feed: Feed) -> None:
    """Tell which sizes the figures of a network with open dimensions are for."""
    told = sentence(specs, feed.sizes)
    if told:
        console.note(told)


def _file(source: str | None) -> str | None:
    """A file or folder of inputs; a function is called when the network is known."""
    return None if source is None or source.startswith(PYTHON) else source


def read_profile(path: Path | None, backend: Backend | None = None) -> Profile | None:
    """The profile in a file; a note follows where it was measured on another backend."""
    if path is None:
        return None
    found = load_profile(path)
    if backend is not None and found.device.backend != backend.name:
        console.note(
            f"{path} was measured on {found.device.backend}, and {backend.name} runs here: "
            "times will be others; measure it with the flags that it is used with"
        )
    return found
