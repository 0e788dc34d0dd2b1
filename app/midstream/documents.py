"""JSON documents that commands print, for machines; docs/reference/json.md describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from midstream_partitioner.costs.calibration import Calibration, Fidelity
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import CodecCost
from midstream_partitioner.planning.envelope import Envelope
from midstream_partitioner.planning.over_sizes import SizeCurve
from midstream_partitioner.planning.plan import Candidate, Plan
from midstream_wire.tensors import TensorSpec


def candidate_document(candidate: Candidate) -> dict[str, Any]:
    placement, found = candidate.placement, candidate.assessment
    return {
        "cut": placement.cut,
        "codec": placement.codec,
        "label": placement.label,
        "segments_on_edge": placement.k,
        "estimate": candidate.estimate.to_dict(),
        "payload_nbytes": placement.payload_nbytes,
        "reply_nbytes": placement.reply_nbytes,
        "energy_j": candidate.energy_j,
        "throughput_hz": candidate.throughput_hz,
        "lossless": placement.lossless,
        "fidelity": asdict(found.fidelity) if found.fidelity else None,
        "encode_scale": found.encode_scale,
        "decode_scale": found.decode_scale,
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


def size_curve_document(curve: SizeCurve) -> dict[str, Any]:
    """Return what wins over the sizes of one dimension."""
    return {
        "name": curve.name,
        "others": dict(curve.others),
        "pieces": [asdict(piece) for piece in curve.pieces],
        "samples": [
            {"size": size, "label": won.label, "estimate": won.estimate.to_dict()}
            for size, won in curve.samples
        ],
    }


def plan_document(plan: Plan, envelope: Envelope) -> dict[str, Any]:
    """Return what `midstream plan --json` prints, less the model and the devices."""
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
        "accuracy": plan.accuracy,
        "scaled": plan.scaled(),
        "budget": plan.budget.to_dict() if plan.budget is not None else None,
    }


def calibration_document(model: str, folder: Path, found: Calibration) -> dict[str, Any]:
    """Return what `midstream calibrate --json` prints."""
    return {
        "model": model,
        "folder": str(folder),
        **_measured_on(found),
        "rows": [asdict(row) for row in found.rows],
    }


def codecs_document(
    model: str, device: Device, found: Calibration, costs: Sequence[CodecCost]
) -> dict[str, Any]:
    """Return what `midstream codecs --json` prints: a row for every cut and codec."""
    timed = {(cost.cut, cost.codec): cost for cost in costs}
    return {
        "model": model,
        "device": device.to_dict(),
        **_measured_on(found),
        "rows": [
            _codec_row(row, timed[row.cut, row.codec])
            for row in found.rows
            if (row.cut, row.codec) in timed
        ],
    }


def _measured_on(found: Calibration) -> dict[str, Any]:
    return {
        "data": found.data,
        "generated": found.generated,
        "samples": found.samples,
        "metric": found.metric,
        "whole": found.whole,
    }


def _codec_row(row: Fidelity, cost: CodecCost) -> dict[str, Any]:
    return {
        "cut": row.cut,
        "codec": row.codec,
        "bits_per_element": row.bits_per_element,
        "payload_nbytes": row.payload_nbytes,
        "encode_s": cost.encode_s,
        "decode_s": cost.decode_s,
        "agreement": row.agreement,
        "top1": row.top1,
        "top1_loss": row.top1_loss,
        "relative_l2_mean": row.relative_l2_mean,
        "relative_l2_worst": row.relative_l2_worst,
    }
