"""How fast the codecs are, and how small: against zstd level 1 on the same bytes.

    python benchmarks/codecs.py [--json] [--repeats 15] [--photo FILE] [--data FOLDER]

Seeded tensors look like a convolution's output after a ReLU: smooth in space, half zero,
channels of different strength. Where the data folder is there (--data, $MIDSTREAM_DATA or
../shared/data), trained ResNet-20 and UltraFace give real ones, a quarter, half and all of the
way through. Beside midstream's codecs stand those of others that are installed (zfpy, blosc2,
pcodec), and plain quantization with zstd. Encoding goes to the last piece, decoding feeds
these pieces, as a session does. Times are medians of interleaved runs, of the processor time
of one thread, so that what else the machine does disturbs little, and all alike; each is timed
when it runs for the second time in a row, as in a session, where one tensor follows another;
freed memory is kept, as in midstream's processes. MB/s are of raw bytes. Of what is printed,
the ratios travel to other machines, the rest does not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from others import REFERENCE, contenders

from midstream_wire.allocator import keep_freed_memory
from midstream_wire.codecs import Codec, Decoder, codec, encode
from midstream_wire.tensors import Array, TensorSpec

#: name -> shape; 50 KB, 200 KB, 800 KB and 3 MB of float32.
TENSORS = {
    "50 KB": (1, 256, 7, 7),
    "200 KB": (1, 64, 28, 28),
    "800 KB": (1, 64, 56, 56),
    "3 MB": (1, 64, 112, 112),
}
TENSOR_CODECS = (
    "raw", "lossless", "half", "int8", "int8c",
    "ec:0.125", "ec:0.25", "ec:0.5", "ec:1", "ec:2", "ecc:0.25", "ecc:0.5", "ecc:1",
)  # fmt: skip
PHOTO_CODECS = ("raw", "lossless", "png", "jpeg:90", "jpeg:50", "webp:80", "webp:50")


@dataclass(frozen=True, slots=True)
class Row:
    """One codec on one array. `*_to_zstd` are speeds and sizes over those of zstd level 1."""

    array: str
    nbytes: int
    codec: str
    payload_nbytes: int
    bits_per_element: float
    ratio: float
    encode_s: float
    decode_s: float
    encode_mb_per_s: float
    decode_mb_per_s: float
    ratio_to_zstd: float
    encode_to_zstd: float
    decode_to_zstd: float
    max_error: float
    relative_l2: float
    error_bound: float | None


def activation(shape: tuple[int, ...], seed: int) -> Array:
    """Smooth noise [N, C, H, W] of channels of different strength, after a ReLU."""
    random = np.random.default_rng(seed)
    noise: Array = random.standard_normal(shape, np.float32)
    for axis in (2, 3):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)
    strength = random.lognormal(0.0, 0.7, (1, shape[1], 1, 1)).astype(np.float32)
    made: Array = np.maximum(noise * strength, 0)
    return made


def trained(data: Path) -> dict[str, Array]:
    """Activations from the middle of trained networks, on the first picture of each."""
    from PIL import Image

    with np.load(data / "cifar10" / "cifar10-train-10000.npz") as pictures:
        small = pictures["images"][0] / 255
    small = (small - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    path = sorted((data / "photos").glob("*.jpg"))[0]
    with Image.open(path) as photo:
        large = (np.asarray(photo.convert("RGB").resize((320, 240)), np.float32) - 127) / 128
    models = data / "models"
    found = {
        f"resnet20 {shape}": array
        for shape, array in middle(models / "resnet20-cifar10.onnx", small).items()
    }
    for shape, array in middle(models / "ultraface-rfb-320.onnx", large).items():
        found[f"ultraface {shape}"] = array
    return found


def middle(path: Path, picture: Array) -> dict[str, Array]:
    """Outputs of the ReLUs a quarter, half and all of the way through the model at `path`."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    relus = [node.output[0] for node in model.graph.node if node.op_type == "Relu"]
    names = [relus[len(relus) // 4], relus[len(relus) // 2], relus[-1]]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings)
    planes = picture.transpose(2, 0, 1)[None].astype(np.float32)
    feed = {session.get_inputs()[0].name: planes}
    return {"x".join(map(str, array.shape[1:])): array for array in session.run(names, feed)}


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


def seconds(work: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of each piece of work, run in turns, twice each."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, each in work.items():
            # What another codec left in the caches is no part of it.
            each()
            began = time.thread_time()
            each()
            times[name].append(time.thread_time() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure(name: str, array: Array, ids: tuple[str, ...], repeats: int) -> Iterator[Row]:
    """A row for each of the codecs `ids`, and of other people's, on `array`."""
    spec = TensorSpec("x", array.dtype.name, array.shape)
    codecs: dict[str, Codec] = {id: codec(id) for id in ids}
    encoding: dict[str, Callable[[], Any]] = {}
    decoding: dict[str, Callable[[], Array]] = {}
    nbytes: dict[str, int] = {}
    for id, other in contenders(array).items():
        made = other.encode()
        encoding[id], nbytes[id] = other.encode, len(made)
        decoding[id] = lambda other=other, made=made: other.decode(made)  # type: ignore[misc]
    for id, each in codecs.items():
        pieces = list(encode(each, array))
        nbytes[id] = sum(map(len, pieces))
        encoding[id] = lambda each=each: list(encode(each, array))  # type: ignore[misc]
        decoding[id] = lambda pieces=pieces: decoded(pieces, spec, array.nbytes)  # type: ignore[misc]
    encode_s, decode_s = seconds(encoding, repeats), seconds(decoding, repeats)
    for id in encoding:
        delivered = decoding[id]().astype(np.float64)
        yield Row(
            array=name,
            nbytes=array.nbytes,
            codec=id,
            payload_nbytes=nbytes[id],
            bits_per_element=8 * nbytes[id] / array.size,
            ratio=array.nbytes / nbytes[id],
            encode_s=encode_s[id],
            decode_s=decode_s[id],
            encode_mb_per_s=array.nbytes / encode_s[id] / 1e6,
            decode_mb_per_s=array.nbytes / decode_s[id] / 1e6,
            ratio_to_zstd=nbytes[REFERENCE] / nbytes[id],
            encode_to_zstd=encode_s[REFERENCE] / encode_s[id],
            decode_to_zstd=decode_s[REFERENCE] / decode_s[id],
            max_error=float(np.abs(delivered - array).max()),
            relative_l2=float(np.linalg.norm(delivered - array) / np.linalg.norm(array)),
            error_bound=codecs[id].error_bound(array) if id in codecs else None,
        )


def show(rows: list[Row]) -> None:
    """Print a table for people."""
    print(
        f"{'':33}{'bits per':>9}{'encode':>9}{'decode':>9}   {'over zstd-1':^24}{'error':>12}"
    )
    print(
        f"{'array':<20}{'codec':<18}{'element':>9}{'MB/s':>9}{'MB/s':>9}"
        f"{'ratio':>9}{'encode':>9}{'decode':>9}{'max':>12}{'l2':>9}"
    )
    for row in rows:
        print(
            f"{row.array:<20}{row.codec:<18}{row.bits_per_element:>9.2f}"
            f"{row.encode_mb_per_s:>9.0f}{row.decode_mb_per_s:>9.0f}"
            f"{row.ratio_to_zstd:>9.2f}{row.encode_to_zstd:>9.2f}{row.decode_to_zstd:>9.2f}"
            f"{row.max_error:>12.3g}{row.relative_l2:>9.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each (default 15)")
    parser.add_argument("--photo", type=Path, help="a picture (default: scikit-learn's)")
    parser.add_argument("--data", type=Path, help="where cifar10/, models/ and photos/ are")
    chosen = parser.parse_args()
    keep_freed_memory()
    rows: list[Row] = []
    for seed, (name, shape) in enumerate(TENSORS.items()):
        rows += measure(name, activation(shape, seed), TENSOR_CODECS, chosen.repeats)
    data = chosen.data or Path(os.environ.get("MIDSTREAM_DATA", "../shared/data"))
    if data.is_dir():
        for name, array in trained(data).items():
            rows += measure(name, array, TENSOR_CODECS, chosen.repeats)
    else:
        print(f"no trained networks: {data} is not there (see --data)", file=sys.stderr)
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
