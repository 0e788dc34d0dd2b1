"""Split inference: the head of a neural network on the edge, its tail in the cloud.

part = midstream.partition("resnet18")
edge, cloud = midstream.profile(part, slowdown=8), midstream.profile(part)
plan = midstream.plan(part, edge, cloud, midstream.link("8Mbit", rtt="40ms"))
with midstream.serve(part) as server, midstream.connect(part, server, plan) as session:
    answer = session.infer(midstream.inputs(part)[0])
"""

# ruff: noqa: I001  (the imports say what they export: one statement a module)

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import midstream.quiet_libraries  # noqa: F401  (before libraries are loaded)

if TYPE_CHECKING:
    from midstream.api import (
        backend as backend,
        calibrate as calibrate,
        connect as connect,
        inputs as inputs,
        link as link,
        load as load,
        menu as menu,
        partition as partition,
        profile as profile,
        serve as serve,
    )
    from midstream_edge.session.answers import Answer as Answer
    from midstream_edge.policies.menu import Menu as Menu
    from midstream_edge.policies.interface import (
        Decision as Decision,
        Evidence as Evidence,
        Policy as Policy,
        Situation as Situation,
    )
    from midstream_edge.link.observations import Transfer as Transfer
    from midstream_edge.session.session import EdgeSession as EdgeSession
    from midstream_partitioner.partition.folder import (
        load_partition as load_partition,
        save_partition as save_partition,
    )
    from midstream_partitioner.costs.calibration import Calibration as Calibration
    from midstream_partitioner.graph.cuts import (
        Cut as Cut,
        cut_of as cut_of,
        position_cuts as position_cuts,
    )
    from midstream_partitioner.planning.envelope import (
        Envelope as Envelope,
        envelope as envelope,
    )
    from midstream_partitioner.inputs.feed import Feed as Feed
    from midstream_partitioner.graph.graph import Graph as Graph
    from midstream_partitioner.intake.onnx_model import Network as Network
    from midstream_partitioner.costs.link import Link as Link
    from midstream_partitioner.partition.partition import Partition as Partition
    from midstream_partitioner.planning.plan import Candidate as Candidate, Plan as Plan
    from midstream_partitioner.planning.planner import Goal as Goal, plan as plan
    from midstream_partitioner.planning.placements import Placement as Placement
    from midstream_partitioner.planning.constraints import Constraints as Constraints
    from midstream_partitioner.costs.profile import Profile as Profile
    from midstream_partitioner.costs.timings import (
        Estimate as Estimate,
        Timings as Timings,
    )
    from midstream_partitioner.intake.torch_module import from_torch as from_torch
    from midstream_wire.codecs.base import Codec as Codec, Encoding as Encoding
    from midstream_wire.codecs.registry import load_codec as load_codec
    from midstream_wire.errors import (
        CloudRefused as CloudRefused,
        CloudUnavailable as CloudUnavailable,
        CodecError as CodecError,
        DeadlineExceeded as DeadlineExceeded,
        EdgeFailed as EdgeFailed,
        MidstreamError as MidstreamError,
        ModelError as ModelError,
        PeerError as PeerError,
        PlanError as PlanError,
        ProtocolError as ProtocolError,
        ResourceError as ResourceError,
        TensorError as TensorError,
        UsageError as UsageError,
    )

__version__ = "0.1.0"

#: Module -> the public names that it defines, as in the imports above.
_HOMES = {
    "midstream.api": (
        "backend",
        "calibrate",
        "connect",
        "inputs",
        "link",
        "load",
        "menu",
        "partition",
        "profile",
        "serve",
    ),
    "midstream_edge.session.answers": ("Answer",),
    "midstream_edge.policies.menu": ("Menu",),
    "midstream_edge.policies.interface": (
        "Decision",
        "Evidence",
        "Policy",
        "Situation",
        "Transfer",
    ),
    "midstream_edge.session.session": ("EdgeSession",),
    "midstream_partitioner.partition.folder": ("load_partition", "save_partition"),
    "midstream_partitioner.costs.calibration": ("Calibration",),
    "midstream_partitioner.graph.cuts": ("Cut", "cut_of", "position_cuts"),
    "midstream_partitioner.planning.envelope": ("Envelope", "envelope"),
    "midstream_partitioner.inputs.feed": ("Feed",),
    "midstream_partitioner.graph.graph": ("Graph",),
    "midstream_partitioner.intake.onnx_model": ("Network",),
    "midstream_partitioner.costs.link": ("Link",),
    "midstream_partitioner.partition.partition": ("Partition",),
    "midstream_partitioner.planning.constraints": ("Constraints",),
    "midstream_partitioner.planning.placements": ("Placement",),
    "midstream_partitioner.planning.plan": ("Candidate", "Plan"),
    "midstream_partitioner.planning.planner": ("Goal", "plan"),
    "midstream_partitioner.costs.profile": ("Profile",),
    "midstream_partitioner.costs.timings": ("Estimate", "Timings"),
    "midstream_partitioner.intake.torch_module": ("from_torch",),
    "midstream_wire.codecs.base": ("Codec", "Encoding"),
    "midstream_wire.codecs.registry": ("load_codec",),
    "midstream_wire.errors": (
        "CloudRefused",
        "CloudUnavailable",
        "CodecError",
        "DeadlineExceeded",
        "EdgeFailed",
        "MidstreamError",
        "ModelError",
        "PeerError",
        "PlanError",
        "ProtocolError",
        "ResourceError",
        "TensorError",
        "UsageError",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name's module when it is first asked for: a command needs few of them."""
    if name not in _HOME:
        raise AttributeError(f"module 'midstream' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]
