"""What a server shows to Prometheus."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import generate_latest

from midstream.server_metrics import registry_of
from midstream_cloud.statistics import KINDS, Statistics, kind_of
from midstream_wire.errors import CloudRefused
from midstream_wire.frames import Code, ServerTimings

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/metrics.md"


def test_a_scrape_reads_what_was_counted() -> None:
    counts = Statistics(log=lambda _: None)
    registry = registry_of(counts)
    counts.open_session()
    counts.refuse(CloudRefused(Code.RESOURCE_EXHAUSTED, "", kind="queue"), "peer")
    counts.answer(ServerTimings(queue_s=0.5, decode_s=0.25, tail_s=1.0), 100, 10)
    lines = generate_latest(registry).decode().splitlines()
    assert {
        "midstream_server_requests_total 1.0",
        'midstream_server_refusals_total{kind="queue"} 1.0',
        "midstream_server_open_sessions 1.0",
        'midstream_server_payload_bytes_total{way="received"} 100.0',
        'midstream_server_stage_seconds_total{stage="tail"} 1.0',
    } <= set(lines)
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert names == set(re.findall(r"`(midstream_server_\w+)[`{]", PAGE.read_text("utf-8")))


def test_every_kind_of_refusal_is_on_the_page_from_the_start_and_explained() -> None:
    lines = generate_latest(registry_of(Statistics())).decode().splitlines()
    shown = {
        line.partition('kind="')[2].partition('"')[0] for line in lines if 'kind="' in line
    }
    assert shown == set(KINDS)
    cloud = PAGE.parents[2] / "cloud/midstream_cloud"
    raised = {
        kind
        for path in cloud.glob("*.py")
        for kind in re.findall(r'kind="([^"]+)"', path.read_text("utf-8"))
    }
    assert raised < set(KINDS)
    assert {kind_of(CloudRefused(code, "")) for code in Code} < set(KINDS)
    (row,) = re.findall(r"\| `midstream_server_refusals_total.*", PAGE.read_text("utf-8"))
    assert all(f"`{kind}`" in row for kind in KINDS)
