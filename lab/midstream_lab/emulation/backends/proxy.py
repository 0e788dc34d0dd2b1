"""A link made of bytes: the unprivileged TCP proxy in a process of its own, with traces.

    python -m midstream_lab.emulation.backends.proxy

is a backend's process, which speaks JSON lines (`emulation.host.backend_server`).

It has no packets, so it cannot lose any; its queue holds senders back instead of dropping; and
TCP ends at the proxy, so a black hole still acknowledges. Rates are scaled by `GOODPUT_SHARE`,
so that the same specification gives the same goodput as over real packets.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, final

from midstream_lab.emulation.host.backend_server import (
    Control,
    complaint,
    first_command,
    hurry,
    tell,
)
from midstream_lab.emulation.model.capabilities import Capabilities, direction_document
from midstream_lab.emulation.model.outages import CUTS
from midstream_lab.emulation.model.packet_queue import Counters
from midstream_lab.emulation.model.rates import Rates
from midstream_lab.emulation.model.spec import GOODPUT_SHARE, LinkSpec
from midstream_lab.emulation.proxy.proxy import Proxy, Stats, parse_address, precise_loop
from midstream_lab.emulation.proxy.relay import PipeStats
from midstream_lab.traces.conditions import Condition
from midstream_wire.errors import MidstreamError, UsageError

#: For a trace's outage: less than a byte in a minute, while the proxy's rate must not be zero.
LEAST_BPS = 0.1


@final
class ProxyLink:
    """One proxy at a time, and the traces that set its rates."""

    def __init__(self, spec: LinkSpec) -> None:
        self._loop = asyncio.get_running_loop()
        self._proxy: Proxy | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cut_kind: str | None = None
        self._before_nbytes = (0, 0)
        self._configure(spec)

    def _configure(self, spec: LinkSpec) -> None:
        _check(spec)
        self._spec = spec
        self._uplink, self._downlink = Rates(spec.uplink), Rates(spec.downlink)
        self._follow()

    async def handle(self, command: Mapping[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "set":
                self._configure(LinkSpec.from_document(command["spec"]))
            case "start_trace":
                now_s = self._loop.time()
                self._uplink.start(now_s)
                self._downlink.start(now_s)
                self._follow()
                return {"at_s": now_s}
            case "begin":
                stats = self._proxy_stats()
                self._before_nbytes = (stats.uplink.nbytes, stats.downlink.nbytes)
            case "stats":
                return self._stats()
            case "reach":
                return {"address": await self._reach(command["address"], command["port"])}
            case "cut":
                self._cut_kind = command["kind"]
                self._apply_cut()
            case "restore":
                self._cut_kind = None
                if self._proxy is not None:
                    self._proxy.restore()
        return {"at_s": self._loop.time(), "congestion": None}

    async def _reach(self, address: str, port: int) -> str:
        target = parse_address(address)
        self._before_nbytes = (0, 0)
        if self._proxy is not None:
            self._proxy.close()
        self._proxy = Proxy(("127.0.0.1", port), target, self._condition()[0])
        host, port = await self._proxy.start()
        self._apply_cut()
        return f"{host}:{port}"

    def _apply_cut(self) -> None:
        if self._proxy is None or self._cut_kind is None:
            return
        match self._cut_kind:
            case "black-hole":
                self._proxy.black_hole()
            case "reset":
                self._proxy.reset_all(welcome=False)
            case "refuse":
                self._proxy.refuse()
                self._proxy.reset_all()

    def _follow(self) -> None:
        """Set the rates of this moment, and come back when they change."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        condition, until_s = self._condition()
        if self._proxy is not None:
            self._proxy.set(condition)
        if until_s != math.inf:
            self._timer = self._loop.call_at(until_s, self._follow)

    def _condition(self) -> tuple[Condition, float]:
        """The link of this moment, and until when it holds."""
        now_s = self._loop.time()
        (up_bps, up_s), (down_bps, down_s) = self._uplink.at(now_s), self._downlink.at(now_s)
        condition = Condition(
            name="proxied",
            uplink_bps=max(LEAST_BPS, up_bps * GOODPUT_SHARE),
            downlink_bps=max(LEAST_BPS, down_bps * GOODPUT_SHARE),
            rtt_s=self._spec.rtt_s,
            source="emulated",
        )
        return condition, min(up_s, down_s)

    def _proxy_stats(self) -> Stats:
        idle = PipeStats(0, 0, 0.0, 0.0)
        return self._proxy.stats() if self._proxy else Stats(idle, idle, 0)

    def _stats(self) -> dict[str, Any]:
        stats = self._proxy_stats()
        ways = stats.uplink, stats.downlink
        up_nbytes, down_nbytes = self._before_nbytes
        return {
            "uplink": _direction(stats.uplink, up_nbytes),
            "downlink": _direction(stats.downlink, down_nbytes),
            "lateness_p50_s": max(each.lateness_p50_s for each in ways),
            "lateness_p99_s": max(each.lateness_p99_s for each in ways),
            "lateness_max_s": -1.0,
        }


def _direction(stats: PipeStats, before_nbytes: int) -> dict[str, int]:
    counters = Counters(*[-1] * 9)
    counters.delivered_nbytes = stats.nbytes - before_nbytes
    return direction_document(counters, stats.queued_nbytes)


def _check(spec: LinkSpec) -> None:
    for field in ("jitter_s", "loss"):
        if getattr(spec, field):
            raise UsageError(
                f"the proxy has no packets and so no {field}: leave it out, or use a backend "
                "that emulates packets (tun, as root)"
            )


async def serve() -> int:
    try:
        link = ProxyLink(LinkSpec.from_document(first_command()["spec"]))
    except MidstreamError as error:
        tell(complaint(error))
        return 1
    control, over = Control(), asyncio.Event()
    commands: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()

    def hear(fd: int) -> None:
        if not control.hear(fd, commands.put_nowait):
            over.set()

    async def obey() -> None:
        while True:
            command = await commands.get()
            try:
                tell(await link.handle(command))
            except MidstreamError as error:
                tell(complaint(error))

    loop = asyncio.get_running_loop()
    for fd in control.fds:
        loop.add_reader(fd, hear, fd)
    capabilities = Capabilities(
        delay=True,
        jitter=False,
        loss=False,
        queue=False,
        congestion=False,
        silent_cut=False,
        cuts=CUTS,
        realtime=hurry(),
    )
    here = {"address": "127.0.0.1", "prefix": (), "namespace": None}
    tell(
        {
            "backend": "proxy",
            "edge": here,
            "cloud": here,
            "congestion": None,
            "capabilities": asdict(capabilities),
        }
    )
    obeying = asyncio.create_task(obey())
    await over.wait()
    obeying.cancel()
    return 0


def main() -> int:
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(serve())


if __name__ == "__main__":
    sys.exit(main())
