"""Measuring a calibration: samples through every cut of a partition and every codec.

Every sample is encoded on its own, because a codec's parameters and sizes are those of one
request. Only the network runs in batches, where its batch axis is open and batches give what
single samples do. Heads run once per sample: the chain is walked from cut to cut.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
import xxhash

from midstream_partitioner.compare import relative_error
from midstream_partitioner.costs.calibration import (
    PARTIAL_FILE,
    TOP1,
    Calibration,
    Fidelity,
)
from midstream_partitioner.execution.chain import Chain, State
from midstream_partitioner.inputs.arrays import load_arrays
from midstream_partitioner.profiling.answer_metrics import (
    Metric,
    deviation,
    mean_of,
    points_lost,
    rank_scores,
    score_answer,
    scores_output,
)
from midstream_partitioner.profiling.codec_ladder import codecs_at, ladder_of
from midstream_partitioner.profiling.dataset import Data
from midstream_partitioner.profiling.profiler import Progress, exchange, no_progress
from midstream_wire.errors import MidstreamError, UsageError
from midstream_wire.tensors import Array, TensorSpec

#: Samples in one run of the network, and bytes of what crosses in it: enough that a small
#: network's time goes into arithmetic, little enough to stay in a processor's caches.
MOST_AT_ONCE = 32
BATCH_NBYTES = 8 << 20

#: How often what is done is written down.
SAVE_EVERY_S = 3.0

#: How far a batch's answers may lie from single samples': other kernels, reordered sums.
SAME = 1e-4

_STATS = (
    *("nbytes", "elements", "encode", "decode"),
    *("l2", "cosine", "agreement", "score", "top5"),
)
(_NBYTES, _ELEMENTS, _ENCODE, _DECODE, _L2, _COSINE, _AGREEMENT, _SCORE, _TOP5) = range(
    len(_STATS)
)


def calibrate(
    chain: Chain,
    data: Data,
    *,
    codecs: Sequence[str] | None = None,
    metric: Metric | None = None,
    folder: Path | None = None,
    progress: Progress = no_progress,
) -> Calibration:
    """Run `data` through every cut of the whole `chain` with every codec that fits there.

    Without `codecs`, the whole ladder. What an interrupted call left in `folder` is taken up
    again if partition, data and settings are the same. Raises `UsageError` for labels that
    do not fit the network's outputs.
    """
    part = chain.partition
    if data.generated and metric is not None:
        raise UsageError("a metric needs data to be measured on: give --data")
    names = ladder_of(part) if codecs is None else codecs
    work = _Work(chain.at_speed(1.0), data, names, metric)
    partial = None if folder is None else _Partial(folder / PARTIAL_FILE, work)
    done = 0 if partial is None else partial.load(work)
    total = len(data.inputs)
    saved_s = time.monotonic()
    try:
        while done < total:
            progress(done, total)
            done = work.advance(done)
            if partial is not None and time.monotonic() - saved_s > SAVE_EVERY_S:
                partial.save(work, done)
                saved_s = time.monotonic()
    finally:
        if partial is not None and done < total:
            partial.save(work, done)
    progress(total, total)
    return Calibration(
        graph_digest=part.graph_digest,
        partition_digest=part.digest,
        data=data.source,
        generated=data.generated,
        samples=total,
        metric=work.metric_name,
        whole=work.whole_score(),
        rows=tuple(work.rows()),
    )


@final
class _Work:
    """The samples, and what was found so far: [sample, row, stat], NaN where nothing was."""

    def __init__(
        self, chain: Chain, data: Data, codecs: Sequence[str], metric: Metric | None
    ) -> None:
        self.data = data
        self._chain = chain
        self._last = len(chain.partition.segments)
        self._metric = metric
        self._scores = scores_output(chain.partition) if self._ranks else None
        first = self._walk(data.inputs[0])
        self.entries = [
            (k, name)
            for k in range(self._last)
            for name in codecs_at(chain.partition, k, first[k], codecs)
        ]
        self.size = _batch_size(chain, data.inputs, first)
        self.found = np.full((len(data.inputs), len(self.entries), len(_STATS)), np.nan)
        self.whole = np.full((len(data.inputs), 2), np.nan)

    @property
    def _ranks(self) -> bool:
        """Return True if accuracy is the place of a label among the scores."""
        return self.data.labels is not None and self._metric is None

    @property
    def metric_name(self) -> str | None:
        if self._metric is not None:
            return self._metric.name
        return TOP1 if self._ranks else None

    def settings(self) -> dict[str, object]:
        """Return what a partial result must agree in to be gone on from."""
        return {
            "partition": self._chain.partition.digest,
            "data": self.data.digest(),
            "samples": len(self.data.inputs),
            "entries": self.entries,
            "metric": self.metric_name,
            "stats": _STATS,
        }

    def advance(self, done: int) -> int:
        """Measure the next batch of samples; returns how many are done then."""
        span = range(done, min(done + self.size, len(self.data.inputs)))
        samples = [self.data.inputs[at] for at in span]
        states = self._walk(_stacked(samples))
        outputs = self._outputs(states[-1], _stacked(samples))
        reference = _unstacked(outputs, len(samples))
        rows = slice(span.start, span.stop)
        known: dict[tuple[int, str], list[dict[str, Array]]] = {}
        if not self.data.generated:
            self.whole[rows] = self._judge(reference, reference, span)
        for index, (k, name) in enumerate(self.entries):
            singles = _unstacked(
                {spec.name: states[k][spec.name] for spec in self._crossing(k)}, len(samples)
            )
            sent = [exchange(self._chain, k, single, name) for single in singles]
            at = self.found[rows, index]
            at[:, _NBYTES] = [each.payload_nbytes for each in sent]
            at[:, _ELEMENTS] = [sum(a.size for a in single.values()) for single in singles]
            at[:, _ENCODE : _DECODE + 1] = [(each.encode_s, each.decode_s) for each in sent]
            if self.data.generated:
                continue
            delivered = [each.delivered for each in sent]
            # Codecs that deliver the same bits get the same answers: all that are lossless,
            # and those that only code the same quantized values in other ways.
            known.setdefault((k, _digest(singles)), reference)
            key = (k, _digest(delivered))
            if key not in known:
                known[key] = self._answers(k, states[k], delivered, _stacked(samples))
            made = known[key]
            at[:, _L2 : _AGREEMENT + 1] = [
                deviation(*pair) for pair in zip(reference, made, strict=True)
            ]
            at[:, _SCORE : _TOP5 + 1] = self._judge(made, reference, span)
        return span.stop

    def _crossing(self, k: int) -> tuple[TensorSpec, ...]:
        return self._chain.partition.crossing(k)

    def _walk(self, sample: State) -> list[State]:
        """The state in front of every segment, and the one after the last."""
        states = [sample]
        for k in range(self._last):
            states.append(self._chain.run(states[-1], k, k + 1))
        return states

    def _outputs(self, state: State, inputs: State) -> dict[str, Array]:
        known = {**inputs, **state}
        return {spec.name: known[spec.name] for spec in self._chain.partition.outputs}

    def _answers(
        self, k: int, state: State, delivered: Sequence[State], inputs: State
    ) -> list[dict[str, Array]]:
        """Return what the tail makes of what was delivered, with the outputs of the head."""
        received = {**state, **_stacked(delivered)}
        made = self._chain.run(received, k, self._last)
        return _unstacked(self._outputs(made, inputs), len(delivered))

    def _judge(
        self,
        answers: Sequence[Mapping[str, Array]],
        reference: Sequence[Mapping[str, Array]],
        span: range,
    ) -> list[tuple[float, float]]:
        """(score, top-5) by sample: what the metric says, or how the labels come out."""
        labels = self.data.labels
        if self._metric is not None:
            told = [labels[at] for at in span] if labels is not None else reference
            return [
                (score_answer(self._metric, *pair), np.nan)
                for pair in zip(answers, told, strict=True)
            ]
        if labels is None or self._scores is None:
            return [(np.nan, np.nan)] * len(answers)
        return [
            rank_scores(answer[self._scores], labels[at])
            for answer, at in zip(answers, span, strict=True)
        ]

    def whole_score(self) -> float | None:
        return mean_of(self.whole[:, 0])

    def rows(self) -> Iterator[Fidelity]:
        """Return what was found, by cut and codec."""
        cuts = self._chain.partition.cuts
        whole, whole5 = (mean_of(self.whole[:, column]) for column in (0, 1))
        for index, (k, name) in enumerate(self.entries):
            stats = self.found[:, index]
            score, top5 = mean_of(stats[:, _SCORE]), mean_of(stats[:, _TOP5])
            nbytes, elements = stats[:, _NBYTES], float(stats[:, _ELEMENTS].mean())
            known = not self.data.generated
            yield Fidelity(
                cut=cuts[k].id,
                codec=name,
                payload_nbytes=round(float(nbytes.mean())),
                payload_p95_nbytes=round(float(np.percentile(nbytes, 95))),
                bits_per_element=8 * float(nbytes.mean()) / elements if elements else 0.0,
                relative_l2_mean=mean_of(stats[:, _L2]),
                relative_l2_worst=float(stats[:, _L2].max()) if known else None,
                cosine=mean_of(stats[:, _COSINE]),
                agreement=mean_of(stats[:, _AGREEMENT]),
                top1=score,
                top1_loss=points_lost(whole, score),
                top5_loss=points_lost(whole5, top5),
                loss_square=mean_of((self.whole[:, 0] - stats[:, _SCORE]) ** 2),
                encode_s=float(np.median(stats[:, _ENCODE])),
                decode_s=float(np.median(stats[:, _DECODE])),
            )


@final
class _Partial:
    """An unfinished calibration, in a file: of no use with any other settings."""

    def __init__(self, path: Path, work: _Work) -> None:
        self._path = path
        text = json.dumps(work.settings(), sort_keys=True)
        self._key = hashlib.sha256(text.encode()).hexdigest()

    def load(self, work: _Work) -> int:
        """Take up what is there; the number of samples done, 0 if it does not fit."""
        try:
            kept = load_arrays(self._path)
            if str(kept["key"]) != self._key:
                return 0
            found, whole = kept["found"], kept["whole"]
        except (UsageError, KeyError):
            return 0
        done = len(found)
        if (
            done > len(work.found)
            or found.shape[1:] != work.found.shape[1:]
            or whole.shape != (done, 2)
            or found.dtype != whole.dtype
            or found.dtype != work.found.dtype
        ):
            return 0
        work.found[:done], work.whole[:done] = found, whole
        return done

    def save(self, work: _Work, done: int) -> None:
        """Write down the first `done` samples, all or nothing."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".new.npz")
        with beside.open("wb") as file:
            np.savez(file, key=self._key, found=work.found[:done], whole=work.whole[:done])
        os.replace(beside, self._path)


def _digest(states: Sequence[State]) -> str:
    whole = xxhash.xxh3_128()
    for state in states:
        for name in sorted(state):
            whole.update(np.ascontiguousarray(state[name]).view(np.uint8).data)
    return whole.hexdigest()


def _stacked(samples: Sequence[State]) -> State:
    """Samples as one batch along the first axis."""
    if len(samples) == 1:
        return samples[0]
    return {name: np.concatenate([each[name] for each in samples]) for name in samples[0]}


def _unstacked(state: State, count: int) -> list[dict[str, Array]]:
    """The samples of a batch, each still with a first axis of 1."""
    if count == 1:
        return [dict(state)]
    return [{name: array[at : at + 1] for name, array in state.items()} for at in range(count)]


def _batch_size(chain: Chain, inputs: Sequence[State], first: Sequence[State]) -> int:
    """Return how many samples to run at once: 1 unless batches prove to give the same
    answers.
    """
    part = chain.partition
    crossing = {
        spec.name: spec for k in range(len(part.segments)) for spec in part.crossing(k)
    }
    specs = [*part.inputs, *part.outputs, *crossing.values()]
    batches = {spec.shape[0] if spec.shape else None for spec in specs}
    if len(inputs) < 2 or len(batches) != 1 or not isinstance(batches.pop(), str):
        return 1
    if any(array.shape[0] != 1 for sample in inputs for array in sample.values()):
        return 1
    if not _batches_agree(chain, inputs[:2]):
        return 1
    most = max(sum(a.nbytes for a in state.values()) for state in first)
    return int(max(1, min(MOST_AT_ONCE, BATCH_NBYTES // max(most, 1))))


def _batches_agree(chain: Chain, pair: Sequence[State]) -> bool:
    """Return True if two samples at once give what they give one after the other.

    Some networks declare an open batch axis and reshape to a fixed one inside.
    """
    last = len(chain.partition.segments)
    try:
        made = _unstacked(chain.run(_stacked(pair), 0, last), 2)
        singles = [chain.run(sample, 0, last) for sample in pair]
    except (MidstreamError, ValueError):
        return False
    return all(relative_error(*each) <= SAME for each in zip(singles, made, strict=True))
