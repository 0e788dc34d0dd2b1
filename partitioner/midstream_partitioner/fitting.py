"""Fitting the transforms of a partition to samples: a KLT at every cut where it saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from midstream_partitioner.chain import Chain, State
from midstream_partitioner.klt import (
    MAX_CHANNELS,
    channel_axis,
    components_for,
    klt,
    spectrum_of,
)
from midstream_partitioner.measure import Progress, no_progress
from midstream_partitioner.partition import Partition
from midstream_partitioner.signs import is_nonnegative
from midstream_partitioner.transforms import Transform, transformable, with_transforms
from midstream_wire.tensors import TensorSpec

#: Samples that a transform is fitted to. Every place of a tensor counts as one, so that some
#: tens of samples have thousands of places for the few hundred channels of a layer.
SAMPLES = 64


def fit_transforms(
    chain: Chain,
    samples: Sequence[State],
    shares: Sequence[float],
    *,
    progress: Progress = no_progress,
) -> Partition:
    """The partition of a whole `chain`, with transforms that keep these shares of the energy.

    At every cut inside the network, a transform for each share; of several tensors that cross
    together, all keep as many components as the one that needs most, so that one name stands
    for them all. Raises `UsageError` for a share outside (0, 1], and where the samples have no
    finite numbers.
    """
    for share in shares:
        components_for((1.0,), share)  # raises, also where no cut has anything to transform
    part, chain = chain.partition, chain.at_speed(1.0)
    found: dict[tuple[str, str, str], Transform] = {}
    last = len(part.segments)
    states: list[State] = list(samples[:SAMPLES])
    for k in range(1, last):
        progress(k - 1, last - 1)
        states = [chain.run(state, k - 1, k) for state in states]
        for made in _transforms_at(part, k, states, shares):
            found[made.cut, made.name, made.tensor] = made
    progress(last - 1, last - 1)
    return with_transforms(part, found.values())


def _transforms_at(
    part: Partition, k: int, states: Sequence[State], shares: Sequence[float]
) -> Iterator[Transform]:
    spectra = {
        spec.name: spectrum_of(state[spec.name] for state in states)
        for spec in part.crossing(k)
        if transformable(spec) and 1 < _channels(spec) <= MAX_CHANNELS
    }
    for share in shares:
        needed = [components_for(each.energies, share) for each in spectra.values()]
        for tensor, spectrum in spectra.items():
            if max(needed) < len(spectrum.mean):
                positive = is_nonnegative(part, tensor)
                kept = spectrum.keep(max(needed))
                yield klt(part, k, tensor, *kept, nonnegative=positive)


def _channels(spec: TensorSpec) -> int:
    """How many there are; 0 where the network leaves that open."""
    size = spec.shape[channel_axis(len(spec.shape))]
    return size if isinstance(size, int) else 0
