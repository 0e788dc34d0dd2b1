"""What the kernel tells of a connection on which nothing is under way."""

from __future__ import annotations

from midstream_edge.link.tcp_info import TcpInfo


def idle_tcp(rtt_s: float) -> TcpInfo:
    """All that was sent is acknowledged; a round trip takes `rtt_s`."""
    return TcpInfo(
        acked_nbytes=1000,
        unsent_nbytes=0,
        in_flight_nbytes=0,
        received_nbytes=500,
        retransmitted_nbytes=0,
        ack_age_s=0.0,
        srtt_s=rtt_s,
        rttvar_s=0.005,
        min_rtt_s=rtt_s,
        rto_s=0.22,
        delivery_bps=1e7,
    )
