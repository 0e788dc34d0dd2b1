"""README's picture, the text under it and its example's output, out of one run.

    python docs/readme.py            # runs example and demo: about two minutes
    python docs/readme.py --again    # lays out again what docs/images/demo.json has

The picture holds the digest of that file, by which a test sees that both are of one run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from midstream import demo
from midstream.cli.output.console import ms
from midstream.cli.output.outcomes import title_of, verdict
from midstream_lab.report.matplotlib_figures import draw_outcomes, network_title
from midstream_partitioner.machine import usable_cores

DOCS = Path(__file__).resolve().parent
README = DOCS.parent / "README.md"
PICTURE, DATA = DOCS / "images/demo.png", DOCS / "images/demo.json"
TITLE = "ResNet-18, a photo, an edge emulated 8x slower"
#: In front of the demo's text in README, in front of the example's output, and behind each.
DEMO = "<!-- docs/readme.py writes this -->\n"
EXAMPLE = "<!-- docs/readme.py writes this output -->\n"
END = "<!-- to here -->\n"
#: Where the picture keeps the digest of its data.
KEY = "midstream-data"
#: The network whose table README shows, and the columns that are not nearly zero there.
SHOWN, COLUMNS = "lte", ("head_s", "encode_s", "uplink_s", "tail_s", "downlink_s", "total_s")
#: What the picture and the text are made of.
KEPT = ("network", "model", "requests", "answered", "local", "max_relative_error")
KEPT_OF_A_PLACEMENT = (
    "name", "label", "cut", "is_chosen", "is_private_choice", "predicted", "measured", "p50_s",
    "p95_s", "max_relative_error",
)  # fmt: skip
WIDTH = 118


def run(requests: int) -> dict[str, Any]:
    """Run README's example and the demo's trials; return both, and the machine's load."""
    load = os.getloadavg()[0]
    example = run_example()
    networks = [_kept(each) for each in demo.run_networks(requests=requests, say=print)]
    return {
        "cores": usable_cores(),
        "load": round(load, 1),
        "example": example,
        "networks": networks,
    }


def run_example() -> list[str]:
    """Run README's example and return the lines that it prints."""
    (block,) = re.findall(
        r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
    )
    done = subprocess.run(
        [sys.executable, "-c", block], check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def _kept(document: dict[str, Any]) -> dict[str, Any]:
    placements = [
        {name: each[name] for name in KEPT_OF_A_PLACEMENT} for each in document["placements"]
    ]
    return {name: document[name] for name in KEPT} | {"placements": placements}


def text_of(data: dict[str, Any]) -> str:
    """The block of README: a table of one network, who was right, what to learn of all."""
    documents = data["networks"]
    shown = next(each for each in documents if each["network"]["name"] == SHOWN)
    rows = list(_rows(shown))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if at < 3 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    said = [network_title(shown["network"]), *lines]
    said += textwrap.wrap(verdict(shown), WIDTH)
    said += ["", *textwrap.wrap(demo.lesson(documents), WIDTH)]
    busy = f"{data['load']:g} processes wanted the {data['cores']} cores when the run began."
    said += ["", busy]
    return _indented(said)


def output_of(data: dict[str, Any]) -> str:
    """The block of README under its example."""
    return _indented(data["example"])


def _indented(lines: Sequence[str]) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in lines)


def _rows(document: dict[str, Any]) -> Sequence[list[str]]:
    names = [name.removesuffix("_s") for name in COLUMNS]
    rows = [["", "", "", *names, "p50"]]
    for each in document["placements"]:
        marks = ["plan"] * each["is_chosen"] + ["private"] * each["is_private_choice"]
        for kind, median in (("predicted", ""), ("measured", ms(each["p50_s"]))):
            first = [" ".join(marks), title_of(each)] if kind == "predicted" else ["", ""]
            times = [ms(each[kind][name]) for name in COLUMNS]
            rows.append([*first, kind, *times, median])
    return rows


def in_readme(readme: str, begin: str) -> str:
    """The block behind `begin` as README has it."""
    return readme.partition(begin)[2].partition(END)[0].strip("\n") + "\n"


def write(data: dict[str, Any]) -> None:
    """Picture, data and README, all of one run."""
    content = json.dumps(data, indent=1) + "\n"
    DATA.write_text(content, encoding="utf-8")
    draw_outcomes(data["networks"], PICTURE, title=TITLE)
    with Image.open(PICTURE) as drawn:
        drawn.load()
        told = PngImagePlugin.PngInfo()
        told.add_text(KEY, hashlib.sha256(content.encode()).hexdigest())
        drawn.save(PICTURE, pnginfo=told, optimize=True)
    readme = README.read_text(encoding="utf-8")
    for begin, text in ((EXAMPLE, output_of(data)), (DEMO, text_of(data))):
        before, _, rest = readme.partition(begin)
        after = rest.partition(END)[2]
        readme = f"{before}{begin}\n{text}\n{END}{after}"
    README.write_text(readme, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make README's picture and its text.")
    parser.add_argument("--again", action="store_true", help="from the last run's data")
    parser.add_argument("--requests", type=int, default=6, help="under each placement")
    options = parser.parse_args()
    if options.again:
        data = json.loads(DATA.read_text(encoding="utf-8"))
    else:
        data = run(options.requests)
    write(data)
    print(text_of(data))


if __name__ == "__main__":
    main()
