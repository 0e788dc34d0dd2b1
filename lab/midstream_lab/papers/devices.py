"""The papers' devices, declared: seconds per layer as published, or by kind of layer.

Nothing is measured here. Each figure says what it comes from; what could not be found in any
publication is an assumption, and the study varies it (docs/results/papers.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, final

from midstream_partitioner.graph.graph import Graph
from midstream_partitioner.graph.nodes import Node
from midstream_wire.errors import UsageError


class Declared(Protocol):
    """A device whose time for each layer of a network is declared."""

    @property
    def name(self) -> str:
        """The device, for people."""
        ...

    def seconds(self, graph: Graph) -> tuple[float, ...]:
        """Seconds by node index."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Rates:
    """Convolutions at a rate of arithmetic, all else at the rate at which memory is read.

    One picture at a time reads each weight of a fully connected layer once, for two
    operations: its time is that of the memory.
    """

    name: str
    conv_flops_per_s: float
    memory_bytes_per_s: float

    def seconds(self, graph: Graph) -> tuple[float, ...]:
        """Seconds by node index."""
        return tuple(self._node_s(graph, node) for node in graph.nodes)

    def _node_s(self, graph: Graph, node: Node) -> float:
        if node.op_type == "Conv":
            return node.flops / self.conv_flops_per_s
        moved = sum(graph.tensors[name].nbytes for name in (*node.inputs, *node.outputs))
        return (node.weight_nbytes + moved) / self.memory_bytes_per_s


@final
@dataclass(frozen=True, slots=True)
class Published:
    """Milliseconds by name of layer, as a paper gives them for one network."""

    name: str
    layers_ms: Mapping[str, float]

    def seconds(self, graph: Graph) -> tuple[float, ...]:
        """Seconds by node index; `UsageError` for a network other than the paper's."""
        missing = [node.name for node in graph.nodes if node.name not in self.layers_ms]
        if missing:
            raise UsageError(
                f"{self.name} has published times for {len(self.layers_ms)} layers only, and "
                f"none for {missing[0]!r} of {graph.name}: declare rates for this model"
            )
        return tuple(self.layers_ms[node.name] / 1e3 for node in graph.nodes)


# DADS, figure 7: heights of the bars in the paper's own vector graphics, divided by the
# distance of the grid's lines (0.1 s and 0.01 s). The seventeenth bar, "output", is below
# 0.2 ms on either side and left out.
_YOLO_LAYERS = (
    *(f"{kind}{index}" for index in range(1, 7) for kind in ("conv", "max")),
    *("conv7", "conv8", "conv9"),
)
_PI_MS = (
    *(63.2, 2.7, 120.0, 1.3, 108.9, 0.5, 101.6, 0.3, 99.9, 0.1),
    *(100.6, 0.3, 403.5, 805.9, 10.7),
)
_ALI_MS = (
    *(9.52, 0.96, 14.49, 0.43, 12.04, 0.21, 10.13, 0.11, 8.88, 0.05),
    *(8.59, 0.11, 32.67, 67.01, 0.88),
)

PI_3B_YOLO = Published("Raspberry Pi 3 B", dict(zip(_YOLO_LAYERS, _PI_MS, strict=True)))
ALI_CLOUD_YOLO = Published("Ali cloud, 8 cores", dict(zip(_YOLO_LAYERS, _ALI_MS, strict=True)))

# The same two devices for networks of which DADS gives no times: what conv8 (1.53 GFLOP) and
# the largest pooling (max1, 6.6 MB) of figure 7 reach.
PI_3B = Rates("Raspberry Pi 3 B", conv_flops_per_s=1.9e9, memory_bytes_per_s=2.4e9)
ALI_CLOUD = Rates("Ali cloud, 8 cores", conv_flops_per_s=2.3e10, memory_bytes_per_s=6.9e9)

# Neurosurgeon's devices by their nominal peaks, single precision and memory: Tegra K1's GPU
# (192 lanes, 852 MHz), its four Cortex-A15 (8 operations a cycle, 2.3 GHz), Tesla K40.
TK1_GPU_FLOPS_PER_S = 3.27e11
_TK1_CPU_FLOPS_PER_S = 7.36e10
_TK1_BYTES_PER_S = 1.49e10
_K40_FLOPS_PER_S = 4.29e12
_K40_BYTES_PER_S = 2.88e11

#: Assumed, as no layer times of Neurosurgeon could be found: the share of its peak that Caffe
#: reaches in convolutions of one picture, and of the memory's rate in all else.
CONV_SHARE = 0.25
MEMORY_SHARE = 0.5


def tk1_gpu(conv_share: float = CONV_SHARE, memory_share: float = MEMORY_SHARE) -> Rates:
    """Jetson TK1 computing on its GPU."""
    return Rates("TK1 GPU", TK1_GPU_FLOPS_PER_S * conv_share, _TK1_BYTES_PER_S * memory_share)


def tk1_cpu(conv_share: float = CONV_SHARE) -> Rates:
    """Jetson TK1 computing on its four cores."""
    return _of_peak("TK1 CPU", _TK1_CPU_FLOPS_PER_S * conv_share, _TK1_BYTES_PER_S)


def k40() -> Rates:
    """The server's GPU."""
    return _of_peak("Tesla K40", _K40_FLOPS_PER_S * CONV_SHARE, _K40_BYTES_PER_S)


def _of_peak(name: str, conv_flops_per_s: float, memory_bytes_per_s: float) -> Rates:
    return Rates(name, conv_flops_per_s, memory_bytes_per_s * MEMORY_SHARE)
