"""Statements of the page on papers beside its table, computed: thresholds and causes.

Every figure has the words in which docs/results/papers.md has it, so that the page, the
script and the planner cannot part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import numpy as np

from midstream_lab.papers import devices, networks
from midstream_lab.papers.cases import LINKS, dads_classifiers, dads_yolo, quoted_cut
from midstream_lab.papers.study import Case, Reported, decide, link_of, positions_of
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.graph.graph import Graph

#: Precision of a threshold that is searched for.
_PRECISION = 1e-6
#: Where the curve of the input ends in DADS's figure 3.
FIGURE_3_S = 0.366


@final
@dataclass(frozen=True, slots=True)
class Statement:
    """A figure, what it says, and its words on the page."""

    says: str
    value: float
    words: str


def statements() -> tuple[Statement, ...]:
    """All of them, in the page's order."""
    return (
        *_declared(),
        *_thresholds(),
        *_changeovers(),
        *_at_18_mbit(),
        *_yolo_over_3g(),
        *_vgg_over_3g(),
        *_alexnet_over_3g(),
        *_classifiers(),
        *_vgg_on_the_gpu(),
    )


def changeovers(case: Case) -> list[tuple[str, float]]:
    """The best cut on a chain of layers, from the slowest uplink up, and the rate in bit/s up
    to which it is; the last one has no end.

    Prices are straight lines over seconds a bit; from the fastest uplink on, the next best is
    the line below that is met first.
    """
    table = positions_of(case)
    own_s, slopes = table.head_s + table.tail_s, table.up_nbytes * 8
    names = [CLOUD_ONLY, *(node.name for node in case.graph.nodes[:-1]), EDGE_ONLY]
    at, x = int(np.argmin(own_s)), 0.0
    found = [(names[at], np.inf)]
    while True:
        flatter = slopes < slopes[at]
        if not flatter.any():
            return found[::-1]
        meets = np.full(len(slopes), np.inf)
        meets[flatter] = (own_s[flatter] - own_s[at]) / (slopes[at] - slopes[flatter])
        at = int(np.argmin(meets))
        x = float(meets[at])
        found.append((names[at], 1 / x))


def threshold(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return where `holds`, which is false at `low` and true at `high`, becomes true."""
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _declared() -> Iterator[Statement]:
    graph = networks.tiny_yolov2()
    for rates, own, side in (
        (devices.PI_3B, devices.PI_3B_YOLO, "edge"),
        (devices.ALI_CLOUD, devices.ALI_CLOUD_YOLO, "cloud"),
    ):
        below = 1 - sum(rates.seconds(graph)) / sum(own.seconds(graph))
        says = f"tiny YOLOv2 by rates, below the sum of its own times, {side}"
        yield Statement(says, below, f"{below * 100:.0f} % ({side})")
    alexnet = networks.caffe_alexnet()
    seconds = devices.tk1_gpu().seconds(alexnet)
    names = [node.name for node in alexnet.nodes]
    share = seconds[names.index("fc6")] / sum(seconds)
    yield Statement("fc6's share of AlexNet's time on the TK1's GPU", share, _percent(share))


def _thresholds() -> Iterator[Statement]:
    for picture in ("uint8", "float32"):
        share = threshold(partial(_is_pool5, picture), 0.01, devices.CONV_SHARE)
        yield Statement(
            f"AlexNet over Wi-Fi is cut behind pool5 from this share of the peak, {picture}",
            share,
            f"{share * 100:.1f} %",
        )
        if picture == "uint8":
            flops = share * devices.TK1_GPU_FLOPS_PER_S
            yield Statement("the same in FLOP/s", flops, f"{flops / 1e9:.0f} GFLOP/s")
    memory = threshold(
        lambda share: decide(quoted_cut(memory_share=share)).choice == EDGE_ONLY, 0.5, 1.0
    )
    yield Statement(
        "edge-only wins from this share of the memory's nominal rate", memory, _percent(memory)
    )


def _is_pool5(picture: str, conv_share: float) -> bool:
    return decide(quoted_cut(conv_share, picture)).choice == "pool5"


def _changeovers() -> Iterator[Statement]:
    for cut, up_to_bps in changeovers(dads_yolo()[0])[:-1]:
        says = f"tiny YOLOv2 is best cut at {cut} up to this uplink, bit/s"
        yield Statement(says, up_to_bps, f"{cut}, {up_to_bps / 1e6:.3g}")


def _at_18_mbit() -> Iterator[Statement]:
    case = dads_yolo()[0]
    cloud_s = sum(case.cloud.seconds(case.graph))
    edge_bps = case.graph.tensors["input"].nbytes * 8 / (FIGURE_3_S - cloud_s)
    yield Statement("the right edge of DADS's figure 3, bit/s", edge_bps, _megabits(edge_bps))
    for uplink_bps, cuts in (
        (18e6, (CLOUD_ONLY, "max3")),
        (edge_bps, (CLOUD_ONLY, "max3", "max4", "max5")),
    ):
        for cut in cuts:
            price_s = _price_s(replace(case, uplink_bps=uplink_bps), cut)
            says = f"tiny YOLOv2 cut at {cut}, {_megabits(uplink_bps)}, seconds"
            yield Statement(says, price_s, f"{price_s:.3f}")
    meet_bps = _meet_bps(case, CLOUD_ONLY, "max5")
    yield Statement(
        "the input and max5 cost tiny YOLOv2 alike, bit/s", meet_bps, _megabits(meet_bps)
    )


def _yolo_over_3g() -> Iterator[Statement]:
    case = next(each for each in dads_yolo() if each.link == "3G")
    found = decide(case)
    share = found.edge_only_s / found.cloud_only_s
    yield Statement("tiny YOLOv2 over 3G, edge-only to cloud-only", share, f"{share:.3f}")
    yield Statement("the best cut there, seconds", found.latency_s, f"{found.latency_s:.2f} s")
    assert case.reported.over_edge is not None
    implied_s = found.edge_only_s / case.reported.over_edge
    yield Statement("what figure 12 implies, seconds", implied_s, f"{implied_s:.2f} s")
    sent_s = case.graph.tensors["max5"].nbytes * 8 / case.uplink_bps
    yield Statement("of it, the transfer, seconds", sent_s, f"{sent_s:.2f} s")


def _vgg_over_3g() -> Iterator[Statement]:
    case = _classifier("VGG-16", "3G")
    inside_s = float(np.min(positions_of(case).price_s(link_of(case))[1:-1]))
    yield Statement(
        "VGG-16 over 3G, the least a cut inside takes", inside_s, f"{inside_s:.1f} s"
    )
    found = decide(case)
    yield Statement("cloud-only there, seconds", found.latency_s, f"{found.latency_s:.1f} s")
    yield Statement("over edge-only", found.over_edge, f"{found.over_edge:.2f}")
    weights_nbytes = sum(node.weight_nbytes for node in case.graph.nodes)
    yield Statement(
        "VGG-16's weights, bytes", weights_nbytes, f"{weights_nbytes / 1e6:.0f} MB"
    )


def _alexnet_over_3g() -> Iterator[Statement]:
    case = _classifier("AlexNet (two towers)", "3G")
    found = decide(case)
    sent_s = case.graph.tensors["input"].nbytes * 8 / case.uplink_bps
    yield Statement("AlexNet's input over 3G, seconds", sent_s, f"{sent_s:.1f} s")
    edge_s = found.edge_only_s
    yield Statement("AlexNet, edge-only at figure 7's rate", edge_s, f"{edge_s:.1f} s")
    for graph in (case.graph, networks.tiny_yolov2()):
        flops = _flops(graph)
        says = f"operations of {graph.name}"
        yield Statement(says, flops, f"{flops / 1e9:.1f} GFLOP")
    reported = case.reported
    assert reported.over_edge is not None
    assert reported.over_cloud is not None
    ratio = reported.over_edge / reported.over_cloud
    yield Statement("figure 12, edge-only to cloud-only", ratio, f"{ratio:.2f}")
    tail_s = found.cloud_only_s - sent_s
    uplink_bps = case.graph.tensors["input"].nbytes * 8 / (edge_s / ratio - tail_s)
    yield Statement(
        "the uplink that this ratio needs, bit/s", uplink_bps, f"{uplink_bps / 1e6:.0f} Mbit/s"
    )
    slow_s = ratio * found.cloud_only_s
    yield Statement("or edge-only, seconds", slow_s, f"{slow_s:.0f} s")
    for link in ("4G", "Wi-Fi"):
        towers = _classifier("AlexNet (two towers)", link)
        ordered_s = float(positions_of(towers).price_s(link_of(towers)).min())
        gain = ordered_s / decide(towers).latency_s
        says = f"a cut through both towers over the best of tower by tower, {link}"
        yield Statement(says, gain, f"{gain:.2f} times")


def _classifiers() -> Iterator[Statement]:
    for graph in (networks.vgg16(), networks.resnet18()):
        share = share_before_smaller(graph)
        says = f"arithmetic of {graph.name} before a tensor is smaller than the input"
        yield Statement(says, share, f"{share * 100:.0f} % of {graph.name}")


def _vgg_on_the_gpu() -> Iterator[Statement]:
    graph = networks.vgg16()
    convs = sum(node.flops for node in graph.nodes if node.op_type == "Conv")
    peak_s = convs / devices.TK1_GPU_FLOPS_PER_S
    yield Statement(
        "VGG-16's convolutions at the GPU's peak", peak_s, f"{peak_s * 1e3:.0f} ms"
    )
    edge = devices.tk1_gpu()
    rest_s = sum(edge.seconds(graph)) - convs / edge.conv_flops_per_s
    for picture in ("uint8", "float32"):
        case = replace(
            quoted_cut(), graph=networks.vgg16(picture), reported=Reported(), link="3G"
        )
        cloud_s = decide(replace(case, uplink_bps=LINKS["3G"])).cloud_only_s
        wanted_s = cloud_s / 20
        says = f"a twentieth of cloud-only over 3G, {picture} pictures"
        yield Statement(says, wanted_s, f"{wanted_s * 1e3:.0f} ms")
        if picture == "float32":
            share = peak_s / (wanted_s - rest_s)
            yield Statement("for which convolutions reach so much of the peak", share,
                            _percent(share))  # fmt: skip


def share_before_smaller(graph: Graph) -> float:
    """Of a network's arithmetic, what lies before the first place where less crosses than the
    input has."""
    nothing = devices.Rates("nothing", 1.0, 1.0)
    case = Case(paper="", graph=graph, edge=nothing, cloud=nothing, link="", uplink_bps=1.0)
    crossing = positions_of(case).up_nbytes
    first = int(np.argmax(crossing < graph.tensors["input"].nbytes))
    return sum(node.flops for node in graph.nodes[:first]) / _flops(graph)


def _classifier(name: str, link: str) -> Case:
    return next(
        each for each in dads_classifiers() if (each.graph.name, each.link) == (name, link)
    )


def _price_s(case: Case, cut: str) -> float:
    price_s = decide(replace(case, reported=Reported(cut))).reported_s
    assert price_s is not None
    return price_s


def _meet_bps(case: Case, one: str, other: str) -> float:
    """The uplink at which two cuts cost the same, from their prices at two uplinks."""
    slow, fast = (replace(case, uplink_bps=bps) for bps in (1e6, 1e9))
    gaps = [_price_s(each, one) - _price_s(each, other) for each in (slow, fast)]
    per_bit = (gaps[0] - gaps[1]) / (1e-6 - 1e-9)
    return -per_bit / (gaps[1] - per_bit * 1e-9)


def _flops(graph: Graph) -> int:
    return sum(node.flops for node in graph.nodes)


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _megabits(rate_bps: float) -> str:
    return f"{rate_bps / 1e6:.1f} Mbit/s"
