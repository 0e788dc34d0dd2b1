"""Prometheus metrics of an edge under a policy, and the page that serves metrics.

The page has the text exposition format 0.0.4.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from typing import Any, final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from midstream_edge.workload.load_generator import Record
from midstream_partitioner.costs.timings import FIELDS
from midstream_wire.address import Address
from midstream_wire.errors import UsageError

#: Upper bounds in seconds: a fifth more from one to the next would be finer than any link is
#: steady; these are factors of two and a half and two.
_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LINKS = ("connected", "suspect", "down")

#: Scrapes at a time, and how long one may take, sending and all: a Prometheus asks once in
#: some seconds, and connections that are held open cost no more than these threads.
MOST_SCRAPES = 8
SCRAPE_S = 5.0


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


@final
class _Server(ThreadingMixIn, WSGIServer):
    """Answers a bounded number of scrapes at a time, each within a bounded time."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], *, family: socket.AddressFamily) -> None:
        self.address_family = family
        self._room = threading.BoundedSemaphore(MOST_SCRAPES)
        super().__init__(address, _Quiet)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        limit = threading.Timer(SCRAPE_S, _hang_up, (request,))
        limit.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            limit.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what a scraper breaks is its own."""


class _Quiet(WSGIRequestHandler):
    """Writes no log of scrapes."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _hang_up(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


@contextmanager
def served(address: Address, *, insecure: bool = False) -> Iterator[Metrics]:
    """Serve the metrics of a session; as `published` otherwise."""
    metrics = Metrics()
    with published(metrics.registry, address, insecure=insecure) as metrics.address:
        yield metrics


@contextmanager
def published(
    registry: CollectorRegistry, address: Address, *, insecure: bool = False
) -> Iterator[Address]:
    """Serve metrics at http://`address`/metrics while the context is open; gives where.

    Raises `UsageError` where the address is not free, or beyond loopback and not `insecure`:
    what a side does and when is to be read there.
    """
    if address.port is None:
        raise UsageError(f"metrics are served at host:port (not {address}): name a port")
    if not (insecure or address.is_loopback):
        raise UsageError(
            f"metrics are served in plaintext, on loopback only (not {address}): serve them "
            "on 127.0.0.1, or say --metrics-insecure"
        )
    try:
        family, *_, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = _Server((str(place[0]), int(place[1])), family=family)
    except OSError as error:
        raise UsageError(
            f"--metrics must be a free address of this machine (not {address}: "
            f"{error.strerror}): choose another port"
        ) from None
    server.set_app(make_wsgi_app(registry))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield address.with_port(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
