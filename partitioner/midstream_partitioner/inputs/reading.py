"""Inputs of a model from files: pictures and arrays, or random ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from midstream_partitioner.costs.sizes import nominal_shape
from midstream_partitioner.inputs import samples
from midstream_partitioner.inputs.feed import Feed
from midstream_partitioner.inputs.samples import Sample
from midstream_wire.errors import UsageError
from midstream_wire.tensors import TensorSpec


def read_inputs(
    feed: Feed,
    specs: Sequence[TensorSpec],
    source: str | Path | None,
    *,
    count: int | None,
    seed: int = 0,
) -> Iterator[Sample]:
    """`count` inputs, each a dict of arrays by input name, cycling through a short source.

    Where `count` is None, every sample of the source once; of random inputs, one.

    `specs` are the inputs of the network with its preprocessing in front. `source` is a
    picture, a folder of pictures, an .npz (a key per input; first axis: samples), an .npy, a
    folder of these (every file one input, of any size the network takes), or None for seeded
    random inputs. Open dimensions of these have the feed's sizes. What can be checked is
    checked before the first input is asked for; raises `UsageError`.
    """
    if source is None:
        return _random_inputs(feed, specs, count=1 if count is None else count, seed=seed)
    path = Path(source)
    if not path.exists():
        raise UsageError(f"no such file or folder: {path} (inputs are pictures, .npz or .npy)")
    if path.suffix.lower() in samples.ARRAYS and not path.is_dir():
        return samples.read_arrays(path, specs, count=count)
    picture = _picture_of(feed, specs)
    takes_arrays = picture is None or len(specs) > 1
    files = samples.list_arrays(path)
    if files and (takes_arrays or not samples.holds_pictures(path)):
        return samples.read_array_files(files, specs, count=count)
    if picture is None or takes_arrays:
        wanted = ", ".join(f"{spec.name}: {spec}" for spec in specs)
        raise UsageError(
            f"{path} must be an .npz or .npy, or a folder of them, because the model takes "
            f'arrays ({wanted}); for pictures describe its feed with kind = "image"'
        )
    return _picture_inputs(feed, picture, samples.list_pictures(path), count=count)


def _picture_inputs(
    feed: Feed, spec: TensorSpec, paths: Sequence[Path], *, count: int | None
) -> Iterator[Sample]:
    batch, size = _sizes(feed, spec)
    for sample in range(-(-len(paths) // batch) if count is None else count):
        chosen = [paths[(sample * batch + i) % len(paths)] for i in range(batch)]
        pictures = [
            samples.read_picture(path, size, resize=feed.resize, gray=feed.color == "GRAY")
            for path in chosen
        ]
        if len({picture.shape for picture in pictures}) > 1:
            raise UsageError(
                f"pictures of one batch must have one size, and those from {chosen[0]} on "
                'differ where resize = "keep": give a batch of 1, or another resize'
            )
        yield Sample({spec.name: np.stack(pictures)}, "+".join(path.name for path in chosen))


def _random_inputs(
    feed: Feed, specs: Sequence[TensorSpec], *, count: int, seed: int
) -> Iterator[Sample]:
    picture = _picture_of(feed, specs)
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield Sample(
            {
                spec.name: samples.random_pictures(_concrete(feed, spec), rng)
                if spec is picture
                else samples.random_array(spec.dtype, nominal_shape(spec, feed.sizes), rng)
                for spec in specs
            },
            f"random[{number}]",
        )


def _picture_of(feed: Feed, specs: Sequence[TensorSpec]) -> TensorSpec | None:
    """The input that takes the picture."""
    if feed.kind != "image":
        return None
    fitting = pictures_among(feed, specs)
    if not fitting:
        came = ", ".join(f"{spec.name}: {spec}" for spec in specs)
        raise UsageError(
            f"pictures need a uint8 input of shape [N, H, W, {feed.channels}] (not {came}): "
            "put the model's preprocessing in front of it first"
        )
    return fitting[0]


def pictures_among(feed: Feed, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return what may take the pictures of `feed`, likeliest first.

    `prepend` calls that input "image" unless the name was taken.
    """
    fitting = [s for s in specs if s.dtype == "uint8" and s.shape[3:] == (feed.channels,)]
    return sorted(fitting, key=lambda spec: spec.name != "image")


def _sizes(feed: Feed, spec: TensorSpec) -> tuple[int, tuple[int | None, int | None]]:
    """Return the batch, and height and width, None for the one that follows from the other."""
    given = (None, None) if feed.resize == "keep" else _given_sides(feed, spec)
    height, width = (
        size if isinstance(size, int) else described or said
        for size, described, said in zip(
            spec.shape[1:3], (feed.height, feed.width), given, strict=True
        )
    )
    known = (height is not None) + (width is not None)
    if feed.resize == "keep" and known == 2:
        raise UsageError(
            f'resize = "keep" needs one side left open, and {spec} fixes both: take "pad", '
            '"crop" or "stretch"'
        )
    if known < (1 if feed.resize == "keep" else 2):
        raise UsageError(
            f"the model leaves the picture's size open ({spec}): give height and width "
            'in its feed or with --size, or one of them and resize = "keep"'
        )
    return nominal_shape(spec, feed.sizes)[0], (height, width)


def _given_sides(feed: Feed, spec: TensorSpec) -> tuple[int | None, int | None]:
    """Height and width as the feed's sizes give them, where the network leaves them open."""
    given: dict[int | str, int] = dict(feed.sizes)
    height, width = (
        given.get(f"{spec.name}:{axis}", given.get(spec.shape[axis])) for axis in (1, 2)
    )
    return height, width


def _concrete(feed: Feed, spec: TensorSpec) -> tuple[int, int, int, int]:
    """Return the shape of a made-up picture: a square one where its proportions are kept."""
    batch, (height, width) = _sizes(feed, spec)
    given = _given_sides(feed, spec)
    either_side = height or width or 1
    return (
        batch,
        height or given[0] or either_side,
        width or given[1] or either_side,
        feed.channels,
    )
