"""The JSON documents that commands print, for machines; docs/json.md describes them."""

from __future__ import annotations

from typing import Any

from midstream_partitioner.envelope import Envelope
from midstream_partitioner.link import Link
from midstream_partitioner.plan import Candidate, Plan
from midstream_wire.tensors import TensorSpec


def candidate_document(candidate: Candidate) -> dict[str, Any]:
    return {
        "cut": candidate.cut,
        "codec": candidate.codec,
        "label": candidate.label,
        "segments_on_edge": candidate.k,
        "estimate": candidate.estimate.to_dict(),
        "payload_nbytes": candidate.payload_nbytes,
        "reply_nbytes": candidate.reply_nbytes,
        "energy_j": candidate.energy_j,
        "throughput_hz": candidate.throughput_hz,
        "lossless": candidate.lossless,
    }


def tensor_document(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "nbytes": spec.nominal_nbytes,
    }


def link_document(link: Link) -> dict[str, Any]:
    return {
        "uplink_bps": link.uplink_bps,
        "downlink_bps": link.downlink_bps,
        "rtt_s": link.rtt_s,
    }


def envelope_document(envelope: Envelope) -> list[dict[str, Any]]:
    return [
        {
            "from_bps": row.from_bps,
            "cut": row.cut,
            "codec": row.codec,
            "label": row.label,
            "in_time": row.in_time,
        }
        for row in envelope.rows
    ]


def plan_document(plan: Plan, envelope: Envelope) -> dict[str, Any]:
    """What `midstream plan --json` prints, less the model and the devices."""
    return {
        "link": link_document(plan.link),
        "objective": plan.objective,
        "chosen": candidate_document(plan.chosen),
        "runner_up": candidate_document(plan.runner_up) if plan.runner_up else None,
        "candidates": [candidate_document(candidate) for candidate in plan.candidates],
        "rejected": [
            {"reason": reason, **candidate_document(candidate)}
            for candidate, reason in plan.rejected
        ],
        "envelope": envelope_document(envelope),
        "explanation": plan.explain(),
    }
