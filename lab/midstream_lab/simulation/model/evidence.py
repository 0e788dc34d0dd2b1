"""Evidence of requests for a policy, in virtual time, as in a session."""

from __future__ import annotations

from midstream_edge.link.observations import Transfer
from midstream_edge.policies.interface import Evidence
from midstream_lab.simulation.model.request import Job
from midstream_lab.simulation.model.tcp_flow import Line


def unfinished(up: Line, job: Job, now_s: float) -> Transfer | None:
    """Return what a request tells that began to go out and was not answered by `now_s`."""
    if job.left_s < 0 or job.left_s >= now_s:
        return None
    gone_nbytes = up.passed_nbytes(job.left_s, now_s)
    gone_nbytes = min(gone_nbytes, job.ahead_nbytes + job.payload_nbytes)
    ahead_nbytes = min(job.ahead_nbytes, gone_nbytes)
    took_s = now_s - job.left_s
    return Transfer(gone_nbytes - ahead_nbytes, 0, took_s, False, ahead_nbytes)


def evidence_of(job: Job, now_s: float, transfer: Transfer | None) -> Evidence:
    """Return what the request tells that has ended now."""
    return job.evidence(
        now_s,
        transfer,
        placement=job.placement,
        queue_s=job.started_s - job.queued_s,
        tail_s=(job.served_s - job.started_s) * job.tail_s / (job.service_s or 1.0),
    )
