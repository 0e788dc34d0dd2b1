"""One interface to every kind of emulated link.

with emulate(LinkSpec(20e6, 20e6, delay_s=0.02)) as link:
    subprocess.run([*link.cloud_prefix, "midstream", "cloud", "serve", ...])
    link.cut("black-hole")
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, final, get_args

from midstream_lab.emulation.host import namespaces
from midstream_lab.emulation.host.backend_client import Child
from midstream_lab.emulation.model.capabilities import (
    Calibration,
    Capabilities,
    LinkStats,
    Validity,
    reasons_against,
)
from midstream_lab.emulation.model.outages import CUTS, Cut
from midstream_lab.emulation.model.spec import LinkSpec
from midstream_lab.emulation.self_test.validity import calibrate, calm
from midstream_wire.errors import MidstreamError, UsageError

Backend = Literal["auto", "tun", "kernel", "proxy"]
#: Best first: what "auto" tries. docs/explanation/emulation.md says why.
BACKENDS: Final = ("tun", "kernel", "proxy")


def why_not(backend: str) -> str | None:
    """Return why a backend cannot be had here, as far as is seen without trying; else None."""
    match backend:
        case "tun":
            return namespaces.why_not(("ip",), devices=("/dev/net/tun",))
        case "kernel":
            return namespaces.why_not(("ip", "tc"))
        case _:
            return None


@contextlib.contextmanager
def emulate(
    spec: LinkSpec,
    *,
    backend: Backend = "auto",
    calibrated: bool = True,
    listen_port: int = 0,
) -> Iterator[Emulation]:
    """An emulated link, up for the time of the block.

    "auto" takes the best backend that can be had; `Emulation.backend` names it, and
    `Emulation.passed_over` says what kept the better ones. `calibrated` measures the link
    first, which takes about 2 s. `listen_port` is where a proxy listens, if it is one.
    Raises `UsageError` for what the backend cannot do, `MidstreamError` if none can be had.
    """
    if backend not in get_args(Backend):
        raise UsageError(
            f"a backend must be one of {', '.join(get_args(Backend))} (not {backend!r})"
        )
    with contextlib.ExitStack() as stack:
        child, ready, passed_over = _start(BACKENDS if backend == "auto" else (backend,), spec)
        stack.enter_context(child)
        link = Emulation(child, ready, spec, listen_port)
        link.passed_over.update(passed_over)
        if calibrated:
            link.set(calm(spec))
            link.calibration = calibrate(link)
            link.set(spec)
        link.begin()
        yield link


def _start(
    names: tuple[str, ...], spec: LinkSpec
) -> tuple[Child, dict[str, Any], dict[str, str]]:
    passed_over: dict[str, str] = {}
    for name in names:
        reason = why_not(name)
        if reason is None:
            child = Child(f"midstream_lab.emulation.backends.{name}")
            try:
                return child, child.ask({"spec": spec.to_document()}), passed_over
            except BaseException as error:
                child.stop()
                # Only the kernel refuses what another backend may be able to do.
                final = isinstance(error, UsageError) and name != "kernel"
                if len(names) == 1 or final or not isinstance(error, MidstreamError):
                    raise
                reason = str(error)
        passed_over[name] = reason
    reasons = "; ".join(f"{name}: {why}" for name, why in passed_over.items())
    raise MidstreamError(
        f"an emulated link must have a backend, and none can be had: {reasons}"
    )


@final
class Emulation:
    """A link that is up. May be used from several threads."""

    def __init__(
        self, child: Child, ready: Mapping[str, Any], spec: LinkSpec, listen_port: int
    ) -> None:
        self._child = child
        self._listen_port = listen_port
        self._ends = {end: ready[end] for end in ("edge", "cloud")}
        self.spec = spec
        self.backend: str = ready["backend"]
        self.capabilities = Capabilities.from_document(ready["capabilities"])
        #: TCP's congestion control at both ends; None where TCP does not cross the link.
        self.congestion: str | None = ready["congestion"]
        #: What was measured at the start.
        self.calibration: Calibration | None = None
        #: Better backends, and why they could not be had.
        self.passed_over: dict[str, str] = {}

    @property
    def pid(self) -> int:
        """The process that emulates: its processor time is the emulation's price."""
        return self._child.pid

    @property
    def edge_prefix(self) -> tuple[str, ...]:
        """In front of a command line, runs it at the edge's end of the link."""
        return tuple(self._ends["edge"]["prefix"])

    @property
    def cloud_prefix(self) -> tuple[str, ...]:
        return tuple(self._ends["cloud"]["prefix"])

    @property
    def edge_namespace(self) -> str | None:
        """A file to open and enter (setns(2)); None where both ends are this machine."""
        return _text(self._ends["edge"]["namespace"])

    @property
    def cloud_namespace(self) -> str | None:
        return _text(self._ends["cloud"]["namespace"])

    @property
    def cloud_address(self) -> str:
        return str(self._ends["cloud"]["address"])

    @property
    def cloud_listen(self) -> str:
        """Return where the cloud may listen: its address on the link, any port."""
        return f"{self.cloud_address}:0"

    def reach(self, address: str) -> str:
        """Return what the edge dials to come to the cloud's `address` over the link.

        A proxy begins to listen here, and serves one address at a time: the latest.
        """
        if self._ends["cloud"]["namespace"] is not None:
            return address
        asked = {"do": "reach", "address": address, "port": self._listen_port}
        return str(self._child.ask(asked)["address"])

    def set(self, spec: LinkSpec) -> float:
        """Change the link, also for what already waits; returns when, as `time.monotonic`.

        A trace holds its mean until `start_trace`. Raises `UsageError`.
        """
        answer = self._child.ask({"do": "set", "spec": spec.to_document()})
        self.spec, self.congestion = spec, answer["congestion"]
        return float(answer["at_s"])

    def start_trace(self) -> float:
        """Let traces begin; returns the moment of their time 0, as `time.monotonic`."""
        return float(self._child.ask({"do": "start_trace"})["at_s"])

    def cut(self, kind: Cut) -> float:
        """Cut the link until `restore`; returns when, as `time.monotonic`.

        "black-hole": nothing passes and nobody is told. "reset": connections are reset, new
        ones as soon as they carry data. "refuse": connections are reset, new ones refused.
        """
        if kind not in CUTS:
            raise UsageError(f"a cut must be one of {', '.join(CUTS)} (not {kind!r})")
        return float(self._child.ask({"do": "cut", "kind": kind})["at_s"])

    def restore(self) -> float:
        """End the cut; returns when, as `time.monotonic`."""
        return float(self._child.ask({"do": "restore"})["at_s"])

    def begin(self) -> None:
        """Count from here: statistics and lateness start anew."""
        self._child.ask({"do": "begin"})

    def stats(self) -> LinkStats:
        """Return what has passed since the start, or since `begin`."""
        return LinkStats.from_document(self._child.ask({"do": "stats"}))

    def validity(self) -> Validity:
        """Return whether what ran over the link until now may be believed."""
        stats = self.stats()
        overruns = sum(max(0, each.overrun_packets) for each in (stats.uplink, stats.downlink))
        why = reasons_against(self.calibration, stats.lateness_p99_s, overruns)
        return Validity(
            backend=self.backend,
            realtime=self.capabilities.realtime,
            congestion=self.congestion,
            queue_nbytes=self.spec.queue_nbytes if self.capabilities.queue else None,
            calibration=self.calibration,
            lateness_p50_s=stats.lateness_p50_s,
            lateness_p99_s=stats.lateness_p99_s,
            valid=not why,
            why=why,
        )

    def describe(self) -> dict[str, Any]:
        """For a report, as plain values: backend, specification, capabilities, validity."""
        return {
            "backend": self.backend,
            "passed_over": dict(self.passed_over),
            "spec": self.spec.describe(),
            "validity": self.validity().to_document(),
        }


def _text(value: object) -> str | None:
    return None if value is None else str(value)
