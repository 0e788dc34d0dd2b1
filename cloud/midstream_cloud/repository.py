"""The models that a server holds: each partition compiled once, for all edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from midstream_partitioner.chain import Chain
from midstream_partitioner.partition import Partition
from midstream_partitioner.profile import Profile
from midstream_partitioner.transforms import expansion
from midstream_wire.codecs import CODECS
from midstream_wire.descriptions import (
    CutDescription,
    ModelDescription,
    TransformDescription,
)
from midstream_wire.errors import CloudRefused, ModelError, ProtocolError, UsageError
from midstream_wire.frames import Code, Hello
from midstream_wire.tensors import TensorSpec
from midstream_wire.transfers import Incoming


@final
@dataclass(frozen=True, slots=True)
class Model:
    """A partition under the name that edges ask for, ready to run."""

    name: str
    partition: Partition
    chain: Chain = field(repr=False)
    profile: Profile | None = None
    _returns: tuple[tuple[TensorSpec, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = len(self.partition.segments)
        returns = tuple(map(self.partition.outputs_from, range(count)))
        object.__setattr__(self, "_returns", returns)

    def assemble(
        self, first_segment: int, names: Sequence[str], *, transform: str = "", max_nbytes: int
    ) -> Incoming:
        """What a request for the segments from `first_segment` on has to bring.

        `max_nbytes` bounds the decoded tensors, and what a transform makes of them.
        """
        last = len(self.partition.segments) - 1
        if not 0 <= first_segment <= last:
            raise ProtocolError(
                f"first_segment must be 0 to {last} for {self.name!r} (not {first_segment}): "
                "cut the same partition on both sides"
            )
        crossing = self.partition.crossing(first_segment)
        try:
            specs = self.partition.travelling(first_segment, transform)
        except UsageError as error:
            raise ProtocolError(str(error)) from None
        if transform:
            pairs = zip(crossing, specs, strict=True)
            growth = max((expansion(*pair) for pair in pairs), default=1.0)
            max_nbytes = int(max_nbytes / max(1.0, growth))
        return Incoming(names, specs, max_nbytes=max_nbytes)

    def returns(self, first_segment: int) -> tuple[TensorSpec, ...]:
        """What a reply to such a request carries."""
        return self._returns[first_segment]

    def describe(self) -> ModelDescription:
        """What an edge needs to know to cut its own copy alike."""
        partition = self.partition
        return ModelDescription(
            name=self.name,
            graph_digest=partition.graph_digest,
            partition_digest=partition.digest,
            cuts=tuple(
                CutDescription(
                    cut.id,
                    cut.runs,
                    partition.crossing(k),
                    tuple(
                        TransformDescription(name, partition.travelling(k, name))
                        for name in partition.transforms_at(k)
                    ),
                )
                for k, cut in enumerate(partition.cuts)
            ),
            codecs=CODECS,
            profile=self.profile.to_json() if self.profile else "",
        )


@final
class Repository:
    """Models by name. Loaded before serving starts and only read from then on."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}

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
        model = Model(name, partition, chain, profile)
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
        """The model that a peer names; `CloudRefused` if it is unknown or cut differently."""
        model = self._models.get(hello.model)
        if model is None:
            served = ", ".join(sorted(self._models)[:8]) or "none"
            raise CloudRefused(
                Code.NOT_FOUND,
                f"the model must be one that is served here ({served}), not "
                f"{hello.model[:64]!r}: ask for one of these",
            )
        if hello.partition_digest != model.partition.digest:
            raise CloudRefused(
                Code.FAILED_PRECONDITION,
                f"both sides must hold the same partition of {model.name!r}: here it is "
                f"{model.partition.digest[:12]}, there {hello.partition_digest[:12]!r}: give "
                "both the same artefact, or the same model and cuts",
            )
        return model
