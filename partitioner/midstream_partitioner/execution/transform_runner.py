"""Transforms at work: compiled when they are first used, on either side of the link."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import final

import numpy as np

from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.transform import Transform
from midstream_partitioner.transforms.prior import Prior, prior_of
from midstream_wire.errors import ModelError, TensorError
from midstream_wire.tensors import Array, TensorSpec


@final
class Compiled:
    """Executors of transforms, by digest; each is made once, for all threads."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._executors: dict[str, Executor] = {}
        self._priors: dict[str, Prior] = {}

    def prior(self, digest: str, load: Callable[[], bytes]) -> Prior:
        """The prior that `load` gives; `ModelError` if that is none."""
        with self._lock:
            found = self._priors.get(digest)
            if found is None:
                found = self._priors[digest] = prior_of(load())
        return found

    def get(self, digest: str, load: Callable[[], bytes]) -> Executor:
        """The executor of what `load` gives; `ModelError` if that is no transform's model."""
        with self._lock:
            found = self._executors.get(digest)
            if found is None:
                found = Executor(load(), threads=self._threads)
                if len(found.inputs) != 1 or len(found.outputs) != 1:
                    raise ModelError(
                        "a transform's model must make one tensor of one (not "
                        f"{len(found.outputs)} of {len(found.inputs)}): calibrate again"
                    )
                self._executors[digest] = found
        return found


@final
class Adapter:
    """The two directions of the transform called `name` at cut `k`.

    "" is none: everything goes as it is. May be used from many threads. `slowdown` as in
    `Chain`. Raises `UsageError` for a transform that the cut does not have.
    """

    def __init__(
        self, partition: Partition, k: int, name: str, *, compiled: Compiled, slowdown: float
    ) -> None:
        #: What travels, in the order of what crosses.
        self.specs = partition.travelling(k, name)
        self._crossing = {spec.name: spec for spec in partition.crossing(k)}
        self._transforms: Mapping[str, Transform] = (
            {each.tensor: each for each in partition.transforms_at(k)[name]} if name else {}
        )
        self._compiled = compiled
        self._slowdown = slowdown

    def compile_encoders(self) -> None:
        """Do now what the first `encode` would wait for; `ModelError` if it cannot be done."""
        for transform in self._transforms.values():
            (self._packer if transform.packs else self._encoder)(transform)

    def compile_decoders(self) -> None:
        """The same for the first `decode`."""
        for transform in self._transforms.values():
            (self._unpacker if transform.packs else self._decoder)(transform)

    def encode(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """Return what travels instead of the tensors of `state` that cross.

        Raises `TensorError` where that is not finite: a NaN would spread to every channel,
        and clipping make a 0 of it; and for what a prior does not take. Such a tensor has to
        travel as it is.
        """
        started = time.perf_counter()
        travelling = {}
        for spec in self.specs:
            array = state[spec.name]
            transform = self._transforms.get(spec.name)
            if transform is not None and transform.packs:
                array = self._packer(transform).pack(array, self._crossing[spec.name])
            elif transform is not None:
                array = _apply(self._encoder(transform), array, spec)
                if not np.isfinite(array).all():
                    raise TensorError(
                        f"{spec.name!r} must be finite to go through {transform.name}, and it "
                        "is not: send it as it is"
                    )
            travelling[spec.name] = array
        self._wait(started)
        return travelling

    def decode(self, received: Mapping[str, Array]) -> dict[str, Array]:
        """Return what crosses, from what has travelled. Raises `CodecError` for unfit
        bytes.
        """
        started = time.perf_counter()
        restored = dict(received)
        for name, transform in self._transforms.items():
            if transform.packs:
                prior = self._unpacker(transform)
                restored[name] = prior.unpack(received[name], self._crossing[name])
            else:
                restored[name] = _apply(self._decoder(transform), received[name])
        self._wait(started)
        return restored

    def _encoder(self, transform: Transform) -> Executor:
        return self._compiled.get(transform.encoder_digest, lambda: transform.encoder)

    def _decoder(self, transform: Transform) -> Executor:
        return self._compiled.get(transform.decoder_digest, lambda: transform.decoder)

    def _packer(self, transform: Transform) -> Prior:
        return self._compiled.prior(transform.encoder_digest, lambda: transform.encoder)

    def _unpacker(self, transform: Transform) -> Prior:
        return self._compiled.prior(transform.decoder_digest, lambda: transform.decoder)

    def _wait(self, started: float) -> None:
        if self._slowdown > 1.0 and self._transforms:
            time.sleep((self._slowdown - 1.0) * (time.perf_counter() - started))


def _apply(executor: Executor, array: Array, spec: TensorSpec | None = None) -> Array:
    made: Array = executor.run({executor.inputs[0]: array})[executor.outputs[0]]
    if spec is not None:
        spec.check(made)
    return made
