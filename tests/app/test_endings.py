"""However a command ends, what it started ends with it, and its temporary files go."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.app.conftest import CommandLine, Environment, Started

    Start = Callable[[str], Started]

PATIENCE_S = 60.0
PAIR = "pair digits --link 1Mbit:50ms --requests 1000 --json"
POLICY = "pair digits --link 1Mbit:50ms --policy adaptive --duration 600s --json"
#: Itself, the cloud, what removes temporary folders; then the link and the edge.
STARTING, RUNNING = 3, 5


def wait_until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    ("number", "count"),
    [
        (signal.SIGINT, STARTING),
        (signal.SIGINT, RUNNING),
        (signal.SIGTERM, RUNNING),
        (signal.SIGHUP, RUNNING),
    ],
    ids=["Ctrl-C while it starts", "Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_a_pair_that_is_told_to_end_leaves_nothing_behind(
    start: Start, number: signal.Signals, count: int
) -> None:
    pair = start(PAIR)
    pair.wait_for(count)
    pair.process.send_signal(number)
    out, err = pair.process.communicate(timeout=PATIENCE_S)
    assert pair.process.returncode == 130
    assert (pair.everyone(), pair.leftovers()) == ([], [])
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize("line", [PAIR, POLICY], ids=["every placement", "a policy"])
def test_a_pair_that_is_killed_leaves_nothing_behind(start: Start, line: str) -> None:
    """SIGKILL gives it no chance to clean up: the others must see to that."""
    pair = start(line)
    pair.wait_for(RUNNING)
    pair.process.kill()
    wait_until(lambda: (pair.everyone(), pair.leftovers()) == ([], []))


def test_a_pair_whose_terminal_is_closed_leaves_nothing_behind(
    command_line: CommandLine, environment: Environment, models: Path, tmp_path: Path
) -> None:
    ours, terminal = pty.openpty()
    with subprocess.Popen(
        ["setsid", "--ctty", *command_line(PAIR.removesuffix(" --json"))],
        cwd=models,
        env=environment(TMPDIR=str(tmp_path)),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as pair:
        os.close(terminal)
        said = b""
        while b"measuring the link" not in said:
            said += os.read(ours, 1 << 16)
        os.close(ours)
        assert pair.wait(PATIENCE_S) == 130
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_is_killed_leaves_no_process_behind(start: Start, tmp_path: Path) -> None:
    axes = "--sweep uplink=1Mbit:100Mbit:50 --sweep rtt=1ms,2ms,3ms,4ms,5ms,6ms,7ms,8ms"
    sweep = start(f"simulate menu.json {axes} --jobs 2 -o {tmp_path}/sweep")
    sweep.wait_for(4)  # itself, two workers, and what multiprocessing tracks resources with
    sweep.process.kill()
    wait_until(lambda: sweep.everyone() == [])


def test_nohup_keeps_a_command_running_when_the_terminal_is_closed(
    command_line: CommandLine, environment: Environment, models: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        ["nohup", *command_line("pair digits --link 200Mbit:2ms --requests 5 --json")],
        cwd=models,
        env=environment(TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as pair:
        assert pair.stderr is not None
        begun = any("starting the cloud" in line for line in pair.stderr)
        pair.send_signal(signal.SIGHUP)
        out, err = pair.communicate(timeout=PATIENCE_S)
    assert begun
    assert pair.returncode == 0, err
    assert '"answered": 5' in out
