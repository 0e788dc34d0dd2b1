"""Split inference: the head of a neural network on the edge, its tail in the cloud.

part = midstream.partition("resnet18")
edge, cloud = midstream.profile(part, slowdown=8), midstream.profile(part)
plan = midstream.plan(part, edge, cloud, midstream.link("8Mbit", rtt="40ms"))
with midstream.serve(part) as server, midstream.connect(part, server, plan) as session:
    answer = session.infer(midstream.inputs(part)[0])
"""

import midstream.quiet  # noqa: F401  (before they are loaded)
from midstream.api import (
    calibrate,
    connect,
    inputs,
    link,
    load,
    menu,
    partition,
    profile,
    serve,
)
from midstream_edge.answers import Answer
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.values import (
    Decision,
    Evidence,
    Option,
    Policy,
    Situation,
    Transfer,
)
from midstream_edge.session import EdgeSession
from midstream_partitioner.artefact import load_partition, save_partition
from midstream_partitioner.calibration import Calibration
from midstream_partitioner.cuts import Cut, cut_of, position_cuts
from midstream_partitioner.envelope import Envelope, envelope
from midstream_partitioner.feed import Feed
from midstream_partitioner.graph import Graph
from midstream_partitioner.intake import Network
from midstream_partitioner.link import Link
from midstream_partitioner.partition import Partition
from midstream_partitioner.plan import Candidate, Constraints, Plan, plan
from midstream_partitioner.profile import Profile
from midstream_partitioner.timings import Timings
from midstream_partitioner.torch_intake import from_torch
from midstream_wire.errors import (
    CloudRefused,
    CloudUnavailable,
    CodecError,
    DeadlineExceeded,
    EdgeFailed,
    MidstreamError,
    ModelError,
    PeerError,
    PlanError,
    ProtocolError,
    ResourceError,
    TensorError,
    UsageError,
)

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Calibration",
    "Candidate",
    "CloudRefused",
    "CloudUnavailable",
    "CodecError",
    "Constraints",
    "Cut",
    "DeadlineExceeded",
    "Decision",
    "EdgeFailed",
    "EdgeSession",
    "Envelope",
    "Evidence",
    "Feed",
    "Graph",
    "Link",
    "Menu",
    "MidstreamError",
    "ModelError",
    "Network",
    "Option",
    "Partition",
    "PeerError",
    "Plan",
    "PlanError",
    "Policy",
    "Profile",
    "ProtocolError",
    "ResourceError",
    "Situation",
    "TensorError",
    "Timings",
    "Transfer",
    "UsageError",
    "calibrate",
    "connect",
    "cut_of",
    "envelope",
    "from_torch",
    "inputs",
    "link",
    "load",
    "load_partition",
    "menu",
    "partition",
    "plan",
    "position_cuts",
    "profile",
    "save_partition",
    "serve",
]
