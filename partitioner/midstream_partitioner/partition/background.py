"""Cutting and fusing in a process of its own, while this one answers requests.

Protobuf and shape inference hold the interpreter: cutting a network of 100 MB anew keeps every
other thread waiting for 0.1-0.6 s at a time. So a child process of the lowest priority does
it, from a folder into a folder, and what is left to do here is to compile, which onnxruntime
does without holding the interpreter where it reads a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from midstream_partitioner.lifeline import follow_parent, tied
from midstream_partitioner.partition.cutting import fuse
from midstream_partitioner.partition.folder import load_partition, save_partition
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.partition.recut import Runs, carry_calibration, checked_heads, recut
from midstream_partitioner.scratch import Scratch, scratch_folder
from midstream_wire.errors import (
    DeadlineExceeded,
    MidstreamError,
    ModelError,
    ResourceError,
)

#: Cutting VGG-16 (0.5 GB) took 12 s on a busy machine, at the lowest priority.
TIMEOUT_S = 300.0

#: A tenth of a processor where others want it all. At 19, cutting a network of 14 MB took
#: 15-30 s on a machine loaded to twice its cores, and disturbed requests no less.
_NICE = 10

#: What the child ends with: an error of ours, and a machine that has no room or memory left.
_FAILED, _LACKING = 1, 3

#: Lowers the priority before anything large is imported. Where Linux shares processors out
#: among sessions first (sched(7), autogroups), a process of low priority takes half of one
#: from a session that is at work, unless its own session has a low priority, too.
_CHILD = """
import contextlib, os, sys
os.nice(int(sys.argv[1]))
with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:
    file.write(sys.argv[1])
from midstream_partitioner.partition.background import main
raise SystemExit(main())
"""


@final
@dataclass(frozen=True, slots=True)
class Prepared:
    """A partition, and the folder in which its files lie, for as long as they are needed.

    `scratch` is None where the partition is the one that was started from.
    """

    partition: Partition
    scratch: Scratch | None = field(default=None, repr=False)


def recut_beside(
    part: Partition,
    heads: Iterable[Runs],
    *,
    timeout_s: float = TIMEOUT_S,
    gently: bool = True,
) -> Prepared:
    """`recut.recut` in a child process, which takes little from others unless not `gently`.

    Raises `ModelError`, `DeadlineExceeded`, `ResourceError`.
    """
    wanted = checked_heads(part, heads)
    if wanted == tuple(cut.runs for cut in part.cuts[1:-1]):
        return Prepared(part)
    with _lacking_is_told():
        scratch = Scratch("midstream-cut-")
        _work(part, {"heads": wanted, "into": str(scratch.path)}, timeout_s, gently=gently)
        made = load_partition(scratch.path, calibrated=False)
    return Prepared(carry_calibration(part, made), scratch)


def fuse_beside(
    part: Partition,
    first: int,
    last: int,
    *,
    into: Path,
    timeout_s: float = TIMEOUT_S,
    gently: bool = True,
) -> None:
    """`partition.fuse` in such a process, into a file. Raises as `recut_beside`."""
    job = {"first": first, "last": last, "into": str(into)}
    with _lacking_is_told():
        _work(part, job, timeout_s, gently=gently)


@contextmanager
def _lacking_is_told() -> Iterator[None]:
    """Raise `ResourceError` where the system has no file, process or memory left to give."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise _lack(_reason(error)) from error


def _lack(reason: str) -> ResourceError:
    return ResourceError(
        "cutting a model anew takes a process, memory and room in the folder for "
        f"temporary files, which this machine lacks ({reason}): free some, or set TMPDIR"
    )


def _reason(error: OSError | MemoryError) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _work(part: Partition, job: Mapping[str, Any], timeout_s: float, *, gently: bool) -> None:
    with scratch_folder("midstream-base-") as temporary:
        folder = _folder_of(part)
        if folder is None:
            folder = temporary
            save_partition(part, folder)
        _run({**job, "from": str(folder)}, timeout_s, nice=_NICE if gently else 0)


def _folder_of(part: Partition) -> Path | None:
    """The folder that `part` was loaded from, if there is one."""
    source = part.segments[0].source
    return source.parent.parent if isinstance(source, Path) else None


def _run(job: Mapping[str, Any], timeout_s: float, *, nice: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, str(nice)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is this process's affair
        **tied(os.environ),
    )
    try:
        answer, complaint = child.communicate(json.dumps(job), timeout_s)
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(
            f"cutting a model anew must take at most {timeout_s:g} s, but did not end: "
            "cut it beforehand with `midstream partition`"
        ) from None
    finally:
        child.kill()
        child.communicate()
    _check_end(child.returncode, answer.strip(), complaint)


def _check_end(code: int, answer: str, complaint: str = "") -> None:
    """Raise what a child that ended with `code` says, if it failed."""
    if code == _LACKING:
        raise _lack(answer)
    if code < 0:  # by a signal: most often the system's, for want of memory
        raise _lack(f"its process was ended by signal {-code}")
    if code:
        raise ModelError(answer or _last_line(complaint))


def _last_line(complaint: str) -> str:
    lines = complaint.strip().splitlines() or ["it said nothing"]
    return (
        "cutting a model anew must succeed in a process of its own, but that ended early "
        f"({lines[-1][:200]}): is there enough memory?"
    )


def main() -> int:
    """The child: one job from standard input, its error on standard output."""
    follow_parent()
    code, answer = _carry_out(json.load(sys.stdin))
    with suppress(BrokenPipeError):
        print(answer, flush=True)
    return code


def _carry_out(job: Mapping[str, Any]) -> tuple[int, str]:
    """Do a job: the exit code, and why it is not 0."""
    try:
        part = load_partition(Path(job["from"]), calibrated=False)
        into = Path(job["into"])
        if "heads" in job:
            save_partition(recut(part, job["heads"]), into)
        else:
            into.write_bytes(fuse(part, job["first"], job["last"]))
    except MidstreamError as error:
        return _FAILED, str(error)
    except (OSError, MemoryError) as error:
        return _LACKING, _reason(error)
    return 0, ""
