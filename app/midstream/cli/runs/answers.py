"""Requests one after the other: every answer told as it comes, and all as a document."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, final

import numpy as np
import typer

from midstream.cli.flags.common import takes
from midstream.cli.output import console
from midstream.writing import Postprocess, Sink, Written, check_sink, opened_sink
from midstream_edge.session.answers import Answer
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.inputs.samples import Sample
from midstream_partitioner.partition.partition import Partition
from midstream_wire.errors import ResourceError, UsageError
from midstream_wire.tensors import Array

#: Classes told of a row of scores.
TOP = 5


@final
@dataclass(frozen=True, slots=True)
class Answering:
    """Options of a run's answers: what is printed of each, and where they are written."""

    output: Path | None = None
    top: int = TOP
    postprocess: Postprocess | None = None

    @contextmanager
    def open(self, part: Partition) -> Iterator[Writer | None]:
        """Open the output for the answers of `part`; None where there is none."""
        if self.output is None:
            yield None
            return
        with opened_sink(self.output) as sink:
            yield Writer(self, sink, part)


def _answering(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File or folder for all outputs of every input (FILE.jsonl, FILE.npz, DIR).",
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            min=1, help="Number of classes printed for a row of scores, the largest first."
        ),
    ] = TOP,
    postprocess: Annotated[
        str | None,
        typer.Option(
            help="Postprocessing of the outputs (a dict of arrays) before --output: "
            "python:module:function."
        ),
    ] = None,
) -> Answering:
    if output is not None:
        check_sink(output)
    made = None if postprocess is None else Postprocess.named(postprocess)
    if output is not None and made is not None and output.suffix.lower() == ".npz":
        raise UsageError(
            "--postprocess gives results of any form: write them to a .jsonl or a folder "
            f"(not {output.name})"
        )
    return Answering(output, top, made)


takes_answering = takes("answering", _answering)


@final
class Writer:
    """Writes answers in the order in which they come."""

    def __init__(self, answering: Answering, sink: Sink, part: Partition) -> None:
        self._answering = answering
        self._sink = sink
        self._part = part

    def take(self, number: int, source: str, answer: Answer) -> None:
        """Write one answer; raises `ResourceError`, and `UsageError` of the postprocessing."""
        line: dict[str, Any] = {"input": source, "number": number, "where": answer.where}
        made = self._answering.postprocess
        if made is not None:
            line["result"] = made(answer.outputs, source)
        else:
            tops = {
                name: _top(array, self._part, self._answering.top)
                for name, array in answer.outputs.items()
            }
            line["top"] = {name: top for name, top in tops.items() if top is not None}
        try:
            self._sink.take(Written(number, line, answer.outputs))
        except OSError as error:
            raise ResourceError(
                f"--output must have room for the answers, and {self._answering.output} has "
                f"not ({error.strerror}): what was written before can be read"
            ) from None


def send_all(
    session: EdgeSession,
    inputs: Iterable[Sample],
    part: Partition,
    *,
    answering: Answering,
    quiet: bool,
) -> dict[str, Any]:
    """Send all inputs, pipelined; tell and write each answer as it comes."""
    answers: list[dict[str, Any]] = []
    pending: deque[tuple[str, Future[Answer]]] = deque()
    sent = 0
    with answering.open(part) as writer:

        def tell() -> None:
            source, future = pending.popleft()
            answer = future.result()
            if not quiet:
                _print_answer(len(answers), answer, part)
            if writer is not None:
                writer.take(len(answers), source, answer)
            answers.append(_answer_document(len(answers), answer, part, answering.top))

        for sample in inputs:
            pending.append((sample.name, session.submit(sample)))  # waits for room
            sent += 1
            while pending and pending[0][1].done():
                tell()
        while pending:
            tell()
    stats = session.stats
    if not quiet:
        console.say(
            f"{len(answers)} answers: {stats.cloud} from the cloud, {stats.edge} from the "
            f"edge, {stats.fallback} finished on the edge because the cloud failed"
        )
    return {"requests": sent, "answered": len(answers), "local": stats.fallback,
            "answers": answers}  # fmt: skip


def _answer_document(number: int, answer: Answer, part: Partition, top: int) -> dict[str, Any]:
    return {
        "input": number,
        "where": answer.where,
        "reason": answer.reason,
        "cut": part.cuts[answer.k].id,
        "codec": answer.codec,
        "payload_nbytes": answer.payload_nbytes,
        "timings": answer.timings.to_dict(),
        "top": {name: _top(array, part, top) for name, array in answer.outputs.items()},
    }


def _top(array: Array, part: Partition, count: int) -> list[dict[str, Any]] | None:
    """The largest entries of a row of scores, None for any other output."""
    if array.ndim != 2 or array.shape[0] != 1 or array.dtype.kind != "f":
        return None
    labels = part.feed.labels
    best = np.argsort(array[0])[::-1][:count]
    return [
        {
            "index": int(at),
            "label": labels[at] if at < len(labels) else None,
            "score": float(array[0, at]),
        }
        for at in best
    ]


def _print_answer(number: int, answer: Answer, part: Partition) -> None:
    words = []
    for name, array in answer.outputs.items():
        top = _top(array, part, 1)
        first = (
            "x".join(map(str, array.shape))
            if top is None
            else (top[0]["label"] or f"class {top[0]['index']}")
        )
        words.append(f"{name}: {first}")
    total = console.ms(answer.timings.total_s)
    where = answer.where if answer.reason is None else f"{answer.where} ({answer.reason})"
    console.say(f"{number:4}  {', '.join(words)}  {total} ms  {where}")
