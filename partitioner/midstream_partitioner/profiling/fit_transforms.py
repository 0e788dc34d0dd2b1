"""Fitting the transforms of a partition to samples: KLTs and priors at every cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from midstream_partitioner.execution.chain import Chain, State
from midstream_partitioner.partition.partition import Partition, with_transforms
from midstream_partitioner.partition.transform import FLOATS, Transform, transformable
from midstream_partitioner.profiling.profiler import Progress, no_progress
from midstream_partitioner.transforms.channel_axis import Layouts
from midstream_partitioner.transforms.construct import make_packing
from midstream_partitioner.transforms.fit_prior import can_have_prior, deviation_of, fit_prior
from midstream_partitioner.transforms.klt import (
    MAX_CHANNELS,
    channel_axis,
    components_for,
    klt,
    spectrum_of,
)
from midstream_partitioner.transforms.noise_shaping import SAMPLES as METRIC_SAMPLES
from midstream_partitioner.transforms.noise_shaping import fit_metric
from midstream_partitioner.transforms.nonnegative import is_nonnegative
from midstream_wire.errors import UsageError
from midstream_wire.tensors import Array, TensorSpec, dtype_of

#: Samples that a transform is fitted to. Every place of a tensor counts as one, so that some
#: tens of samples have thousands of places for the few hundred channels of a layer.
SAMPLES = 64

#: A prior has tens of thousands of weights, and wants more; as many as fit into these bytes.
PRIOR_SAMPLES = 512
SAMPLES_NBYTES = 128 << 20

#: Of what crosses in one run that measures a metric.
BATCH_NBYTES = 32 << 20

#: Steps of priors, in standard deviations, are hundredths up to 16.
_MOST_DIAL = 16.0


def fit_transforms(
    chain: Chain,
    samples: Sequence[State],
    shares: Sequence[float] = (),
    *,
    dials: Sequence[float] = (),
    shaped: Sequence[float] = (),
    progress: Progress = no_progress,
) -> Partition:
    """The partition of a whole `chain`, with transforms fitted to `samples`.

    At every cut inside the network, a KLT for each of `shares` that keeps this share of the
    energy, and a prior for each of `dials`, steps in standard deviations, and for each of
    `shaped` one with a metric of what the next segment notices. Of several tensors
    that cross together, all keep as many components as the one that needs most, so that one
    name stands for them all. Tensors of four dimensions and more get none where it is not sure
    that axis 1 holds their channels. Raises `UsageError` for a share outside (0, 1], a dial
    that is no number of hundredths up to 16, and where the samples have no finite numbers.
    """
    for share in shares:
        components_for((1.0,), share)  # raises, also where no cut has anything to transform
    for dial in (*dials, *shaped):
        hundredths = 100 * dial
        if not (0.5 < hundredths <= 100 * _MOST_DIAL and abs(hundredths % 1 - 0.5) > 0.499):
            raise UsageError(
                f"a prior's step must be hundredths of a standard deviation, from 0.01 to "
                f"{_MOST_DIAL:g} (not {dial})"
            )
    part, chain, layouts = chain.partition, chain.at_speed(1.0), Layouts(chain.partition)
    found: dict[tuple[str, str, str], Transform] = {}
    last = len(part.segments)
    states: list[State] = list(samples[: PRIOR_SAMPLES if dials or shaped else SAMPLES])
    for k in range(1, last):
        progress(k - 1, last - 1)
        states = [chain.run(state, k - 1, k) for state in states]
        made = [
            *_transforms_at(part, k, states[:SAMPLES], shares, layouts),
            *_priors_at(chain, k, states, (dials, shaped), layouts),
        ]
        found |= {(each.cut, each.name, each.tensor): each for each in made}
    progress(last - 1, last - 1)
    return with_transforms(part, found.values())


def _priors_at(
    chain: Chain,
    k: int,
    states: Sequence[State],
    steps: tuple[Sequence[float], Sequence[float]],
    layouts: Layouts,
) -> Iterator[Transform]:
    """Priors for the first of `steps`, and shaped ones for the others."""
    part = chain.partition
    dials, shaped = steps
    for spec in part.crossing(k) if dials or shaped else ():
        if not (can_have_prior(spec) and layouts.are_channels_first(spec.name)):
            continue
        nbytes = max(1, states[0][spec.name].nbytes)
        arrays = [s[spec.name] for s in states[: max(SAMPLES, SAMPLES_NBYTES // nbytes)]]
        for dial in dials:
            yield make_packing(part.cuts[k].id, dial, spec.name, fit_prior(arrays, dial))
        step = np.median(shaped) * deviation_of(arrays[:SAMPLES]) if shaped else 0.0
        if step > 0:
            seen = [Responses(chain, k, state, spec.name) for state in states[:METRIC_SAMPLES]]
            metric = fit_metric(arrays, float(step), seen)
            for dial in shaped if metric else ():
                prior = fit_prior(arrays, dial, metric=metric)
                yield make_packing(part.cuts[k].id, dial, spec.name, prior)


@final
@dataclass(frozen=True, slots=True)
class Responses:
    """Responses at cut k + 1 to a change of one tensor at cut k."""

    chain: Chain
    k: int
    state: State
    tensor: str

    def __call__(self, batch: Array) -> Array:
        """All floating-point numbers there [B, numbers], for each of `batch` [B, ...]."""
        together = 1
        part = self.chain.partition
        specs = (*part.crossing(self.k), *part.crossing(self.k + 1), *part.outputs)
        if all(isinstance(spec.shape[0], str) if spec.shape else False for spec in specs):
            each_nbytes = max(1, sum(array.nbytes for array in self.state.values()))
            together = max(1, BATCH_NBYTES // each_nbytes)
        parts = [batch[at : at + together] for at in range(0, len(batch), together)]
        return np.concatenate([self._run(each) for each in parts])

    def _run(self, batch: Array) -> Array:
        count = len(batch)
        state = {name: np.repeat(array, count, axis=0) for name, array in self.state.items()}
        state[self.tensor] = batch.astype(self.state[self.tensor].dtype, copy=False)
        made = self.chain.run(state, self.k, self.k + 1)
        floats = [made[name] for name in sorted(made) if dtype_of(made[name]) in FLOATS]
        flat = [each.reshape(count, -1).astype(np.float32, copy=False) for each in floats]
        return np.concatenate(flat, axis=1)


def _transforms_at(
    part: Partition, k: int, states: Sequence[State], shares: Sequence[float], layouts: Layouts
) -> Iterator[Transform]:
    spectra = {
        spec.name: spectrum_of(state[spec.name] for state in states)
        for spec in part.crossing(k)
        if transformable(spec)
        and 1 < _channels(spec) <= MAX_CHANNELS
        and (len(spec.shape) == 3 or layouts.are_channels_first(spec.name))
    }
    for share in shares:
        needed = [components_for(each.energies, share) for each in spectra.values()]
        for tensor, spectrum in spectra.items():
            if max(needed) < len(spectrum.mean):
                positive = is_nonnegative(part, tensor)
                kept = spectrum.keep(max(needed))
                yield klt(part, k, tensor, *kept, nonnegative=positive)


def _channels(spec: TensorSpec) -> int:
    """Return how many there are; 0 where the network leaves that open."""
    size = spec.shape[channel_axis(len(spec.shape))]
    return size if isinstance(size, int) else 0
