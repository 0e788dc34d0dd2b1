"""Requests one after the other: every answer told as it comes, and all as a document."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from midstream.cli import console
from midstream_edge.answers import Answer
from midstream_edge.session import EdgeSession
from midstream_partitioner.partition import Partition
from midstream_wire.tensors import Array


def send_all(
    session: EdgeSession, inputs: Sequence[dict[str, Array]], part: Partition, *, quiet: bool
) -> dict[str, Any]:
    """Send all inputs, pipelined; tell each answer as it comes."""
    answers: list[dict[str, Any]] = []

    def tell(answer: Answer) -> None:
        if not quiet:
            _print_answer(len(answers), answer, part)
        answers.append(_answer_document(len(answers), answer, part))

    pending: deque[Future[Answer]] = deque()
    for sample in inputs:
        pending.append(session.submit(sample))  # waits while too many are under way
        while pending and pending[0].done():
            tell(pending.popleft().result())
    for future in pending:
        tell(future.result())
    stats = session.stats
    if not quiet:
        console.say(
            f"{len(answers)} answers: {stats.cloud} from the cloud, {stats.edge} from the "
            f"edge, {stats.fallback} finished on the edge because the cloud failed"
        )
    return {"requests": len(inputs), "answered": len(answers), "local": stats.fallback,
            "answers": answers}  # fmt: skip


def _answer_document(number: int, answer: Answer, part: Partition) -> dict[str, Any]:
    return {
        "input": number,
        "where": answer.where,
        "reason": answer.reason,
        "cut": part.cuts[answer.k].id,
        "codec": answer.codec,
        "payload_nbytes": answer.payload_nbytes,
        "timings": answer.timings.to_dict(),
        "top": {name: _top(array, part) for name, array in answer.outputs.items()},
    }


def _top(array: Array, part: Partition) -> list[dict[str, Any]] | None:
    """The five largest entries of a row of scores, None for any other output."""
    if array.ndim != 2 or array.shape[0] != 1 or array.dtype.kind != "f":
        return None
    labels = part.feed.labels
    best = np.argsort(array[0])[::-1][:5]
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
        top = _top(array, part)
        first = (
            "x".join(map(str, array.shape))
            if top is None
            else (top[0]["label"] or f"class {top[0]['index']}")
        )
        words.append(f"{name}: {first}")
    total = console.ms(answer.timings.total_s)
    where = answer.where if answer.reason is None else f"{answer.where} ({answer.reason})"
    console.say(f"{number:4}  {', '.join(words)}  {total} ms  {where}")
