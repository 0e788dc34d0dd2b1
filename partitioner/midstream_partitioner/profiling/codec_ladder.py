"""The codecs that are measured at a cut: usual ones, calibrated ones, and ladders."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from midstream_partitioner.codec_spec import full_id, is_known, parse_codec
from midstream_partitioner.execution.chain import State
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.planning.assess import obstacle_at
from midstream_wire.codecs import codec as codec_called
from midstream_wire.codecs import split_codec
from midstream_wire.codecs.plugins import loaded
from midstream_wire.errors import UsageError

_USUAL = ("raw", "lossless", "half", "int8", "int8c", "png", "jpeg", "webp", "avif")


#: All that is calibrated: for activations from lossless down to coarse steps of the
#: entropy-coded quantizer, for pictures the range of qualities that people use. `ctx` is left
#: to those who name it: on three ImageNet networks it was larger than `ec` at 30 of 36 steps,
#: and elsewhere faster only below 0.1 Mbit/s (docs/explanation/codecs.md).
LADDER = (
    *("raw", "lossless", "half", "int8", "int8c"),
    *("ec:0.125", "ec:0.25", "ec:0.5", "ec:1", "ec:2", "ecc:0.25", "ecc:0.5", "ecc:1"),
    *("png", "jpeg:95", "jpeg:90", "jpeg:75", "jpeg:50", "jpeg:25"),
    *("webp:95", "webp:80", "webp:50", "webp:25"),
    *("avif:90", "avif:80", "avif:65", "avif:50"),
)


#: What is tried behind a transform: the entropy-coded steps, and plain ones beside.
BEHIND_TRANSFORMS = ("half", "int8", "ec", "ecc", "ctx")


#: What a prior has packed is bytes that nothing makes fewer.
BEHIND_PRIOR = "raw"


def usual_codecs() -> tuple[str, ...]:
    """Return the codecs whose cost is measured unless others are named: the usual ones that
    this process can use, and all of a user's own that it has loaded.
    """
    return (*filter(is_known, _USUAL), *_own_codecs())


def _own_codecs() -> tuple[str, ...]:
    return tuple(plugin.default.id for plugin in loaded())


def calibrated_codecs(partition: Partition) -> tuple[str, ...]:
    """Return what the partition's calibration tells the fidelity of, at any cut, as far as
    this process knows it.
    """
    found = partition.calibration
    if found is None or found.generated:
        return ()
    return tuple(filter(is_known, found.codecs))


def codecs_at(
    partition: Partition, k: int, state: State, codecs: Sequence[str]
) -> tuple[str, ...]:
    """The ids of those `codecs` that do something to what crosses cut `k`.

    A codec must take at least one of the tensors; a transform must be one of this cut's. None
    does where the protocol cannot carry what crosses.
    """
    nbytes = sum(state[name].nbytes for name in partition.cuts[k].tensors)
    if obstacle_at(partition, k, crossing_nbytes=nbytes):
        return ()
    found: dict[str, None] = {}
    for name in codecs:
        transform, kind = parse_codec(name)
        if transform:
            fits = transform in partition.transforms_at(k)
        else:
            specs = partition.crossing(k)
            fits = any(kind.accepts(spec.dtype, state[spec.name].shape) for spec in specs)
        if fits:
            found[full_id(name)] = None
    return tuple(found)


def ladder_of(partition: Partition, named: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return what is calibrated: the ladder or the codecs `named`, also behind every
    transform.

    The ladder is taken as far as this build knows it, and with it the codecs of a user's own
    that are loaded. Codecs named with their transforms are all that is meant.
    """
    known = list(named or ())
    for name in LADDER if named is None else ():
        with suppress(UsageError):
            known.append(codec_called(name).id)
    known += _own_codecs() if named is None else ()
    if any(split_codec(name)[0] for name in known):
        return tuple(known)
    behind = behind_transforms(known)
    names = dict.fromkeys(
        f"{each.name}+{name}"
        for each in partition.transforms
        for name in ((BEHIND_PRIOR,) if each.packs else behind)
    )
    return (*known, *names)


def behind_transforms(codecs: Sequence[str]) -> tuple[str, ...]:
    """Those of `codecs` that are tried behind a transform that does not pack."""
    return tuple(name for name in codecs if name.partition(":")[0] in BEHIND_TRANSFORMS)
