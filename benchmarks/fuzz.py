"""Mutated payloads and frames by the million: what is wrong is refused, by our errors alone.

    python benchmarks/fuzz.py                     # ten million, in one process for each core
    python benchmarks/fuzz.py --cases 1e5 --seed 7

A third are payloads that were damaged on the way, a third are forged (the checksums are right
for what was changed), a third are messages of either side. A failure names the seed of its
chunk, which repeats it: `--seed N --cases 10000 --jobs 1`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fuzzing import SAMPLES, damage, forge, garble

CHUNK = 10_000


def run_chunk(seed: int) -> tuple[int, int]:
    """Try a chunk of cases; returns how many, and how many were refused."""
    warnings.simplefilter("error")
    rng, refused = Random(seed), 0
    for case in range(CHUNK):
        number = case % len(SAMPLES)
        try:
            match case % 3:
                case 0:
                    refused += damage(number, rng)
                case 1:
                    refused += forge(number, rng)
                case _:
                    refused += garble(rng)
        except Exception as error:
            error.add_note(f"seed {seed}, case {case}")
            raise
    return CHUNK, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=float, default=10e6, help="how many (default: 10e6)")
    parser.add_argument("--seed", type=int, default=1, help="of the first chunk (default: 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    chunks = max(1, round(options.cases / CHUNK))
    seeds = range(options.seed, options.seed + chunks)
    done = refused = 0
    began_s = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        for future in as_completed([pool.submit(run_chunk, seed) for seed in seeds]):
            tried, wrong = future.result()
            done, refused = done + tried, refused + wrong
            if done % (10 * CHUNK) == 0:
                rate = done / (time.monotonic() - began_s)
                print(f"{done:,} of {chunks * CHUNK:,}, {rate:,.0f} a second", flush=True)
    print(
        f"{done:,} mutated, {refused / done:.1%} refused, none in silence, by no foreign error"
    )


if __name__ == "__main__":
    main()
