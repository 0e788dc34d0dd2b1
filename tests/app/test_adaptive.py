"""An edge under a policy, as a user runs it: the log, the metrics, the view."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from rich.console import Console

from midstream.cli.output.live_view import View
from midstream.cli.runs import adaptive
from midstream.cli.runs.answers import Writer
from midstream.metrics import MOST_SCRAPES, served
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.session.answers import CLOUD, Answer, Stats
from midstream_edge.session.session import EdgeSession
from midstream_edge.workload.load_generator import Record, Schedule, energy_j
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.timings import Estimate, Timings
from midstream_partitioner.inputs.samples import Sample
from midstream_wire.address import Address
from midstream_wire.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from tests.app.conftest import Cloud, CommandLine, Environment, Ran

    Run = Callable[[str], Ran]

LINK = Link(8e6, 16e6, 0.04)


def record(number: int = 0, *, failed: str | None = None) -> Record:
    answer = Answer(
        outputs={"y": np.zeros(1, np.float32)},
        timings=Timings(0.01, 0.001, 0.12, 0.0, 0.001, 0.02, 0.03),
        where=CLOUD,
        reason=None,
        k=1,
        cut="c2-abc",
        codec="half",
        payload_nbytes=100_000,
        reply_nbytes=1000,
        hedged=True,
        busy_s=0.05,
        estimate=Estimate(0.01, 0.001, 0.1),
        expected_s=0.1,
    )
    return Record(
        number=number,
        at_s=0.2 * number,
        monotonic_s=1000.0 + 0.2 * number,
        latency_s=0.185,
        link="connected",
        answer=None if failed else answer,
        failed=failed,
        belief=LinkBelief.of(LINK),
        switched=number == 1,
    )


def test_failures_of_a_policy_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    session = cast(EdgeSession, SimpleNamespace(stats=Stats(requests=5, policy_errors=3)))
    document = adaptive._document(session, adaptive.Tally(), sent=5, name="own")
    assert document["policy_errors"] == 3
    adaptive._print_summary(document)
    assert "the policy failed 3 times" in " ".join(capsys.readouterr().out.split())
    adaptive._print_summary(document | {"policy_errors": 0})
    assert capsys.readouterr().out == ""


def test_every_request_leaves_a_line_with_prediction_and_measurement(
    command: Run, cloud: Cloud, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    line = f"edge run digits --server {cloud.address} --requests 5 --runs 3 --adaptive"
    found = command(f"{line} --policy fixed:cloud-only:raw --log {log} --json").document
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    assert [each["number"] for each in lines] == list(range(5))
    assert (found["answered"], found["lost"], found["duplicated"]) == (5, 0, 0)
    for each in lines:
        assert each["where"] == "cloud"
        assert each["timings"].keys() == each["predicted"].keys()
        assert each["timings"]["total_s"] <= each["latency_s"]
        assert each["expected_s"] == each["predicted"]["total_s"]  # fixed never hedges
        assert each["belief"]["low_bps"] < each["belief"]["uplink_bps"]
        assert each["energy_j"] > 0
        assert each["cut"] == "cloud-only"


def test_answers_under_a_policy_are_written_as_they_come(
    command: Run, cloud: Cloud, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    line = f"edge run tiny.onnx --server {cloud.address} --input x.npy --requests 5 --runs 3"
    command(f"{line} --adaptive --policy fixed:cloud-only:raw --output {output} --json")
    lines = [json.loads(text) for text in output.read_text("utf-8").splitlines()]
    assert sorted(each["number"] for each in lines) == list(range(5))
    # Three inputs come in turn; each answer lies with the input that it answers.
    assert {each["number"]: each["input"] for each in lines} == {
        number: f"x.npy[{number % 3}]" for number in range(5)
    }
    assert {each["where"] for each in lines} == {"cloud"}
    assert all(len(each["outputs"]["scores"][0]) == 4 for each in lines)


class Full:
    """A place without room behind the first answer."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def take(self, number: int, source: str, answer: Answer) -> None:
        if self.taken:
            raise ResourceError("--output must have room for the answers")
        self.taken.append(number)


def test_an_output_without_room_ends_the_run_and_is_told_behind_it() -> None:
    full, stop = Full(), threading.Event()
    inputs = [Sample({"x": np.zeros((1, 8), np.float32)}, "x")]
    noted = adaptive._Noted(cast(Writer, full), inputs, stop)
    noted.take(record(0))
    assert not stop.is_set()
    noted.take(record(1, failed="lost"))  # no answer, nothing to write
    noted.take(record(2))
    assert stop.is_set()
    noted.take(record(3))
    assert full.taken == [0]
    with pytest.raises(ResourceError, match="must have room"):
        noted.check()


def test_requests_come_at_their_times(command: Run, cloud: Cloud, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    line = f"edge run digits --server {cloud.address} --runs 3 --adaptive --every 50ms"
    found = command(f"{line} --duration 1s --log {log} --json").document
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    assert found["requests"] == len(lines) == 20
    assert not found["interrupted"]
    due_s = sorted(each["at_s"] for each in lines)
    assert due_s == pytest.approx([0.05 * number for number in range(20)])


def test_a_run_that_a_signal_ends_early_says_so(
    command_line: CommandLine,
    environment: Environment,
    cloud: Cloud,
    models: Path,
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    line = f"edge run digits --server {cloud.address} --runs 3 --adaptive --duration 60s"
    with subprocess.Popen(
        command_line(f"{line} --log {log} --json"),
        cwd=models,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        with log.open() as lines:
            next(lines)
            process.send_signal(signal.SIGTERM)
            left = sum(1 for _ in lines)
        assert process.stdout is not None
        found = json.loads(process.stdout.read())
    assert found["interrupted"]
    assert found["answered"] == found["requests"] == left + 1


def test_a_schedule_without_an_end_is_bounded_by_its_taker() -> None:
    due = Schedule(every_s=0.5).due(100.0)
    assert [next(due) for _ in range(3)] == [100.0, 100.5, 101.0]
    assert list(Schedule(requests=2).due(0.0)) == [None, None]


def test_energy_counts_computing_sending_receiving_and_waiting() -> None:
    answer = record().answer
    assert answer is not None
    device = Device("pi", 4, active_w=6.0, idle_w=2.0, tx_w=10.0, rx_w=8.0)
    sending_s, receiving_s = 0.1, 0.0005
    idle_s = answer.timings.total_s - answer.busy_s - sending_s - receiving_s
    expected = 6.0 * 0.05 + 10.0 * sending_s + 8.0 * receiving_s + 2.0 * idle_s
    assert energy_j(answer, device, LINK, None) == pytest.approx(expected)


def test_metrics_can_be_scraped() -> None:
    with served(Address("127.0.0.1", 0)) as metrics:
        for number in range(3):
            metrics.take(record(number))
        metrics.take(record(3, failed="the cloud is away"))
        with urllib.request.urlopen(f"http://{metrics.address}/metrics") as page:
            text = page.read().decode()
    assert 'midstream_requests_total{where="cloud"} 3.0' in text
    assert 'midstream_requests_total{where="failed"} 1.0' in text
    assert "midstream_hedges_total 3.0" in text
    believed = re.search(r'uplink_bits_per_second\{quantile="0.5"\} (\S+)', text)
    assert believed is not None
    assert float(believed[1]) == pytest.approx(8e6)
    assert 'midstream_link_state{state="connected"} 1.0' in text


def test_an_address_for_metrics_that_is_taken_is_refused() -> None:
    with served(Address("127.0.0.1", 0)) as metrics:
        assert metrics.address is not None
        with (
            pytest.raises(UsageError, match="must be a free address"),
            served(metrics.address),
        ):
            pass


def test_metrics_leave_the_machine_only_where_that_is_said() -> None:
    with (
        pytest.raises(UsageError, match="say --metrics-insecure"),
        served(Address("0.0.0.0", 0)),
    ):
        pass
    with served(Address("0.0.0.0", 0), insecure=True) as metrics:
        assert metrics.address is not None


def test_connections_held_open_take_a_few_threads_and_give_them_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("midstream.metrics.SCRAPE_S", 0.3)
    with served(Address("127.0.0.1", 0)) as metrics, ExitStack() as held:
        assert metrics.address is not None
        place = (metrics.address.host, metrics.address.port or 0)
        before = threading.active_count()
        for _ in range(4 * MOST_SCRAPES):
            one = held.enter_context(socket.create_connection(place))
            with suppress(OSError):  # it was turned away
                one.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        # A thread and a timer for each that is heard.
        assert threading.active_count() <= before + 2 * MOST_SCRAPES
        wait_for(lambda: threading.active_count() <= before)
        with urllib.request.urlopen(f"http://{metrics.address}/metrics") as page:
            assert b"midstream_requests" in page.read()


def wait_for(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_the_view_tells_link_plan_latency_and_answers() -> None:
    view = View("net under adaptive", lambda: {(1, "half"): "after relu with half"})
    for number in range(3):
        view.take(record(number))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(view)
    text = console.export_text()
    for words in (
        "connected",
        "8 Mbit/s up",
        "after relu with half",
        "3 cloud; 3 hedged, 1 sw",
    ):
        assert words in text
