"""Your own code before and after the network: from a drawing to a digit.

    python examples/own_processing.py

The preparation may also be part of the model, so that edge and cloud share it:
docs/reference/feeds.md.
"""

from __future__ import annotations

import numpy as np

import midstream

SEVEN = """
..####..
.#...#..
.....#..
....##..
..#####.
....#...
...#....
..##....
"""


def prepare(drawing: str) -> np.ndarray:
    """Return [1, 1, 8, 8] float32, ink as 16 and paper as 0, as the network was trained."""
    rows = [[16.0 if ink == "#" else 0.0 for ink in line] for line in drawing.split()]
    return np.array([[rows]], np.float32)


def best(scores: np.ndarray) -> tuple[int, float]:
    """Return the most likely digit, and its probability by a softmax."""
    powers = np.exp(scores[0] - scores[0].max())
    digit = int(powers.argmax())
    return digit, float(powers[digit] / powers.sum())


def main() -> None:
    part = midstream.partition("digits")
    (given,), (made,) = part.inputs, part.outputs
    with (
        midstream.serve(part) as server,
        midstream.connect(part, server, (1, "raw")) as session,
    ):
        answer = session.infer({given.name: prepare(SEVEN)})
    digit, probability = best(answer.outputs[made.name])
    print(f"a {digit}, with {probability:.0%}, answered by {answer.where}")


if __name__ == "__main__":
    main()
