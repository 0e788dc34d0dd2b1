"""Measuring a device: each layer of a network, each segment of a partition, each codec.

Layers are for people and for choosing cuts; plans rest on segments as they really run, because
the sum of layers is not the time of a fused graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import mean
from typing import final

import onnx

from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.codec_spec import full_id
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.profile import CodecCost, Layer, LayerProfile, Profile, Stat
from midstream_partitioner.costs.sizes import bind_sizes
from midstream_partitioner.execution.chain import ONNXRUNTIME, Chain, State
from midstream_partitioner.execution.crossing import decode_crossing, encode_crossing
from midstream_partitioner.intake.onnx_model import Network
from midstream_partitioner.onnx_tools.serializing import serialized
from midstream_partitioner.partition.partition import Partition
from midstream_partitioner.profiling.codec_ladder import (
    LADDER,
    calibrated_codecs,
    codecs_at,
    usual_codecs,
)
from midstream_partitioner.profiling.fused_nodes import attribute, fused_into, owners_of
from midstream_partitioner.profiling.rounds import PAUSE_S, time_rounds, walk
from midstream_wire.tensors import Array
from midstream_wire.transfers import encode_output

#: Called with the number of steps done and the number of steps in all.
Progress = Callable[[int, int], None]

#: Codecs are timed on so many samples, and their payloads sized on so many: sizes differ from
#: picture to picture far more than times do (four photos of ten missed their mean by 7 %).
TIMED, SIZED = 4, 16


#: Seconds for timing codecs that a calibration knows beyond these, at all cuts together.
FURTHER_S = 30.0


def no_progress(done: int, total: int) -> None:
    """Say nothing."""


def profile_layers(
    network: Network,
    inputs: State,
    device: Device,
    *,
    runs: int = 20,
    backend: Backend = ONNXRUNTIME,
    progress: Progress = no_progress,
) -> LayerProfile:
    """Time every node of `network` on `inputs`.

    The backend times the nodes of a run in which they keep their names; the
    figures are then scaled so that they add up to the network as it really runs, with every
    optimisation. Nodes that were fused into another are given no time of their own.
    """
    model = serialized(
        network.model,
        what="a model that is measured layer by layer",
        advice="partition it with --no-measure, and profile or verify the partition",
    )
    device = replace(device, backend=backend.name)
    runner = backend.compile(model, threads=device.threads)
    steps = runs + 2

    def run() -> None:
        made = runner.run({name: backend.upload(array) for name, array in inputs.items()})
        for value in made.values():
            backend.download(value)

    whole = _sample(run, runs, lambda n, _: progress(n, steps))
    optimised, kernels = backend.trace(model, inputs, threads=device.threads, runs=runs)
    owners = owners_of(network.graph, onnx.load_model_from_string(optimised).graph)
    per_node = attribute(network.graph, owners, kernels[len(kernels) // 4 :])
    progress(steps, steps)
    total = Stat.of(whole)
    measured = sum(Stat.of(samples).median_s for samples in per_node if samples) or 1.0
    scale = device.slowdown * total.median_s / measured
    fused = fused_into(network.graph, owners)
    layers = tuple(
        Layer(
            name=node.name,
            op_type=node.op_type,
            time=Stat.of(samples or [0.0]).scaled(scale),
            fused_into=fused.get(node.index),
        )
        for node, samples in zip(network.graph.nodes, per_node, strict=True)
    )
    return LayerProfile(device, network.graph.digest, layers, total.scaled(device.slowdown))


def profile_segments(
    chain: Chain,
    samples: Sequence[State],
    device: Device,
    *,
    runs: int = 20,
    codecs: Sequence[str] | None = None,
    further_s: float = FURTHER_S,
    segments: tuple[Stat, ...] | None = None,
    progress: Progress = no_progress,
) -> Profile:
    """Time the segments that `chain` holds, and every codec at every cut they reach.

    `samples` are inputs of the network, alike in their open dimensions (`profile_sizes` takes
    others): the first `TIMED` are timed, and payload sizes are
    means over all. The chain must start at the first segment. Times are taken at full speed
    and then multiplied by the device's slowdown.

    Without `codecs`, the usual ones are timed. What the partition's calibration knows beyond
    `codecs` is timed, too, within `further_s` seconds; for what is left a plan scales the
    calibrating machine's times. `segments` are their times where they were taken already.
    """
    chain = chain.at_speed(1.0)
    partition = chain.partition
    last = chain.last
    walks = [walk(chain, sample) for sample in samples[:TIMED]]
    steps = runs + 1 + last
    if segments is None:
        (segments,) = time_rounds(chain, [walks], runs, progress=lambda n: progress(n, steps))
    crossed = _crossing_nbytes(partition, walks)
    codecs = usual_codecs() if codecs is None else codecs
    costs = _profiled(chain, walks, codecs, further_s, lambda k: progress(runs + 1 + k, steps))
    costs = _resized(chain, costs, samples[TIMED:])
    progress(steps, steps)
    here = Profile(
        device=replace(device, slowdown=1.0, backend=chain.backend.name),
        graph_digest=partition.graph_digest,
        partition_digest=partition.digest,
        segments=segments,
        codecs=tuple(costs),
        replies_nbytes=_replies_nbytes(partition, walks),
        crossings_nbytes=crossed,
        sizes=bind_sizes(partition.inputs, samples[0]),
    )
    return here.slowed(device.slowdown)


def _crossing_nbytes(
    partition: Partition, walks: Sequence[list[dict[str, Array]]]
) -> tuple[int, ...]:
    """By cut, the most bytes that what crosses it takes before any codec."""
    return tuple(
        max(sum(state[name].nbytes for name in cut.tensors) for state in states)
        for cut, states in zip(partition.cuts, zip(*walks, strict=True), strict=False)
    )


def _replies_nbytes(
    partition: Partition, walks: Sequence[list[dict[str, Array]]]
) -> tuple[int, ...]:
    """By cut, the mean payload of the reply, as a server sends it.

    A chain that lacks the last segments makes no answers: then it is their nominal size.
    """
    ends = [walk[-1] for walk in walks]
    names = [spec.name for spec in partition.outputs]
    if all(name in state for state in ends for name in names):
        sent = [
            {name: sum(map(len, encode_output(state[name]))) for name in names}
            for state in ends
        ]
    else:
        sent = [{spec.name: spec.nominal_nbytes for spec in partition.outputs}]
    replies = (partition.outputs_from(k) for k in range(len(partition.cuts)))
    return tuple(
        round(mean(sum(each[spec.name] for spec in reply) for each in sent))
        for reply in replies
    )


def _profiled(
    chain: Chain,
    walks: Sequence[Sequence[State]],
    codecs: Sequence[str],
    further_s: float,
    progress: Callable[[int], None],
) -> list[CodecCost]:
    """The costs of `codecs`, and of as many calibrated ones as the time allows, by cut."""
    part = chain.partition
    usual = tuple(dict.fromkeys(map(full_id, codecs)))
    states = [
        [walk[k] for walk in walks] for k in range(min(chain.last + 1, len(part.segments)))
    ]
    costs: list[CodecCost] = []
    for k, each in enumerate(states):
        costs += _codec_costs(chain, k, each, usual)
        progress(k)
    further = [name for name in calibrated_codecs(part) if name not in usual]
    until_s = time.monotonic() + further_s
    for name, (k, each) in product(further, enumerate(states)):
        if time.monotonic() < until_s:
            costs += _codec_costs(chain, k, each, [name])
    index_of = {cut.id: k for k, cut in enumerate(part.cuts)}
    return sorted(costs, key=lambda cost: index_of[cost.cut])


def profile_codecs(
    chain: Chain,
    samples: Sequence[State],
    *,
    codecs: Sequence[str] = LADDER,
    cuts: Collection[str] | None = None,
    progress: Progress = no_progress,
) -> tuple[CodecCost, ...]:
    """Time every codec at every cut of a whole chain, or at those named, at full speed."""
    chain = chain.at_speed(1.0)
    walks = [walk(chain, sample) for sample in samples]
    costs: list[CodecCost] = []
    for k in range(chain.last):
        if cuts is None or chain.partition.cuts[k].id in cuts:
            costs += _codec_costs(chain, k, [walk[k] for walk in walks], codecs)
        progress(k + 1, chain.last)
    return tuple(costs)


def _sample(run: Callable[[], object], runs: int, progress: Progress) -> list[float]:
    """Seconds of each of `runs` calls, after an eighth as many (or two) for warming up."""
    for _ in range(max(2, runs // 8)):
        run()
    times = []
    for done in range(runs):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
        progress(done + 1, runs)
    return times


def _codec_costs(
    chain: Chain,
    k: int,
    states: Sequence[State],
    codecs: Sequence[str],
) -> Iterator[CodecCost]:
    """Cost of each codec that takes at least one of the tensors crossing cut `k`."""
    for name in codecs_at(chain.partition, k, states[0], codecs):
        sizes, encodes, decodes = [], [], []
        for state in states:
            for _ in range(max(1, 5 // len(states))):
                time.sleep(PAUSE_S / 5)
                made = exchange(chain, k, state, name)
                encodes.append(made.encode_s)
                decodes.append(made.decode_s)
            sizes.append(made.payload_nbytes)
        yield CodecCost(
            cut=chain.partition.cuts[k].id,
            codec=name,
            payload_nbytes=round(sum(sizes) / len(sizes)),
            encode_s=Stat.of(encodes).median_s,
            decode_s=Stat.of(decodes).median_s,
            payloads_nbytes=tuple(sizes),
        )


def _resized(
    chain: Chain, costs: list[CodecCost], further: Sequence[State]
) -> list[CodecCost]:
    """`costs`, told of the payloads of further samples; not where a calibration knows them."""
    found = chain.partition.calibration
    sizes = [list(cost.payloads_nbytes) for cost in costs]
    position = {cut.id: k for k, cut in enumerate(chain.partition.cuts)}
    for sample in further:
        states = walk(chain, sample)  # one at a time: all states of a large network are large
        for index, cost in enumerate(costs):
            if found is not None and found.find(cost.cut, cost.codec):
                continue
            k = position[cost.cut]
            sizes[index].append(encode_crossing(chain, k, cost.codec, states[k]).nbytes)
    return [
        replace(cost, payload_nbytes=round(sum(each) / len(each)), payloads_nbytes=tuple(each))
        for cost, each in zip(costs, sizes, strict=True)
    ]


@final
@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange over a cut, encoded and decoded: bytes, seconds, and what arrives."""

    payload_nbytes: int
    encode_s: float
    decode_s: float
    delivered: dict[str, Array]


def exchange(chain: Chain, k: int, state: State, codec: str) -> Exchange:
    """Send what crosses cut `k` to ourselves with `codec`, through its transform and back.

    Tensors that the codec does not take travel losslessly beside the others; where a
    transform meets a NaN or an infinity, everything travels without it.
    """
    started = time.perf_counter()
    sent = encode_crossing(chain, k, codec, state)
    encoded = time.perf_counter()
    delivered = decode_crossing(chain, k, sent)
    decoded = time.perf_counter()
    return Exchange(sent.nbytes, encoded - started, decoded - encoded, delivered)
