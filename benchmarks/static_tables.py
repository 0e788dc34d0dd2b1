"""Make the static tables of proto/midstream_wire/codecs/static.py, and print that module.

    python benchmarks/static_tables.py > proto/midstream_wire/codecs/static.py

What is made depends on the release of zstd, so the tables in use are those that are committed:
they are part of the format, and a change of them is a change of the format. The samples are
seeded: rectified normal and Laplace numbers, sparse to dense, and signed ones, at the steps of
the ladder and between them.
"""

from __future__ import annotations

import base64
from collections import defaultdict

import numpy as np
import zstandard

from midstream_wire.codecs import symbols as packing_of
from midstream_wire.codecs.channels import Layout
from midstream_wire.codecs.grid import grid_of, quantize
from midstream_wire.tensors import Array

LEVELS = 4
TENSORS = 6000
ELEMENTS = 2048
# In zstd's dictionaries these offsets end the tables; content of at least 8 bytes follows.
OFFSETS = bytes.fromhex("010000000400000008000000")
HEAD = '''"""Static tables for small tensors: zstd dictionaries that consist of tables alone.

Made by benchmarks/static_tables.py, and part of the format (docs/reference/wire.md).
"""

from __future__ import annotations

from base64 import b85decode

#: (packing, signed) -> mean magnitudes; up to the first of them goes the first table.
EDGES: dict[tuple[int, bool], tuple[float, float, float]] = {'''


def activation(random: np.random.Generator) -> Array:
    """Seeded noise of one of several kinds."""
    noise = (
        random.laplace(size=ELEMENTS)
        if random.random() < 0.5
        else random.normal(size=ELEMENTS)
    )
    if random.random() < 0.5:
        noise = np.maximum(noise + random.uniform(-1.8, 0.5), 0)
    noise[0] += 1e-3
    made: Array = noise.astype(np.float32)
    return made


def samples() -> dict[tuple[int, bool], list[tuple[float, bytes]]]:
    """(packing, signed) -> (mean magnitude, packed symbols) of many tensors."""
    random = np.random.default_rng(2026)
    found: dict[tuple[int, bool], list[tuple[float, bytes]]] = defaultdict(list)
    for _ in range(TENSORS):
        array = activation(random)
        grid = grid_of(array, Layout(1, 1, ELEMENTS), 2 ** random.uniform(-3, 1.5))
        if grid is None:
            continue
        made = np.empty(array.size, np.uint8)
        scaled = grid.scaled(np.float32(1) / grid.steps, array, 0)
        quantize(scaled, made, theta=grid.theta / 256, signed=grid.signed)
        packing = packing_of.choose_packing(made, grid.signed)
        if packing == 3 or made.min() == made.max():
            continue
        bias, escape = packing_of.codes_of(packing, grid.signed)
        zero = packing_of.MIDDLE if grid.signed else 0
        codes = np.clip(made - np.uint8(zero - bias), 0, escape).astype(np.uint8)
        mean = float(np.abs(made.astype(int) - zero).mean())
        found[packing, grid.signed].append((mean, packing_of.pack(codes, packing).tobytes()))
    return found


def table(packed: list[bytes]) -> bytes:
    """The tables of a dictionary trained on `packed`, with content of zeros."""
    made = zstandard.train_dictionary(1024, packed, level=1).as_bytes()
    end = made.index(OFFSETS) + len(OFFSETS)
    return made[:end] + bytes(8)


def main() -> None:
    edges, tables = [], []
    for key, rows in sorted(samples().items()):
        rows.sort()
        bounds = [len(rows) * level // LEVELS for level in range(LEVELS + 1)]
        middles = [(rows[at - 1][0] + rows[at][0]) / 2 for at in bounds[1:-1]]
        edges.append(f"    {key}: ({', '.join(f'{each:.3f}' for each in middles)}),")
        tables.append(f"    {key}: (")
        for start, stop in zip(bounds, bounds[1:], strict=False):
            text = base64.b85encode(table([each for _, each in rows[start:stop]])).decode()
            lines = [text[at : at + 76] for at in range(0, len(text), 76)]
            tables.append("        b85decode(")
            tables += [f'            "{line}"' for line in lines]
            tables.append("        ),")
        tables.append("    ),")
    print(HEAD, *edges, "}", sep="\n")
    print("\n#: (packing, signed) -> dictionaries, the first for the most zeros.")
    print("TABLES: dict[tuple[int, bool], tuple[bytes, bytes, bytes, bytes]] = {")
    print(*tables, "}", sep="\n")


if __name__ == "__main__":
    main()
