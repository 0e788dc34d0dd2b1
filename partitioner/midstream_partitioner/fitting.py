"""Fitting the transforms of a partition to samples: KLTs and priors at every cut."""

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
from midstream_partitioner.layouts import Layouts
from midstream_partitioner.measure import Progress, no_progress
from midstream_partitioner.partition import Partition
from midstream_partitioner.prior_fitting import can_have_prior, fit_prior
from midstream_partitioner.signs import is_nonnegative
from midstream_partitioner.transforms import (
    Transform,
    make_packing,
    transformable,
    with_transforms,
)
from midstream_wire.errors import UsageError
from midstream_wire.tensors import TensorSpec

#: Samples that a transform is fitted to. Every place of a tensor counts as one, so that some
#: tens of samples have thousands of places for the few hundred channels of a layer.
SAMPLES = 64

#: A prior has tens of thousands of weights, and wants more; as many as fit into these bytes.
PRIOR_SAMPLES = 512
SAMPLES_NBYTES = 128 << 20

#: Steps of priors, in standard deviations, are hundredths up to 16.
_MOST_DIAL = 16.0


def fit_transforms(
    chain: Chain,
    samples: Sequence[State],
    shares: Sequence[float] = (),
    *,
    dials: Sequence[float] = (),
    progress: Progress = no_progress,
) -> Partition:
    """The partition of a whole `chain`, with transforms fitted to `samples`.

    At every cut inside the network, a KLT for each of `shares` that keeps this share of the
    energy, and a prior for each of `dials`, steps in standard deviations. Of several tensors
    that cross together, all keep as many components as the one that needs most, so that one
    name stands for them all. Tensors of four dimensions and more get none where it is not sure
    that axis 1 holds their channels. Raises `UsageError` for a share outside (0, 1], a dial
    that is no number of hundredths up to 16, and where the samples have no finite numbers.
    """
    for share in shares:
        components_for((1.0,), share)  # raises, also where no cut has anything to transform
    for dial in dials:
        hundredths = 100 * dial
        if not (0.5 < hundredths <= 100 * _MOST_DIAL and abs(hundredths % 1 - 0.5) > 0.499):
            raise UsageError(
                f"a prior's step must be hundredths of a standard deviation, from 0.01 to "
                f"{_MOST_DIAL:g} (not {dial})"
            )
    part, chain, layouts = chain.partition, chain.at_speed(1.0), Layouts(chain.partition)
    found: dict[tuple[str, str, str], Transform] = {}
    last = len(part.segments)
    states: list[State] = list(samples[: PRIOR_SAMPLES if dials else SAMPLES])
    for k in range(1, last):
        progress(k - 1, last - 1)
        states = [chain.run(state, k - 1, k) for state in states]
        made = [
            *_transforms_at(part, k, states[:SAMPLES], shares, layouts),
            *_priors_at(part, k, states, dials, layouts),
        ]
        found |= {(each.cut, each.name, each.tensor): each for each in made}
    progress(last - 1, last - 1)
    return with_transforms(part, found.values())


def _priors_at(
    part: Partition, k: int, states: Sequence[State], dials: Sequence[float], layouts: Layouts
) -> Iterator[Transform]:
    for spec in part.crossing(k) if dials else ():
        if can_have_prior(spec) and layouts.are_channels_first(spec.name):
            nbytes = max(1, states[0][spec.name].nbytes)
            some = states[: max(SAMPLES, SAMPLES_NBYTES // nbytes)]
            arrays = [state[spec.name] for state in some]
            for dial in dials:
                prior = fit_prior(arrays, dial)
                yield make_packing(part.cuts[k].id, dial, spec.name, prior)


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
    """How many there are; 0 where the network leaves that open."""
    size = spec.shape[channel_axis(len(spec.shape))]
    return size if isinstance(size, int) else 0
