"""What activation codecs cost in bytes and in accuracy, on trained networks.

    python benchmarks/accuracy.py [--model resnet20|ultraface|digits|minilm] [--json FILE]
                                  [--draw FOLDER] [--samples N] [--codecs ec:0.5,ctx:1]
    python benchmarks/accuracy.py --choose --model resnet20 [--cuts 5,6,10]
                                  [--codecs ec:0.5,ctx:1] [--samples N] [--json FILE]
    python benchmarks/accuracy.py --rows FILE [--model resnet20] [--draw FOLDER]

Every codec at every cut of interest, and JPEG, WebP and PNG of the input over their whole
range of quality. Tensors go through the codec one sample at a time, as a session sends them;
payloads are counted whole, with headers and checksums. Transforms are fitted to other samples
than those measured. docs/results/codecs.md has the results.

With --choose, codecs are measured on training pictures that nothing was fitted to; of each
group the smallest that keeps to a stricter budget there is chosen, and that one alone is
measured on the test pictures: what a table says of it is not picked from what it tells.

With --rows, nothing is measured: it tells and draws what --json wrote.

The data is looked for in ../shared/data or $MIDSTREAM_DATA; what is absent is skipped. There
is a process for every processor, and a cut at a time for each.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
import PIL
import zstandard
from accuracy_measures import Row, choose, measure
from accuracy_subjects import SUBJECTS, Subject, subject_called
from accuracy_tables import comparison, draw, summary, table

from midstream_partitioner.machine import usable_cores
from midstream_wire.errors import UsageError

Found = TypeVar("Found")
#: What is done at one cut of a subject, with the codecs to be measured (None: all).
Work = Callable[[Subject, int, Sequence[str] | None], Iterator[Found]]
Documents = list[dict[str, Any]]


def machine() -> dict[str, str]:
    return {
        "date": datetime.date.today().isoformat(),
        "system": platform.platform(),
        "cpus": str(usable_cores()),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "zstandard": zstandard.__version__,
        "pillow": PIL.__version__,
    }


def at_cut(
    work: Work[Found], k: int, *, name: str, samples: int | None, codecs: Sequence[str] | None
) -> list[Found]:
    """What a worker does: all that `work` finds at one cut."""
    return list(work(subject_called(name, samples), k, codecs))


def at_cuts(
    work: Work[Found], subject: Subject, cuts: Iterable[int], chosen: argparse.Namespace
) -> list[Found]:
    """All that `work` finds at `cuts`, a process for every processor."""
    there = partial(
        at_cut, work, name=subject.name, samples=chosen.samples, codecs=chosen.codecs
    )
    with ProcessPoolExecutor(usable_cores(), mp_context=get_context("spawn")) as pool:
        return [each for found in pool.map(there, cuts) for each in found]


def tell_choices(subject: Subject, chosen: argparse.Namespace) -> Documents:
    """The codecs chosen on training pictures, told and as JSON; nothing where none are."""
    if subject.choice is None:
        return []
    cuts = chosen.cuts or range(1, len(subject.cuts) + 1)
    found = at_cuts(choose, subject, cuts, chosen)
    print(f"\n## {subject.title}\n")
    print("\n".join(comparison(found)), flush=True)
    return [asdict(each) for each in found]


def tell_rows(subject: Subject, chosen: argparse.Namespace) -> Documents:
    """All rows of all cuts, told and as JSON; nothing where there are none."""
    began = time.perf_counter()
    if chosen.rows is None:
        rows = at_cuts(measure, subject, range(len(subject.cuts) + 1), chosen)
    else:
        rows = [row for row in chosen.rows if row.network == subject.name]
    if not rows:
        return []
    print(f"\n## {subject.title}\n")
    print("\n".join((*summary(rows, subject), "", *table(rows))))
    print(f"\n{len(rows)} rows in {time.perf_counter() - began:.0f} s", flush=True)
    if chosen.draw:
        draw(rows, subject, chosen.draw / f"codecs-{subject.name}.png")
    return [asdict(row) for row in rows]


def read_rows(path: str) -> list[Row]:
    """What --json wrote."""
    return [Row(**each) for each in json.loads(Path(path).read_text())["rows"]]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SUBJECTS, action="append", help="default: all")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    parser.add_argument("--draw", type=Path, help="draw a picture a network into this folder")
    parser.add_argument("--samples", type=int, help="only the first so many test samples")
    parser.add_argument(
        "--rows", type=read_rows, help="tell of what --json wrote, measure nothing"
    )
    parser.add_argument("--codecs", type=lambda text: text.split(","), help="only these")
    parser.add_argument("--choose", action="store_true", help="choose on training pictures")
    parser.add_argument(
        "--cuts",
        type=lambda text: [*map(int, text.split(","))],
        help="with --choose: only these",
    )
    return parser


def main() -> None:
    chosen = options().parse_args()
    tell = tell_choices if chosen.choose else tell_rows
    documents: Documents = []
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    for name in chosen.model or SUBJECTS:
        try:
            subject = subject_called(name, chosen.samples)
        except UsageError as error:
            print(f"{name}: skipped, {error}", file=sys.stderr)
        else:
            documents += tell(subject, chosen)
    if chosen.json:
        document = {"machine": machine(), "rows": documents}
        chosen.json.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
