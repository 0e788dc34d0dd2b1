"""Inputs for a network: pictures and arrays from files, and random ones that look alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from midstream_partitioner.inputs.arrays import ONLY, load_arrays
from midstream_partitioner.inputs.feed import MAX_SIDE
from midstream_partitioner.inputs.picture import open_picture
from midstream_wire.errors import UsageError
from midstream_wire.tensors import DTYPES, Array, TensorSpec

#: Suffixes taken from a folder; a file named directly may have any.
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
#: The same for arrays.
ARRAYS = (".npz", ".npy")
#: The grey that YOLO's letterboxing fills with; near the mean of photos.
_PAD = 114
#: Slope of the amplitude spectrum of random pictures. Photos have about 1, but their phases
#: line up in edges, which a codec uses and random phases do not give: with 1.5, JPEG at
#: quality 90 needs 17 KB for 224x224; scikit-learn's sample photos need 12 and 17 (1.0: 32).
_SLOPE = 1.5
#: Keys taken for a single input of whatever name.
_ONLY = ("images", "image", ONLY)


class Sample(dict[str, Array]):
    """An input of a network, arrays by name; `name` says what it is called at its source."""

    def __init__(self, arrays: Mapping[str, Array], name: str) -> None:
        super().__init__(arrays)
        self.name = name


def list_arrays(path: Path) -> list[Path]:
    """Return the .npz and .npy files in the folder `path`, by name; none elsewhere."""
    inside = path.iterdir() if path.is_dir() else ()
    return sorted(p for p in inside if p.suffix.lower() in ARRAYS and p.is_file())


def read_array_files(
    paths: Sequence[Path], specs: Sequence[TensorSpec], *, count: int | None
) -> Iterator[Sample]:
    """Yield `count` inputs, cycling, or every one once: a file each, of whatever size.

    A file holds an array as the input takes it, or without its first axis. Raises
    `UsageError` for one that does not fit, when its turn comes.
    """
    turns = itertools.islice(itertools.cycle(paths), len(paths) if count is None else count)
    for path in turns:
        arrays = _load(path, specs)
        checked = {
            spec.name: _whole(f"{path}: {spec.name}", arrays[spec.name], spec)
            for spec in specs
        }
        yield Sample(checked, path.name)


def _whole(what: str, array: Array, spec: TensorSpec) -> Array:
    """Return `array` as one input, with the first axis that it may lack."""
    fitting = [each for each in (array, array[None]) if spec.admits(spec.dtype, each.shape)]
    if not fitting:
        raise UsageError(
            f"{what} must be one {spec} (not {array.dtype.name} {list(array.shape)}): in a "
            "folder every file is one input"
        )
    return np.asarray(_converted(what, fitting[0], spec), order="C")


def holds_pictures(path: Path) -> bool:
    """Return True if the folder `path` holds a picture."""
    return any(p.suffix.lower() in PICTURES for p in path.iterdir())


def list_pictures(path: Path) -> list[Path]:
    """The picture at `path`, or those in the folder `path` by name; raises `UsageError`."""
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES and p.is_file())
    if not found:
        raise UsageError(f"{path} must hold pictures ({', '.join(PICTURES)}), and holds none")
    return found


def read_picture(
    path: Path, size: tuple[int | None, int | None], *, resize: str, gray: bool = False
) -> NDArray[np.uint8]:
    """The picture as uint8 [height, width, 3] (RGB) or [height, width, 1] (`gray`).

    Read as `open_picture` does, and resized bilinearly to `size` (height, width): "stretch"
    ignores its proportions, "crop" keeps the middle, "pad" adds grey borders. A side that is
    None follows from the other and the picture's proportions.
    """
    upright = open_picture(path, gray=gray)
    height, width = _sides(path, size, upright)
    bilinear = Image.Resampling.BILINEAR
    if resize == "crop":
        fitted = ImageOps.fit(upright, (width, height), bilinear)
    elif resize == "pad":
        grey = _PAD if gray else (_PAD, _PAD, _PAD)
        fitted = ImageOps.pad(upright, (width, height), bilinear, color=grey)
    else:
        fitted = upright.resize((width, height), bilinear)
    return np.asarray(fitted, dtype=np.uint8).reshape(height, width, 1 if gray else 3)


def _sides(
    path: Path, size: tuple[int | None, int | None], picture: Image.Image
) -> tuple[int, int]:
    """Return height and width in pixels, one of which may follow from the other."""
    height, width = size
    if height is None and width is not None:
        height = max(1, round(width * picture.height / picture.width))
    elif width is None and height is not None:
        width = max(1, round(height * picture.width / picture.height))
    assert height is not None
    assert width is not None
    if max(height, width) > MAX_SIDE:
        raise UsageError(
            f"{path} must be at most {MAX_SIDE} pixels long where its proportions are kept "
            f"(not {max(height, width)}): crop it"
        )
    return height, width


def read_arrays(
    path: Path, specs: Sequence[TensorSpec], *, count: int | None
) -> Iterator[Sample]:
    """`count` inputs from an .npz or .npy, cycling; every one once where it is None.

    Raises `UsageError` before the first.

    The first axis counts samples: an array of the input's own rank is taken in steps of the
    input's first dimension (1 where that is open), one of a rank more in single entries. A
    single number, for an input that is one, is every sample's.
    """
    arrays = _load(path, specs)
    batches = {
        spec.name: _batches(f"{path}: {spec.name}", arrays[spec.name], spec) for spec in specs
    }
    single = {name for name, batch in batches.items() if arrays[name].ndim == 0}
    lengths = {name: len(batch) for name, batch in batches.items() if name not in single}
    if len(set(lengths.values())) > 1:
        raise UsageError(
            f"{path} must hold equally many samples of every input (not {lengths})"
        )
    if 0 in lengths.values():
        raise UsageError(f"{path} must hold at least one whole sample, and holds none")
    length = next(iter(lengths.values()), 1)
    return (
        Sample(
            {
                name: np.asarray(batch[0 if name in single else i], order="C")
                for name, batch in batches.items()
            },
            f"{path.name}[{i}]",
        )
        for i in itertools.islice(
            itertools.cycle(range(length)), length if count is None else count
        )
    )


def random_array(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Standard normal floats, or integers and booleans from 0 and 1, because such an integer
    may index a table, and any table has two rows.
    """
    if dtype == "bool" or "int" in dtype:
        return np.asarray(rng.integers(0, 2, shape)).astype(DTYPES[dtype])
    return np.asarray(rng.standard_normal(shape)).astype(DTYPES[dtype])


def random_pictures(
    shape: tuple[int, int, int, int], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 1 or 3] that compress about as photos do.

    White noise is the worst case of every picture codec and no picture at all. Photos have an
    amplitude spectrum near 1/f (Field 1987, J. Opt. Soc. Am. A 4:2379) and channels that go
    together; so do these.
    """
    batch, height, width, channels = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    planes = rng.standard_normal((batch, 1 + channels, height, width))
    spectrum = np.fft.rfft2(planes) / frequency**_SLOPE
    smooth = np.fft.irfft2(spectrum, s=(height, width))
    smooth /= np.maximum(smooth.std(axis=(2, 3), keepdims=True), 1e-12)
    mixed = 120.0 + 50.0 * smooth[:, :1] + 12.0 * smooth[:, 1:]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()


def _load(path: Path, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    names = [spec.name for spec in specs]
    arrays = load_arrays(path)
    if len(names) == 1 and names[0] not in arrays:
        only = next((key for key in _ONLY if key in arrays), None)
        if only is None and len(arrays) == 1:
            only = next(iter(arrays))
        if only is not None:
            return {names[0]: arrays[only]}
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UsageError(
            f"{path} must hold an array for every input; {', '.join(missing)} is missing "
            f"(it holds {', '.join(arrays) or 'nothing'})"
        )
    return {name: arrays[name] for name in names}


def _batches(what: str, array: Array, spec: TensorSpec) -> Array:
    """`array` as [samples, *shape of one input], checked against `spec`."""
    if array.ndim == len(spec.shape) == 0:
        array = array[None]
    elif array.ndim == len(spec.shape):
        batch = 1 if isinstance(spec.shape[0], str) else spec.shape[0]
        whole = len(array) // batch if batch else 0
        array = array[: whole * batch].reshape(whole, batch, *array.shape[1:])
    one = array.shape[1:]
    if array.ndim != len(spec.shape) + 1 or not spec.admits(spec.dtype, one):
        raise UsageError(
            f"{what} must be samples of {spec} (not {array.dtype.name} {list(array.shape)}): "
            "the first axis counts samples"
        )
    return _converted(what, array, spec)


def _converted(what: str, array: Array, spec: TensorSpec) -> Array:
    """To the input's dtype where that stays within a kind (float64 to float32)."""
    wanted = DTYPES[spec.dtype]
    if not np.can_cast(array.dtype, wanted, casting="same_kind"):
        raise UsageError(f"{what} must be {spec.dtype} (not {array.dtype.name}): convert it")
    with np.errstate(over="ignore"):
        converted = array.astype(wanted, copy=False)
    whole = array.dtype.kind in "iu" and wanted.kind in "iu"
    same = np.array_equal(array, converted) if whole else _finite_alike(array, converted)
    if not same:
        raise UsageError(f"{what} must fit {spec.dtype}: some of its values are too large")
    return converted


def _finite_alike(array: Array, converted: Array) -> bool:
    """Return whether no value grew to infinity, as beyond float16's 65,504 it does."""
    return np.array_equal(np.isfinite(array), np.isfinite(converted))
