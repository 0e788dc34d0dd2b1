"""Prometheus metrics of a server: requests, refusals, and time by stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from midstream_cloud.statistics import KINDS, Statistics


def registry_of(statistics: Statistics) -> CollectorRegistry:
    """Return a registry that reads `statistics` whenever it is scraped."""
    registry = CollectorRegistry()
    registry.register(_ServerCollector(statistics))
    return registry


@final
class _ServerCollector(Collector):
    """The counts of one server, under the names of docs/reference/metrics.md."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        counts = self._statistics
        yield CounterMetricFamily(
            "midstream_server_requests", "Requests answered.", value=counts.answered
        )
        refused = CounterMetricFamily(
            "midstream_server_refusals",
            "Calls and requests refused, by kind.",
            labels=["kind"],
        )
        found = counts.refused.copy()
        for kind in sorted({*KINDS, *found}):
            refused.add_metric([kind], found[kind])
        yield refused
        yield CounterMetricFamily(
            "midstream_server_sessions", "Sessions begun.", value=counts.sessions_opened
        )
        yield GaugeMetricFamily(
            "midstream_server_open_sessions",
            "Sessions at present.",
            value=counts.sessions_open,
        )
        moved = CounterMetricFamily(
            "midstream_server_payload_bytes", "Payload of answered requests.", labels=["way"]
        )
        moved.add_metric(["received"], counts.received_nbytes)
        moved.add_metric(["sent"], counts.sent_nbytes)
        yield moved
        spent = CounterMetricFamily(
            "midstream_server_stage_seconds", "Time of answered requests.", labels=["stage"]
        )
        spent.add_metric(["queue"], counts.queue_s)
        spent.add_metric(["decode"], counts.decode_s)
        spent.add_metric(["tail"], counts.tail_s)
        yield spent
