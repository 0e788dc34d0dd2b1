"""What an edge under a policy shows to Prometheus (text exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from midstream_edge.drive import Record
from midstream_partitioner.timings import FIELDS
from midstream_wire.address import Address
from midstream_wire.errors import UsageError

#: Upper bounds in seconds: a fifth more from one to the next would be finer than any link is
#: steady; these are factors of two and a half and two.
_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LINKS = ("connected", "suspect", "down")


@final
class Metrics:
    """Counters and gauges of one session, fed with a record at a time."""

    def __init__(self) -> None:
        #: Where they can be read, once they are served.
        self.address: Address | None = None
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "midstream_requests", "Requests by what became of them.", ["where"],
            registry=registry,
        )  # fmt: skip
        self._hedges = Counter(
            "midstream_hedges", "Requests whose rest the edge ran as well.", registry=registry
        )
        self._switches = Counter(
            "midstream_switches", "Changes of cut or codec.", registry=registry
        )
        self._sent = Counter("midstream_uplink_bytes", "Payload sent.", registry=registry)
        self._latency = Histogram(
            "midstream_latency_seconds", "From due to answered.", buckets=_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._stages = Counter(
            "midstream_stage_seconds", "Time spent in each stage.", ["stage"],
            registry=registry,
        )  # fmt: skip
        self._uplink = Gauge(
            "midstream_uplink_bits_per_second", "The rate believed in.", ["quantile"],
            registry=registry,
        )  # fmt: skip
        self._link = Gauge(
            "midstream_link_state", "1 for the state of the link.", ["state"],
            registry=registry,
        )  # fmt: skip

    def take(self, record: Record) -> None:
        answer = record.answer
        self._requests.labels("failed" if answer is None else answer.where).inc()
        self._latency.observe(record.latency_s)
        self._switches.inc(record.switched)
        for state in _LINKS:
            self._link.labels(state).set(state == record.link)
        if record.belief is not None:
            self._uplink.labels("0.1").set(record.belief.quantile_bps(0.1))
            self._uplink.labels("0.5").set(record.belief.uplink_bps)
            self._uplink.labels("0.9").set(record.belief.quantile_bps(0.9))
        if answer is not None:
            self._hedges.inc(answer.hedged)
            self._sent.inc(answer.payload_nbytes)
            for field in FIELDS:
                self._stages.labels(field.removesuffix("_s")).inc(
                    getattr(answer.timings, field)
                )


@contextmanager
def served(address: Address) -> Iterator[Metrics]:
    """Metrics at http://`address`/metrics while the context is open."""
    metrics = Metrics()
    if address.port is None:
        raise UsageError(f"metrics are served at host:port (not {address}): name a port")
    try:
        server, thread = start_http_server(
            address.port, addr=address.host, registry=metrics.registry
        )
    except OSError as error:
        raise UsageError(
            f"--metrics must be a free address of this machine (not {address}: "
            f"{error.strerror}): choose another port"
        ) from None
    metrics.address = address.with_port(server.server_port)
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
