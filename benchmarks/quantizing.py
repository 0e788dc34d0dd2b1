"""Whether quantizing inside the graph is free, and what a transform costs.

    python benchmarks/quantizing.py [--json] [--rounds 60]

From a head's last tensor to one byte per element, on one thread: numpy, as the codec int8 does
it; an adapter, an onnxruntime session of its own behind the head (QuantizeLinear with a fixed
scale, DynamicQuantizeLinear, a cast to half precision); and the head compiled with the same at
its end, against the head as it is. Beside them the KLT, an adapter too. The head is three
convolutions of a ResNet's first stage with random weights. Medians of interleaved rounds, so
that what else the machine does falls on all alike; the ratios travel to other machines,
milliseconds do not.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.graph.cuts import position_cuts
from midstream_partitioner.intake.onnx_model import load_network
from midstream_partitioner.partition.cutting import partition
from midstream_partitioner.partition.partition import Partition, with_transforms
from midstream_partitioner.transforms.klt import klt, spectrum_of
from midstream_wire.codecs import codec, encode_bytes
from midstream_wire.tensors import Array

#: What crosses: 800 KB, or 200 KB, of float32.
SHAPES = {"800 KB": (1, 64, 56, 56), "200 KB": (1, 64, 28, 28)}
SCALE = 0.05


def make_head(shape: tuple[int, ...], *, depth: int = 3) -> onnx.ModelProto:
    """`depth` convolutions of 64 channels with a ReLU each, from h0 to the tensor h<depth>."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for at in range(depth):
        values = rng.standard_normal((64, 64, 3, 3)) * np.sqrt(2 / (64 * 9))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{at}"))
        nodes.append(
            helper.make_node("Conv", [f"h{at}", f"w{at}"], [f"c{at}"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"h{at + 1}"]))
    nodes.append(helper.make_node("Neg", [f"h{depth}"], ["y"]))  # a tail
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("h0", "y")]
    return _model(nodes, ends[:1], ends[1:], weights)


def quantizer(name: str, given: str, made: str) -> tuple[list[Any], list[Any], list[Any]]:
    """Nodes, outputs and weights that turn float32 `given` into uint8 or float16 `made`."""
    if name == "Cast":
        half = helper.make_tensor_value_info(made, TensorProto.FLOAT16, None)
        return [helper.make_node(name, [given], [made], to=TensorProto.FLOAT16)], [half], []
    output = helper.make_tensor_value_info(made, TensorProto.UINT8, None)
    if name == "DynamicQuantizeLinear":
        made_values = [made, "scale", "zero"]
        extra = [
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("zero", TensorProto.UINT8, []),
        ]
        return [helper.make_node(name, [given], made_values)], [output, *extra], []
    weights = [
        numpy_helper.from_array(np.array(SCALE, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.uint8), "zero"),
    ]
    return [helper.make_node(name, [given, "scale", "zero"], [made])], [output], weights


def fused(head: bytes, tensor: str, name: str) -> Executor:
    """The head with a quantizer at its end, as one session."""
    model = onnx.load_model_from_string(head)
    nodes, outputs, weights = quantizer(name, tensor, "q")
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return Executor(model.SerializeToString())


def adapter(shape: tuple[int, ...], name: str) -> Executor:
    """The quantizer as a session of its own."""
    nodes, outputs, weights = quantizer(name, "x", "q")
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    return Executor(_model(nodes, given, outputs, weights).SerializeToString())


def with_klt(part: Partition, sample: Array, components: int) -> Chain:
    (tensor,) = part.cuts[1].tensors
    transform = klt(part, 1, tensor, *spectrum_of([sample]).keep(components))
    return Chain(with_transforms(part, [transform]))


def in_numpy(array: Array, scratch: Array) -> Array:
    """The arithmetic of int8 without its format: scale, round, narrow; range included."""
    scale = (array.max() - min(array.min(), np.float32(0))) / np.float32(255)
    np.multiply(array, np.float32(1) / scale, out=scratch)
    np.rint(scratch, out=scratch)
    return scratch.astype(np.uint8)


def measure(shape: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    network = load_network(make_head(shape).SerializeToString(), name="head")
    cuts = [cut for cut in position_cuts(network.graph) if cut.tensors == ("h3",)]
    part = partition(network, cuts)
    head = part.segments[0].model
    x = np.maximum(np.random.default_rng(1).standard_normal(shape), 0).astype(np.float32)
    plain = Executor(head)
    made = plain.run({"h0": x})["h3"]
    scratch = np.empty_like(made)
    static, dynamic = "QuantizeLinear", "DynamicQuantizeLinear"
    ways: dict[str, Callable[[], object]] = {"head": lambda: plain.run({"h0": x})}
    for name in (static, dynamic, "Cast"):
        whole, own = fused(head, "h3", name), adapter(shape, name)
        ways[f"head with {name}"] = lambda run=whole.run: run({"h0": x})
        ways[f"adapter: {name}"] = lambda run=own.run: run({"x": made})
    ways["numpy: arithmetic"] = lambda: in_numpy(made, scratch)
    ways["numpy: cast"] = lambda: made.astype(np.float16)
    lossless = codec("lossless")
    for name, kind in (("int8", codec("int8")), ("half", codec("half"))):
        ways[f"codec {name}"] = lambda kind=kind: encode_bytes(kind, made)
    codes, halves = (adapter(shape, name).run({"x": made})["q"] for name in (static, "Cast"))
    ways["lossless of the codes"] = lambda: encode_bytes(lossless, codes)
    ways["lossless of the halves"] = lambda: encode_bytes(lossless, halves)
    for components in (64, 16):
        pair = with_klt(part, made, components).transform(1, f"klt:{components}")
        sent = pair.encode({"h3": made})
        ways[f"klt:{components} encoder"] = lambda run=pair.encode: run({"h3": made})
        ways[f"klt:{components} decoder"] = lambda run=pair.decode, s=sent: run(s)
    times = _interleaved(ways, rounds)
    head_s = times["head"][0]
    return [
        {
            "way": way,
            "median_s": median_s,
            "low_s": low_s,
            "high_s": high_s,
            "beyond_head_s": median_s - head_s if way.startswith("head with") else median_s,
        }
        for way, (median_s, low_s, high_s) in times.items()
    ]


def _model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: list[Any]
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _interleaved(
    ways: dict[str, Callable[[], object]], rounds: int
) -> dict[str, tuple[float, float, float]]:
    """Median, lower and upper decile of each way's seconds."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for done in range(-3, rounds):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if done >= 0:
                times[name].append(time.perf_counter() - started)
    return {
        name: (statistics.median(found), *np.quantile(found, (0.1, 0.9)).tolist())
        for name, found in times.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    found = {name: measure(shape, options.rounds) for name, shape in SHAPES.items()}
    if options.json:
        print(json.dumps(found))
        return 0
    versions = f"numpy {np.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"Python {platform.python_version()}, {versions}, {platform.machine()}, one thread")
    for name, rows in found.items():
        print(f"\n{name:28}{'ms':>9}{'p10':>9}{'p90':>9}{'beyond the head':>17}")
        for row in rows:
            figures = (row["median_s"], row["low_s"], row["high_s"])
            shown = "".join(f"{1e3 * value:9.3f}" for value in figures)
            print(f"{row['way']:28}{shown}{1e3 * row['beyond_head_s']:17.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
