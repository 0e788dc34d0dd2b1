"""Networks of open size for benchmarks/sizes.py: two made by hand, the others from files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import onnx

from midstream_lab.networks.open_sizes import text_encoder, unet

#: A network whose sizes a run varies: what `--size` spans, and sizes between its buckets.
Between = tuple[dict[str, int], ...]


@final
@dataclass(frozen=True)
class Subject:
    """`spans` is what is measured; `asked` are the requests' sizes, none of them a bucket."""

    name: str
    build: Callable[[], onnx.ModelProto | Path]
    spans: str
    asked: Between


def subjects(files: Path | None) -> list[Subject]:
    """The two made by hand, and PaddleOCR's networks where their folder is given."""
    found = [
        Subject("text", text_encoder, "batch=1,seq=8..512",
                ({"seq": 12}, {"seq": 48}, {"seq": 96}, {"seq": 300})),
        Subject("unet", unet, "batch=1,height=64..256,width=64..256",
                ({"height": 64, "width": 96}, {"height": 96, "width": 96},
                 {"height": 160, "width": 192}, {"height": 224, "width": 240})),
    ]  # fmt: skip
    if files is not None:
        sides = "p2o.DynamicDimension.1", "p2o.DynamicDimension.2"
        found += [
            Subject("detector", lambda: files / "ch_PP-OCRv4_det_infer.onnx",
                    ",".join(f"{side}=96..384" for side in sides),
                    tuple(dict(zip(sides, hw, strict=True)) for hw in
                          ((96, 160), (128, 288), (256, 256), (320, 352)))),
            Subject("recogniser", lambda: files / "ch_PP-OCRv4_rec_infer.onnx",
                    "x:2=48,p2o.DynamicDimension.1=80..640",
                    tuple({"p2o.DynamicDimension.1": w} for w in (96, 200, 280, 480))),
        ]  # fmt: skip
    return found
