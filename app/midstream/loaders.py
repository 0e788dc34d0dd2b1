"""Loaders of what users name: reference models, ONNX files, partitions, inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from midstream.feeding import AS_IT_IS, Feeding
from midstream_lab.networks import NETWORKS, build
from midstream_partitioner.costs.size_spans import Spans, buckets, checked_sizes, tied_names
from midstream_partitioner.costs.sizes import bind_sizes, check_sizes, check_told
from midstream_partitioner.graph.cuts import Cut, cut_of
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.inputs.reading import read_inputs
from midstream_partitioner.inputs.samples import Sample
from midstream_partitioner.intake.onnx_model import Network, load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.folder import SUFFIX, is_partition, load_partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.choose_cuts import MOST_CUTS, choose_cuts, static_profile
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.profiling.answer_metrics import Metric
from midstream_partitioner.profiling.profiler import SIZED, TIMED
from midstream_partitioner.python_names import import_function
from midstream_wire.errors import MidstreamError, ModelError, UsageError

Inputs = tuple[Sample, ...]

#: Random inputs of each bucket of sizes: their payloads hardly differ.
_DRAWN = 2

#: Hears which model is not served, and why.
LeftOut = Callable[[str, Exception], None]

#: What a network may be taken from: a reference network's name, a file, its content.
Source = str | Path | bytes | onnx.ModelProto


def open_network(
    source: Source,
    *,
    feed: Feeding = AS_IT_IS,
    sizes: Spans = (),
    like: str | Path | None = None,
) -> Network:
    """The network called `source`: a reference network's name, an ONNX file or its content.

    `feed` is said on top of its own, which a TOML file beside it or the reference network has.
    `sizes` and `like` say which sizes figures refer to, as in `load_network`.
    """
    if not isinstance(source, str | Path):
        return load_network(source, feed=feed.over(None), sizes=sizes, like=like)
    if source in NETWORKS:
        name = str(source)
        fed = feed.over(NETWORKS[name].feed)
        return load_network(build(name), feed=fed, name=name, sizes=sizes, like=like)
    path = Path(source)
    if is_partition(path):
        raise UsageError(
            f"this needs the model before it was cut, and {path} is a partition: give the "
            "ONNX file or the reference model's name"
        )
    if not path.exists() and path.suffix == "":
        build(str(source))  # raises, naming the reference networks and the closest one
    own = Feed.find(path) if path.is_file() else None
    return load_network(path, feed=feed.over(own), sizes=sizes, like=like)


def open_partition(
    source: Source,
    *,
    feed: Feeding = AS_IT_IS,
    sizes: Spans = (),
    like: str | Path | None = None,
    calibrated: bool = True,
) -> Partition:
    """The partition in the folder `source`, or a network cut on the fly.

    Unless `calibrated`, the calibration in the folder is not read: it is to be made anew.

    On the fly the cuts are chosen from arithmetic alone, not from measurements, so that every
    machine that holds the network, and is told of the same sizes, cuts it at the same places.
    """
    if isinstance(source, str | Path) and is_partition(path := Path(source)):
        part = feed.beside(load_partition(path, calibrated=calibrated), path)
        return at_sizes(part, sizes)
    network = open_network(source, feed=feed, sizes=sizes, like=like)
    return partition(network, default_cuts(network))


def at_sizes(part: Partition, sizes: Spans) -> Partition:
    """`part`, its figures for `sizes` where the feed says otherwise; raises `UsageError`."""
    if not sizes:
        return part
    check_sizes(part.inputs, tied_names(sizes))
    known = checked_sizes(dict(part.feed.asked) | dict(sizes))
    return replace(part, feed=part.feed.sized(known))


def default_cuts(network: Network, *, max_cuts: int = MOST_CUTS) -> tuple[Cut, ...]:
    """The cuts that can ever win, by arithmetic alone: the same on every machine."""
    return cuts_by(network, static_profile(network.graph), max_cuts=max_cuts)


def cuts_by(
    network: Network, layer_s: Sequence[float], *, max_cuts: int = MOST_CUTS
) -> tuple[Cut, ...]:
    """The cuts that can ever win by these seconds per node; the feed says what is public.

    Where it spans sizes, they may win at the smallest or the largest of them; there a node
    takes as many times longer as arithmetic says.
    """
    graph = network.graph
    check_told([graph.tensors[name].spec for name in graph.inputs], network.feed.sizes)
    public = Constraints(public=frozenset(network.feed.public))
    nominal_s = static_profile(network.graph)
    every = buckets(network.feed.asked) if network.feed.spans else ()
    ends = [sizes for sizes in (*every[:1], *every[-1:]) if sizes != network.feed.sizes]
    others = []
    for graph in map(network.at, ends):
        there_s = static_profile(graph)
        times = zip(layer_s, there_s, nominal_s, strict=True)
        others.append((graph, [_scaled(*each) for each in times]))
    return choose_cuts(
        network.graph, layer_s, others=others, max_cuts=max_cuts, constraints=public
    )


def _scaled(layer_s: float, there_s: float, nominal_s: float) -> float:
    return layer_s * there_s / nominal_s if nominal_s > 0 else there_s


def cut_alike(network: Network, heads: Iterable[frozenset[int]]) -> Partition:
    """`network` cut at the places that a server named, so that the digests agree."""
    return partition(network, [cut_of(network.graph, head) for head in heads])


def open_metric(name: str | None) -> Metric | None:
    """The metric that python:module:function names."""
    return None if name is None else Metric(name, import_function(name))


def refuse(source: str, error: Exception) -> None:
    """Let a model that cannot be served end it all, by its name."""
    kind = type(error) if isinstance(error, MidstreamError) else ModelError
    raise kind(f"{source}: {error}") from error


def open_models(
    sources: Sequence[str],
    *,
    feed: Feeding = AS_IT_IS,
    sizes: Spans = (),
    left_out: LeftOut = refuse,
) -> dict[str, Partition]:
    """Return what a server is asked to serve, by name: partitions, models, folders of either.

    `feed` is of the only model there is. A model of a folder that cannot be opened, or whose
    name is taken, is handed to `left_out`, and the others are opened; one that was named
    itself always raises.
    """
    found: dict[str, Partition] = {}
    inside = [(source, each) for source in sources for each in _models_at(source)]
    if len(inside) > 1 and not feed.is_silent:
        raise UsageError(
            "flags that say what feeds a model must be of one, and "
            f"{len(inside)} are served: write NAME.toml beside each NAME.onnx"
        )
    for source, each in inside:
        try:
            name, part = model_name(each), open_partition(each, feed=feed, sizes=sizes)
            if name in found:
                raise UsageError(
                    f"two models must not share a name; {name!r} comes twice: rename one"
                )
            found[name] = part
        except (MidstreamError, OSError) as error:
            (refuse if each == source else left_out)(each, error)
    return found


def _models_at(source: str) -> Iterable[str]:
    path = Path(source)
    if source in NETWORKS or path.is_file() or is_partition(path) or not path.is_dir():
        return [source]
    inside = sorted(p for p in path.iterdir() if is_partition(p) or p.suffix == ".onnx")
    if not inside:
        raise UsageError(
            f"a folder of models must hold ONNX files or partitions; {path} has none: write "
            "one with `midstream partition`"
        )
    return map(str, inside)


def model_name(source: str) -> str:
    """The name under which `source` is served."""
    return (
        source
        if source in NETWORKS
        else Path(source).resolve().name.removesuffix(SUFFIX).removesuffix(".onnx")
    )


def open_inputs(part: Partition, source: str | None, *, count: int, seed: int = 0) -> Inputs:
    """`count` inputs from a picture, a folder, an npz or npy file; random ones without."""
    return tuple(read_inputs(part.feed, part.inputs, source, count=count, seed=seed))


def open_samples(
    part: Partition,
    source: str | None,
    *,
    most: int = SIZED,
    drawn: int = TIMED,
    seed: int = 0,
) -> Inputs:
    """The first inputs of `source`, every one once and at most `most`; without a source
    `drawn` random ones, whose sizes hardly differ. What profiles are measured on."""
    if source is None:
        return open_inputs(part, None, count=drawn, seed=seed)
    every = read_inputs(part.feed, part.inputs, source, count=None)
    return tuple(itertools.islice(every, most))


def open_buckets(part: Partition, source: str | None, *, seed: int = 0) -> Inputs:
    """Return what profiles are measured on: the first inputs of `source`, every one once.

    Where sizes are spanned, each of their buckets has inputs: pictures of `source` at these
    sizes, arrays of it that have them, else random ones.
    """
    if source is None:
        check_told(part.inputs, part.feed.sizes)
    if not part.feed.spans:
        return open_samples(part, source, seed=seed)
    found: list[Sample] = []
    arrays: Inputs = ()
    if source is not None and part.feed.kind != "image":
        arrays = open_samples(part, source)
    for sizes in buckets(part.feed.asked):
        here = replace(part, feed=replace(part.feed, sizes=sizes))
        same = [each for each in arrays if set(sizes) <= set(bind_sizes(part.inputs, each))]
        pictures = source if part.feed.kind == "image" else None
        found += same or open_samples(here, pictures, most=TIMED, drawn=_DRAWN, seed=seed)
    return tuple(found)
