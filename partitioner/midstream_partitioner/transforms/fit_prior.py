"""Fitting priors: what activations at a cut are like, learnt from samples of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from midstream_partitioner.transforms.context_model import (
    ESCAPE,
    MARGIN,
    PASSES,
    SYMBOLS,
    Expectation,
    Ints,
    Lattice,
    Pass,
    framed,
)
from midstream_partitioner.transforms.noise_shaping import Metric
from midstream_partitioner.transforms.prior import MAX_CHANNELS, MIN_SIDE, Prior
from midstream_wire.codecs.interlace import MAX_MAGNITUDE
from midstream_wire.codecs.rans import table_of
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array, TensorSpec

#: Classes of each pass: the more elements a pass has, the more pay.
_CLASSES = (12, 12, 16, 24, 32)
#: Every symbol of every class is counted as often before any was seen.
_UNSEEN = 0.02
#: Keeps weights small that the samples say little about: a share of the number of elements.
_RIDGE = 1e-4
#: Weights are whole numbers up to this; predictions count in what is left of a magnitude.
_MOST_WEIGHT, _MOST_SCALE = 127, 1024
#: Samples looked at together: their features stay below some tens of megabytes.
_TOGETHER = 16


def can_have_prior(spec: TensorSpec) -> bool:
    """Return True if `fit_prior` takes such tensors: floats, planes of few enough channels."""
    if "float" not in spec.dtype or len(spec.shape) != 4:
        return False
    channels, *sides = spec.shape[1:]
    fixed = [size for size in sides if isinstance(size, int)]
    return (
        isinstance(channels, int)
        and 0 < channels <= MAX_CHANNELS
        and min(fixed, default=MIN_SIDE) >= MIN_SIDE
    )


def fit_prior(samples: Sequence[Array], dial: float, *, metric: Metric | None = None) -> Prior:
    """The prior of `samples`, arrays [N, C, H, W] of one tensor, for a step of `dial` standard
    deviations of all of them together; by `metric`, where there is one.

    Samples that are not finite are passed over. Raises `UsageError` where there is nothing to
    fit to, or nothing but one value.
    """
    kept = [each for each in samples if each.size and np.isfinite(each).all()]
    deviation = deviation_of(kept)
    peak = max((float(np.abs(each).max()) for each in kept), default=0.0)
    step = float(np.float32(dial * deviation))
    if not 0 < deviation < 1e14 or peak >= MAX_MAGNITUDE * step:
        raise UsageError(
            "fitting a prior needs samples of finite numbers of moderate size that are not "
            "all the same, and there were none: calibrate with other data"
        )
    signed = any(float(each.min()) < 0 for each in kept)
    plain = Prior(kept[0].shape[1], step, signed, (), metric)
    magnitudes = [
        np.abs(plain.quantize(scaled)[0]).astype(np.int32) for scaled in _joined(kept, step)
    ]
    passes = (
        _fit_pass(magnitudes, each, classes)
        for each, classes in zip(PASSES, _CLASSES, strict=True)
    )
    return replace(plain, passes=tuple(passes))


def deviation_of(samples: Sequence[Array]) -> float:
    """The standard deviation of all elements; 0 where there are none."""
    count = sum(each.size for each in samples)
    if not count:
        return 0.0
    mean = sum(float(each.sum(dtype=np.float64)) for each in samples) / count
    square = sum(float(np.square(each, dtype=np.float64).sum()) for each in samples) / count
    return float(np.sqrt(max(square - mean * mean, 0.0)))


def _joined(samples: Sequence[Array], step: float) -> Iterator[Array]:
    """Samples of one shape together, channels first, in steps: [C, N, H, W] in float32."""
    for _, alike in groupby(samples, key=lambda each: each.shape[1:]):
        some = list(alike)
        for at in range(0, len(some), _TOGETHER):
            joined = np.concatenate(some[at : at + _TOGETHER])
            yield np.moveaxis(joined, 1, 0).astype(np.float32) / np.float32(step)


def _fit_pass(magnitudes: Sequence[Array], each: Pass, classes: int) -> Expectation:
    weights, bias = _regression(magnitudes, each)
    plain = Expectation(
        weights, bias, np.zeros(0, np.int64), np.zeros((0, SYMBOLS), np.uint16)
    )
    predictions, numbers = [], []
    for sample in magnitudes:
        known = framed(sample)
        for lattice in each.lattices:
            predictions.append(plain.predict(known, lattice, each.around).reshape(-1))
            numbers.append(np.minimum(lattice.of(sample), ESCAPE).reshape(-1))
    predicted, number = np.concatenate(predictions), np.concatenate(numbers)
    edges = _edges(predicted, classes)
    found = np.searchsorted(edges, predicted, side="right")
    counts = np.bincount(found * SYMBOLS + number, minlength=(len(edges) + 1) * SYMBOLS)
    seen = counts.reshape(-1, SYMBOLS) + _UNSEEN
    return Expectation(weights, bias, edges, np.stack([table_of(each) for each in seen]))


def _edges(predicted: Ints, classes: int) -> Ints:
    """Return what parts predictions into classes of about as many elements each."""
    quantiles = np.quantile(predicted, np.arange(1, classes) / classes)
    edges: Ints = np.unique(np.ceil(quantiles).astype(np.int64))
    return edges


def _regression(magnitudes: Sequence[Array], each: Pass) -> tuple[Array, Ints]:
    """(weights, bias) in whole numbers: least squares, channel by channel."""
    channels = magnitudes[0].shape[0]
    size = len(each.around) * channels + 1
    gram, moment, count = np.zeros((size, size)), np.zeros((size, channels)), 0
    for sample in magnitudes:
        known = framed(sample)
        for lattice in each.lattices:
            told = _told(known, lattice, each)
            wanted = np.minimum(lattice.of(sample), ESCAPE).reshape(channels, -1)
            gram += told @ told.T
            moment += told @ wanted.T.astype(np.float32)
            count += wanted.shape[1]
    gram[np.diag_indices(size)] += _RIDGE * max(count, 1)
    solved = np.linalg.solve(gram, moment).T
    largest = np.abs(solved[:, :-1]).max(initial=1e-9)
    scale = min(_MOST_WEIGHT / largest, _MOST_SCALE)
    weights = np.rint(scale * solved[:, :-1]).astype(np.float32)
    return weights, np.rint(scale * solved[:, -1]).astype(np.int64)


def _told(known: Array, lattice: Lattice, each: Pass) -> Array:
    """Return what each element of `lattice` is predicted from, and a one: [features + 1,
    elements]
    """
    beside = [lattice.of(known, down=d, right=r, margin=MARGIN) for d, r in each.around]
    size = lattice.of(known, margin=MARGIN)[0].size
    features = np.stack(beside).reshape(-1, size) if beside else np.zeros((0, size))
    return np.concatenate([features, np.ones((1, size))]).astype(np.float32)
