"""The models that a server holds: each partition compiled once, for all edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from midstream_cloud.models import Model, tails_timed
from midstream_cloud.prepared import Cut, PreparedPartitions
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.partition.background import recut_beside
from midstream_partitioner.partition.partition import Partition
from midstream_wire.descriptions import Preparation, Readiness
from midstream_wire.errors import CloudRefused, ModelError, UsageError
from midstream_wire.frames import Code, Hello

__all__ = ["Model", "Repository"]


@final
class Repository:
    """Models by name, loaded before serving starts, and what edges have them cut anew into.

    `repartition` is how many further partitions of each model edges may ask for; 0 = none.
    `cut` makes them.
    """

    def __init__(self, *, repartition: int = 0, cut: Cut = recut_beside) -> None:
        self._models: dict[str, Model] = {}
        self._prepared = PreparedPartitions(repartition, cut=cut)

    @property
    def models(self) -> Mapping[str, Model]:
        return self._models

    def add(
        self,
        name: str,
        partition: Partition,
        *,
        profile: Profile | None = None,
        threads: int = 1,
        slowdown: float = 1.0,
    ) -> Model:
        """Compile a partition's segments and transforms, and hold them under `name`."""
        chain = Chain(partition, threads=threads, slowdown=slowdown)
        for k in range(len(partition.cuts)):
            for transform in partition.transforms_at(k):
                chain.transform(k, transform).compile_decoders()
        timed = tails_timed(chain) if profile is None else ()
        model = Model(name, partition, chain, profile, timed)
        self.hold(model)
        return model

    def hold(self, model: Model) -> None:
        """Serve a model that is loaded already.

        `UsageError` when its name is taken, `ModelError` when its profile is another's.
        """
        if not model.name or model.name in self._models:
            raise UsageError(
                f"a model's name must be given and be its own (not {model.name!r} again): "
                "rename one"
            )
        digest, profile = model.partition.digest, model.profile
        if profile is not None and profile.partition_digest != digest:
            raise ModelError(
                f"the profile of {model.name!r} must be of partition {digest[:12]} (not "
                f"{profile.partition_digest[:12]}): measure it again"
            )
        self._models[model.name] = model

    def find(self, hello: Hello) -> Model:
        """Return the model that a peer names; `CloudRefused` if unknown or cut otherwise.

        What counts is the partition: under another name than the peer's it is the same.
        """
        for held in self._models.values():
            if held.partition.digest == hello.partition_digest:
                return held
        model = self._named(hello.model)
        if hello.partition_digest != model.partition.digest:
            prepared = self._prepared.find(hello.model, hello.partition_digest)
            if prepared is not None:
                return prepared
            raise CloudRefused(
                Code.FAILED_PRECONDITION,
                f"both sides must hold the same partition of {model.name!r}: here it is "
                f"{model.partition.digest[:12]}, there {hello.partition_digest[:12]!r}: give "
                "both the same artefact, or the same model and cuts",
            )
        return model

    def prepare(self, asked: Preparation) -> Readiness:
        """Begin to cut a model anew, or say how far that is; returns at once.

        `CloudRefused` for an unknown model, and as `PreparedPartitions.prepare`.
        """
        return self._prepared.prepare(self._named(asked.model), asked)

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is being cut anew; whether that came about in time."""
        return self._prepared.wait(timeout_s)

    def enter(self, model: Model) -> None:
        """Keep `model`, as found, until the session that begins has left."""
        self._prepared.enter(model)

    def leave(self, model: Model) -> None:
        """Note that a session of `model` has ended."""
        self._prepared.leave(model)

    def close(self) -> None:
        """Cut nothing anew any more."""
        self._prepared.close()

    def _named(self, name: str) -> Model:
        model = self._models.get(name)
        if model is None:
            served = ", ".join(sorted(self._models)[:8]) or "none"
            raise CloudRefused(
                Code.NOT_FOUND,
                f"the model must be one that is served here ({served}), not "
                f"{name[:64]!r}: ask for one of these",
            )
        return model
