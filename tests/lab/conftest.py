"""What tests of pages share: a real browser that opens and prints one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from midstream_lab.results.rows import Facts, RunKey, RunResult, rows_of


@pytest.fixture
def printed(tmp_path: Path) -> Callable[[str], tuple[list[str], bytes]]:
    """Opens a page given as text: what its console said, and the PDF that it prints."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here to open it with")
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"

    def print_page(text: str) -> tuple[list[str], bytes]:
        page.write_text(text)
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        words += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
        words += ["--enable-logging=stderr", f"--print-to-pdf={paper}", page.as_uri()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60.0)
        assert done.returncode == 0
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return said, paper.read_bytes()

    return print_page


#: cut, codec, label, head_s, tail_s, payload_nbytes.
PLACEMENTS = (
    ("edge-only", "raw", "edge-only", 0.420, 0.0, 0),
    ("c30-1f2e3d", "int8", "after layer2 int8", 0.120, 0.012, 40_000),
    ("c12-4a5b6c", "half", "after layer1 half", 0.050, 0.020, 130_000),
    ("cloud-only", "jpeg:90", "cloud-only jpeg:90", 0.004, 0.028, 190_000),
)
RTT_S = 0.040

Make = Callable[..., list[RunResult]]
Curve = NDArray[np.float64]


def walk(trace: str, seed: int, duration_s: float) -> Curve:
    """[N, 2]: a rate every 0.5 s, log-normal around what the trace's name calls for."""
    rng = np.random.default_rng([seed, *trace.encode()])
    times_s = np.arange(0.0, duration_s, 0.5)
    noise = rng.standard_normal(len(times_s))
    level = np.zeros(len(times_s))
    for at in range(1, len(level)):
        level[at] = 0.95 * level[at - 1] + 0.22 * noise[at]
    return np.column_stack([times_s, np.exp(np.log(6e6) + level + rng.normal(0, 0.5))])


def latency_s(placement: int, rate_bps: float) -> float:
    _, _, _, head_s, tail_s, nbytes = PLACEMENTS[placement]
    return head_s + (nbytes * 8 / rate_bps + tail_s + RTT_S if nbytes else 0.0)


def best(rate_bps: float) -> int:
    return min(range(len(PLACEMENTS)), key=lambda placement: latency_s(placement, rate_bps))


def choice(policy: str, rate_bps: float, belief_bps: float) -> int:
    fixed = {"edge-only": 0, "race": 3, "cloud-only:jpeg": 3}
    fixed |= {f"fixed:{cut}:{codec}": at for at, (cut, codec, *_) in enumerate(PLACEMENTS)}
    if policy in fixed:
        return fixed[policy]
    return best(rate_bps if policy == "oracle" else belief_bps)


def run(key: RunKey, duration_s: float) -> RunResult:
    curve = walk(key.trace, key.seed, duration_s + 5)
    rng = np.random.default_rng([key.seed, *key.policy.encode()])
    at_s, records, belief, before = 0.0, [], 6e6, -1
    memory = {"adaptive": 0.5, "ewma": 0.15}.get(key.policy, 0.03)
    while at_s < duration_s:
        rate = float(curve[min(int(at_s / 0.5), len(curve) - 1), 1])
        placement = choice(key.policy, rate, belief)
        cut, codec, _, head_s, tail_s, nbytes = PLACEMENTS[placement]
        took_s = latency_s(placement, rate) * float(rng.lognormal(0, 0.04))
        racing = key.policy == "race" or (key.policy == "adaptive" and took_s > 0.43)
        where = "cloud" if nbytes else "edge"
        if racing and took_s > 0.44:
            took_s, where = 0.44, "edge-before-cloud"
        busy_s = head_s + (0.4 if racing else 0.0)
        uplink_s = max(0.0, took_s - head_s - tail_s - RTT_S) if nbytes else 0.0
        records.append(
            {
                "at_s": at_s, "trace_s": at_s + 2.0, "latency_s": took_s, "where": where,
                "hedged": racing, "k": 3 - placement, "cut": cut, "codec": codec,
                "payload_nbytes": nbytes, "reply_nbytes": 4000, "head_s": head_s,
                "tail_s": tail_s, "uplink_s": uplink_s, "predicted_s": took_s,
                "link": "connected", "uplink_bps": rate, "belief_bps": belief,
                "belief_low_bps": belief / 1.4, "belief_high_bps": belief * 1.4,
                "belief_rtt_s": RTT_S, "edge_busy_s": busy_s,
                "energy_j": 6.0 * busy_s + 2.0 * uplink_s,
                "switched": before not in (-1, placement),
            }
        )  # fmt: skip
        belief += memory * (rate - belief)
        before, at_s = placement, at_s + took_s
    return RunResult(key, facts_of(key, records, curve, duration_s), rows_of(records))


def facts_of(
    key: RunKey, records: Sequence[Mapping[str, Any]], curve: Curve, duration_s: float
) -> Facts:
    count = len(records)
    return Facts(
        kind="measured",
        began="2026-11-22T08:00:00+00:00",
        duration_s=duration_s,
        requests=count,
        answered=count,
        lost=0,
        duplicated=0,
        local=0,
        hedges=sum(each["hedged"] for each in records),
        switches=sum(each["switched"] for each in records),
        reconnects=0,
        probe_nbytes=1200,
        uplink_nbytes=sum(each["payload_nbytes"] for each in records) + 1200,
        downlink_nbytes=4000 * count,
        probe_share=0.004 if key.policy == "adaptive" else 0.0,
        edge={"name": "Testing CPU", "slowdown": 8.0, "threads": 1},
        cloud={"name": "Testing CPU", "slowdown": 1.0, "threads": 1},
        link={"backend": "tun", "rtt_s": RTT_S, "downlink_bps": 20e6, "congestion": "cubic"},
        versions={"midstream": "0.1.0", "python": "3.11.2", "onnxruntime": "1.31.0"},
        settings={"duration_s": duration_s},
        validity={
            "valid": True, "configured_rtt_s": RTT_S, "measured_rtt_s": 0.0403,
            "rate_error": 0.004, "lateness_p99_s": 0.00041,
        },
        menu=tuple(
            {
                "cut": cut, "codec": codec, "label": label, "k": 3 - at, "remote": nbytes > 0,
                "head_s": head_s, "encode_s": 0.001, "decode_s": 0.001, "tail_s": tail_s,
                "payload_nbytes": nbytes, "reply_nbytes": 4000, "rest_s": 0.42 - head_s,
            }
            for at, (cut, codec, label, head_s, tail_s, nbytes) in enumerate(PLACEMENTS)
        ),
        labels={f"{cut} {codec}": label for cut, codec, label, *_ in PLACEMENTS},
        bandwidth=tuple((float(t) + 2.0, float(r)) for t, r in curve),
    )  # fmt: skip


POLICIES = (
    "oracle", "adaptive", "race", "ewma", "periodic:5s", "edge-only", "cloud-only:jpeg",
    "fixed:c30-1f2e3d:int8", "fixed:c12-4a5b6c:half",
)  # fmt: skip


def make(
    *,
    policies: Sequence[str] = POLICIES,
    traces: Sequence[str] = ("lte-car", "wifi-cafe"),
    models: Sequence[str] = ("resnet18",),
    seeds: Sequence[int] = (0,),
    duration_s: float = 30.0,
) -> list[RunResult]:
    """One made-up run for every combination."""
    return [
        run(RunKey(model, trace, policy, seed), duration_s)
        for model in models
        for trace in traces
        for policy in policies
        for seed in seeds
    ]


@pytest.fixture(scope="session")
def made_up() -> Make:
    return make


def plain(
    policy: str,
    latency_s: Sequence[float | None],
    *,
    model: str = "net",
    trace: str = "line",
    seed: int = 0,
    start_s: float = 0.0,
    energy_j: float = 1.0,
    **facts: Any,
) -> RunResult:
    """A run of the latencies given, a request a second."""
    key = RunKey(model, trace, policy, seed)
    records = [
        {
            "at_s": float(at), "trace_s": start_s + at, "latency_s": each, "where": "cloud",
            "cut": "cloud-only", "codec": "raw", "payload_nbytes": 1000, "hedged": False,
            "energy_j": energy_j, "edge_busy_s": 0.1, "switched": False,
            "failed": "gone" if each is None else None,
        }
        for at, each in enumerate(latency_s)
    ]  # fmt: skip
    made = facts_of(key, records, np.empty((0, 2)), float(len(records)))
    return RunResult(key, replace(made, **facts), rows_of(records))


Plain = Callable[..., RunResult]


@pytest.fixture(scope="session", name="plain")
def _plain() -> Plain:
    return plain
