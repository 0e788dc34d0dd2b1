"""How far two answers lie apart, where numbers are not ordinary too."""

from __future__ import annotations

import math

import numpy as np
import pytest

from midstream_partitioner.compare import argmax_equal, relative_error

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("expected", "given", "error"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
        ([NAN, INF, 2.0], [NAN, INF, 2.0], 0.0),
        ([NAN, INF, 2.0], [NAN, INF, 1.0], 0.5),
        ([1.0, 2.0], [NAN, 2.0], INF),
        ([INF, 2.0], [-INF, 2.0], INF),
        ([INF, 2.0], [1.0, 2.0], INF),
        ([1.0, 2.0], [1.0], INF),
        ([], [], 0.0),
    ],
)
def test_errors_are_relative_to_the_largest_magnitude(
    expected: list[float], given: list[float], error: float
) -> None:
    pair = ({"y": np.array(values, np.float32)} for values in (expected, given))
    assert relative_error(*pair) == error


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "complex64"])
def test_every_dtype_can_be_compared(dtype: str) -> None:
    one, other = np.array([0, 1], dtype), np.array([1, 1], dtype)
    assert relative_error({"y": one}, {"y": one.copy()}) == 0.0
    assert relative_error({"y": one}, {"y": other}) == 1.0


def test_the_worst_output_counts_and_a_missing_one_is_infinitely_far() -> None:
    expected = {"a": np.ones(2), "b": np.ones(2)}
    assert relative_error(expected, {"a": np.ones(2), "b": np.ones(2) * 1.5}) == 0.5
    assert relative_error(expected, {"a": np.ones(2)}) == INF
    assert not argmax_equal(expected, {"a": np.ones(2)})


def test_the_largest_entry_may_stand_wherever_it_ties() -> None:
    expected = {"y": np.array([[1.0, 3.0, 3.0 - 1e-6], [2.0, 1.0, 0.0]], np.float32)}
    tied = {"y": np.array([[1.0, 3.0 - 1e-6, 3.0], [2.0, 1.0, 0.0]], np.float32)}
    moved = {"y": np.array([[1.0, 3.0, 2.0], [1.0, 2.0, 0.0]], np.float32)}
    assert argmax_equal(expected, tied)
    assert not argmax_equal(expected, moved)
    assert not argmax_equal(expected, {"y": np.zeros((1, 3), np.float32)})
    assert argmax_equal({"y": np.array(1.0)}, {"y": np.array(1.0)})
    assert argmax_equal({"y": np.zeros((2, 0))}, {"y": np.zeros((2, 0))})
