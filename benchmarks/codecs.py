"""How fast the codecs are, and how small: against zstd level 1 on the same bytes.

    python benchmarks/codecs.py [--json] [--repeats 15] [--photo FILE]

Tensors are seeded and look like a convolution's output after a ReLU: smooth in space, half
zero, channels of different strength. Encoding goes to the last piece, decoding feeds these
pieces, as a session does. Times are medians of interleaved runs on one thread, so that what
else the machine does falls on all alike; MB/s are of raw bytes. Of what is printed, the ratios
travel to other machines, the rest does not.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import zstandard

from midstream_wire.codecs import Codec, Decoder, codec, encode
from midstream_wire.tensors import Array, TensorSpec

#: name -> shape; 50 KB, 200 KB, 800 KB and 3 MB of float32.
TENSORS = {
    "50 KB": (1, 256, 7, 7),
    "200 KB": (1, 64, 28, 28),
    "800 KB": (1, 64, 56, 56),
    "3 MB": (1, 64, 112, 112),
}
TENSOR_CODECS = ("raw", "lossless", "half", "int8", "int8c")
PHOTO_CODECS = ("raw", "lossless", "png", "jpeg:90", "jpeg:50", "webp:80", "webp:50")
REFERENCE = "zstd-1"


@dataclass(frozen=True, slots=True)
class Row:
    """One codec on one array. `*_to_zstd` are speeds and sizes over those of zstd level 1."""

    array: str
    nbytes: int
    codec: str
    payload_nbytes: int
    ratio: float
    encode_s: float
    decode_s: float
    encode_mb_per_s: float
    decode_mb_per_s: float
    ratio_to_zstd: float
    encode_to_zstd: float
    decode_to_zstd: float
    max_error: float
    error_bound: float | None


def activation(shape: tuple[int, ...], seed: int) -> Array:
    """Smooth noise [N, C, H, W] of channels of different strength, after a ReLU."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal(shape, np.float32)
    for axis in (2, 3):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)
    strength = random.lognormal(0.0, 0.7, (1, shape[1], 1, 1)).astype(np.float32)
    made: Array = np.maximum(noise * strength, 0)
    return made


def photo(path: Path | None) -> Array | None:
    """The picture at `path`, else scikit-learn's sample, else None."""
    from PIL import Image

    if path is None:
        try:
            from sklearn.datasets import load_sample_image
        except ImportError:
            return None
        return np.array(load_sample_image("china.jpg"))
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def decoded(pieces: list[bytes | memoryview], spec: TensorSpec, nbytes: int) -> Array:
    """What a receiver makes of `pieces`."""
    decoder = Decoder(spec, max_nbytes=nbytes)
    for piece in pieces:
        decoder.feed(piece)
    return decoder.result()


def seconds(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of each piece of work, run in turns."""
    for each in work.values():
        each()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, each in work.items():
            began = time.perf_counter()
            each()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure(name: str, array: Array, ids: tuple[str, ...], repeats: int) -> Iterator[Row]:
    """A row for zstd-1 and for each of the codecs `ids`, on `array`."""
    spec = TensorSpec("x", array.dtype.name, array.shape)
    compressor, decompressor = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    frame = compressor.compress(array.data)
    codecs: dict[str, Codec] = {id: codec(id) for id in ids}
    pieces = {id: list(encode(each, array)) for id, each in codecs.items()}
    encoding: dict[str, Callable[[], object]] = {
        REFERENCE: lambda: compressor.compress(array.data)
    }
    decoding: dict[str, Callable[[], object]] = {
        REFERENCE: lambda: np.frombuffer(decompressor.decompress(frame), array.dtype)
    }
    for id, each in codecs.items():
        encoding[id] = lambda each=each: list(encode(each, array))  # type: ignore[misc]
        decoding[id] = lambda id=id: decoded(pieces[id], spec, array.nbytes)  # type: ignore[misc]
    encode_s, decode_s = seconds(encoding, repeats), seconds(decoding, repeats)
    for id in (REFERENCE, *ids):
        payload_nbytes = len(frame) if id == REFERENCE else sum(map(len, pieces[id]))
        delivered = array if id == REFERENCE else decoded(pieces[id], spec, array.nbytes)
        yield Row(
            array=name,
            nbytes=array.nbytes,
            codec=id,
            payload_nbytes=payload_nbytes,
            ratio=array.nbytes / payload_nbytes,
            encode_s=encode_s[id],
            decode_s=decode_s[id],
            encode_mb_per_s=array.nbytes / encode_s[id] / 1e6,
            decode_mb_per_s=array.nbytes / decode_s[id] / 1e6,
            ratio_to_zstd=len(frame) / payload_nbytes,
            encode_to_zstd=encode_s[REFERENCE] / encode_s[id],
            decode_to_zstd=decode_s[REFERENCE] / decode_s[id],
            max_error=float(np.abs(delivered.astype(np.float64) - array).max()),
            error_bound=0.0 if id == REFERENCE else codecs[id].error_bound(array),
        )


def show(rows: list[Row]) -> None:
    """Print a table for people."""
    print(f"{'':24}{'':8}{'encode':>9}{'decode':>9}   {'over zstd-1':^24}")
    print(
        f"{'array':<12}{'codec':<12}{'ratio':>8}{'MB/s':>9}{'MB/s':>9}"
        f"{'ratio':>9}{'encode':>9}{'decode':>9}{'max error':>12}"
    )
    for row in rows:
        print(
            f"{row.array:<12}{row.codec:<12}{row.ratio:>8.2f}{row.encode_mb_per_s:>9.0f}"
            f"{row.decode_mb_per_s:>9.0f}{row.ratio_to_zstd:>9.2f}{row.encode_to_zstd:>9.2f}"
            f"{row.decode_to_zstd:>9.2f}{row.max_error:>12.3g}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each (default 15)")
    parser.add_argument("--photo", type=Path, help="a picture (default: scikit-learn's)")
    chosen = parser.parse_args()
    rows: list[Row] = []
    for seed, (name, shape) in enumerate(TENSORS.items()):
        rows += measure(name, activation(shape, seed), TENSOR_CODECS, chosen.repeats)
    picture = photo(chosen.photo)
    if picture is None:
        print("no photo: give one by --photo, or install scikit-learn", file=sys.stderr)
    else:
        rows += measure("photo", picture, PHOTO_CODECS, chosen.repeats)
    machine = {
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "zstandard": zstandard.__version__,
    }
    if chosen.json:
        print(
            json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2)
        )
    else:
        print(", ".join(f"{key} {value}" for key, value in machine.items()))
        show(rows)


if __name__ == "__main__":
    main()
