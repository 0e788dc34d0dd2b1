"""What a picture's codec costs a classifier: bytes, accuracy and time of JPEG, WebP and AVIF.

    python benchmarks/pictures.py [--model efficientnet-lite0] [--loss 1.0] [--json]

For each kind, the lowest quality that loses at most so many points of top-1 on training
pictures is chosen there; it alone is then judged on validation pictures. The data is looked
for in ../shared/data or $MIDSTREAM_DATA. Bytes are whole payloads of uint8 [1, 224, 224, 3];
times are of one thread's CPU, means over the validation pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import numpy as np
from accuracy_subjects import DATA
from PIL import Image

from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.inputs.samples import list_pictures
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_wire.codecs import codec, decode, encode_bytes
from midstream_wire.tensors import Array, TensorSpec

KINDS = ("jpeg", "webp", "avif")
QUALITIES = (70, 75, 80, 85, 90, 92, 95, 98)
SIDE = 224
SPEC = TensorSpec("picture", "uint8", (1, SIDE, SIDE, 3))

Answers = Callable[[Array], Array]


@final
@dataclass(frozen=True, slots=True)
class Row:
    """A codec on some pictures. `top1_loss` and `half_width` (of 95 %) are points."""

    codec: str
    pictures: int
    nbytes: float
    top1_loss: float
    half_width: float
    agreement: float
    encode_ms: float
    decode_ms: float


def read(paths: Sequence[Path]) -> Array:
    """uint8 [N, SIDE, SIDE, 3]."""
    opened = (Image.open(path).convert("RGB").resize((SIDE, SIDE)) for path in paths)
    return np.stack([np.asarray(each) for each in opened])


def classifier(path: Path) -> Answers:
    """The first class of each picture, of a network whose feed takes pictures as they are."""
    network = load_network(path)
    chain = Chain(partition(network, ()))
    (given,), (answer,) = network.graph.inputs, network.graph.outputs

    def answers(pictures: Array) -> Array:
        runs = (chain.run({given: picture[None]}, 0, 1) for picture in pictures)
        return np.array([int(state[answer].argmax()) for state in runs])

    return answers


def measure(id: str, pictures: Array, labels: Array, whole: Array, answers: Answers) -> Row:
    """Send `pictures` by the codec `id`; compare with `whole`, the answers without it."""
    chosen = codec(id)
    began = time.process_time()
    payloads = [encode_bytes(chosen, picture[None]) for picture in pictures]
    encoded = time.process_time()
    got = [decode(each, SPEC, max_nbytes=SIDE * SIDE * 3)[0] for each in payloads]
    decoded = time.process_time()
    found = answers(np.stack(got))
    lost = (whole == labels).astype(int) - (found == labels)
    count = len(pictures)
    return Row(
        id,
        count,
        float(np.mean([len(each) for each in payloads])),
        100 * float(lost.mean()),
        196 * float(lost.std()) / math.sqrt(count),
        100 * float((found == whole).mean()),
        1e3 * (encoded - began) / count,
        1e3 * (decoded - encoded) / count,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--loss", type=float, default=1.0, help="points of top-1")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    chosen = parser.parse_args()

    answers = classifier(DATA / "models" / f"{chosen.model}.onnx")
    paths = list_pictures(DATA / "photos2")
    fitted, fit_labels = read(paths), np.array([int(p.name.split("-")[0]) for p in paths])
    folder = DATA / "imagenet"
    judged = read(list_pictures(folder / "val-900"))
    labels = np.loadtxt(folder / "val-900.labels.txt", dtype=int)
    fit_whole, whole = answers(fitted), answers(judged)
    rows = []
    for kind in KINDS:
        for quality in QUALITIES:
            tried = measure(f"{kind}:{quality}", fitted, fit_labels, fit_whole, answers)
            print(f"chosen on: {tried}", file=sys.stderr, flush=True)
            if tried.top1_loss <= chosen.loss:
                rows.append(measure(tried.codec, judged, labels, whole, answers))
                break
    if chosen.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    top1 = 100 * (whole == labels).mean()
    print(f"{chosen.model}: top-1 {top1:.2f} % of {len(labels)}")
    print("| codec | bytes | top-1 lost, points | agreement, % | encode ms | decode ms |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| `{row.codec}` | {row.nbytes:,.0f} "
            f"| {row.top1_loss:.2f} ± {row.half_width:.2f} | {row.agreement:.2f} "
            f"| {row.encode_ms:.1f} | {row.decode_ms:.1f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
