"""Arithmetic of each operator of ONNX and onnxruntime: one table, by definition.

A multiply-add counts two. Products, convolutions, recurrent and attention operators are exact;
a softmax or a normalisation counts the passes over its elements. What is not in the table
counts one operation per output element. `WEIGHTS` says where operators take learned weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log2, prod
from typing import Any, final

import numpy as np
import onnx

Shape = tuple[int, ...]


class UnknownShape(LookupError):
    """A count needs a shape that is not known."""


@final
@dataclass(frozen=True, slots=True)
class Call:
    """One node with the nominal shapes of its operands; None for those left out or unknown."""

    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape | None]
    attributes: Mapping[str, onnx.AttributeProto]

    def shape(self, position: int) -> Shape:
        """The shape of an input; raises `UnknownShape`."""
        found = self.inputs[position] if position < len(self.inputs) else None
        if found is None:
            raise UnknownShape(position)
        return found

    def has(self, position: int) -> bool:
        """Return True if an optional input is there, with a known shape."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def size(self, position: int) -> int:
        """Elements of an input."""
        return prod(self.shape(position))

    def made(self) -> int:
        """Elements of all outputs together."""
        return sum(prod(shape) for shape in self.outputs if shape is not None)

    def result(self) -> Shape:
        """The shape of the first output; raises `UnknownShape`."""
        if not self.outputs or self.outputs[0] is None:
            raise UnknownShape(0)
        return self.outputs[0]

    def value(self, name: str, default: Any) -> Any:
        """An attribute's value."""
        found = self.attributes.get(name)
        return default if found is None else onnx.helper.get_attribute_value(found)


Count = Callable[[Call], float]

#: Passes over the scores of an attention: maximum, difference, exponential, sum, quotient.
SOFTMAX = 5
#: Mean, difference, square, its mean, quotient, scale, shift.
NORMALISATION = 7


def _elementwise(call: Call) -> float:
    return call.made()


def _per_input(passes: int, call: Call) -> float:
    """So many operations per element of the first input: reductions, normalisations."""
    return passes * call.size(0)


def _convolution(weight: int, call: Call) -> float:
    """Weights are [M, C / group, *kernel]: each result element takes all but the first."""
    return 2 * prod(call.result()) * prod(call.shape(weight)[1:])


def _transposed_convolution(call: Call) -> float:
    """Weights are [C, M / group, *kernel]: each input element reaches all but the first."""
    return 2 * call.size(0) * prod(call.shape(1)[1:])


def _deformable_convolution(call: Call) -> float:
    """A convolution over samples, each interpolated from four with a product and a sum."""
    result, kernel = call.result(), prod(call.shape(1)[2:])
    samples = call.shape(0)[0] * call.shape(0)[1] * kernel * prod(result[2:])
    return _convolution(1, call) + 8 * samples


def product(left: Shape, right: Shape) -> int:
    """Operations of a matrix product as numpy defines it, vectors and batches included."""
    left = (1, *left) if len(left) == 1 else left
    right = (*right, 1) if len(right) == 1 else right
    if len(left) < 2 or len(right) < 2:
        raise UnknownShape(0)
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    return 2 * prod(batch) * left[-2] * left[-1] * right[-1]


def _matrix_product(left: int, right: int, call: Call) -> float:
    sides = [
        _transposed(call.shape(at), call, side) for at, side in ((left, "A"), (right, "B"))
    ]
    return product(*sides)


def _transposed(shape: Shape, call: Call, side: str) -> Shape:
    """An operand as it is multiplied: Gemm and FusedMatMul may transpose it first."""
    if len(shape) > 2 and call.value(f"transBatch{side}", 0):
        shape = (*shape[1:-1], shape[0], shape[-1])
    if len(shape) > 1 and call.value(f"trans{side}", 0):
        shape = (*shape[:-2], shape[-1], shape[-2])
    return shape


def _packed_product(call: Call) -> float:
    """Weights packed in blocks of few bits: their shape is in the attributes K and N."""
    return 2 * call.size(0) * int(call.value("N", 1))


def _einsum(call: Call) -> float:
    """Operands are contracted from left to right, as onnxruntime does it."""
    terms, output, sizes = _parse_einsum(call)
    held, total = set(terms[0]), 0
    if len(terms) == 1:
        return prod(sizes[label] for label in held)
    for at, term in enumerate(terms[1:], 1):
        together = held | set(term)
        held = together & {*output, *(label for later in terms[at + 1 :] for label in later)}
        work = prod(sizes[label] for label in together)
        total += work if held == together else 2 * work
    return total


def _parse_einsum(call: Call) -> tuple[list[list[str]], list[str], dict[str, int]]:
    """Labels of each operand and of the result, and their sizes; "..." becomes "-1", "-2"."""
    equation = call.value("equation", b"").decode().replace(" ", "")
    left, arrow, right = equation.partition("->")
    sizes: dict[str, int] = {}
    terms = []
    for position, text in enumerate(left.split(",")):
        shape = call.shape(position)
        before, dots, after = text.partition("...")
        hidden = len(shape) - len(before) - len(after) if dots else 0
        labels = [*before, *(f"-{at}" for at in range(hidden, 0, -1)), *after]
        if len(labels) != len(shape):
            raise UnknownShape(position)
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
        terms.append(labels)
    every = [label for term in terms for label in term]
    hidden_labels = [label for label in sizes if len(label) > 1]
    if arrow:
        return terms, [*right.replace("...", ""), *hidden_labels], sizes
    return terms, [*(each for each in sizes if every.count(each) == 1), *hidden_labels], sizes


def _recurrent(gates: int, rest: int, call: Call) -> float:
    """Both products of every step, `gates` activations a cell, and `rest` other operations.

    Both weights hold all directions, so their sizes are what one step multiplies.
    """
    steps = call.shape(0)[0] * call.shape(0)[1]
    recurrence = call.size(2)
    hidden = int(call.value("hidden_size", 0)) or call.shape(2)[-1]
    cells = call.shape(2)[0] * hidden
    return steps * (2 * (call.size(1) + recurrence) + (gates + rest) * cells)


def _scores(queries: int, keys: int, values: int, rows: int) -> float:
    """Queries against so many keys, a softmax over each of `rows`, and the weighted sum."""
    return 2 * keys * (queries + values) + SOFTMAX * rows * keys


def _projected_attention(weight: int, past: int, call: Call) -> float:
    """Attention and QAttention of com.microsoft, which project their input themselves."""
    batch, length, width = call.shape(0)
    keys = length + (call.shape(past)[-2] if call.has(past) else 0)
    split = call.value("qkv_hidden_sizes", None) or [call.shape(weight)[-1] // 3] * 3
    sizes = [int(size) for size in split]
    query, value = batch * length * sizes[0], batch * length * sizes[-1]
    rows = batch * length * int(call.value("num_heads", 1))
    return 2 * batch * length * width * sum(sizes) + _scores(query, keys, value, rows)


def _attention(heads: str, past: int, call: Call) -> float:
    """Attention of given queries, keys and values; packed ones have five dimensions."""
    query = call.shape(0)
    if len(query) == 5:  # [batch, length, heads, 3, size]
        length, queries = query[1], prod(query) // 3
    elif len(query) == 4:  # [batch, heads, length, size]
        length, queries = query[2], prod(query)
    else:
        length, queries = query[1], prod(query)
    packed = not call.has(1)
    if len(query) == 3 and packed:  # [batch, length, (heads + 2 key heads) * size]
        many, few = int(call.value(heads, 1)), int(call.value("kv_num_heads", 1))
        queries = queries * many // (many + 2 * few)
    keys = length if packed else call.shape(1)[-2 if len(call.shape(1)) < 5 else 1]
    keys += call.shape(past)[-2] if call.has(past) else 0
    result = call.outputs[0] if call.outputs else None
    values = prod(result) if result is not None else queries
    many = query[1] if len(query) == 4 else int(call.value(heads, 1))
    return _scores(queries, keys, values, query[0] * length * many)


def _experts(positions: tuple[int, ...], bits: int, call: Call) -> float:
    """Each row goes through `k` of the experts, whose weights come stacked, some in a byte."""
    packing = 8 / int(call.value("expert_weight_bits", bits))
    weights = [packing * call.size(at) / call.shape(at)[0] for at in positions if call.has(at)]
    rows = prod(call.shape(0)[:-1])
    return 2 * rows * int(call.value("k", 1)) * sum(weights)


def _pool(call: Call) -> float:
    return prod(call.result()) * prod(map(int, call.value("kernel_shape", [1])))


def _fourier(call: Call) -> float:
    """5 n log2 n a signal, as the fast transform takes."""
    shape = call.shape(0)
    at = int(call.value("axis", -2 if len(shape) > 2 else 0))
    length = max(2, shape[at])
    return 5 * log2(length) * prod(shape[:-1])


def _short_fourier(call: Call) -> float:
    batch, frames, bins = call.result()[:3]
    length = max(2, call.shape(2)[0] if call.has(2) else 2 * (bins - 1))
    return 5 * length * log2(length) * batch * frames


def _linear_model(coefficients: str, call: Call) -> float:
    rows = prod(call.shape(0)[:-1])
    return 2 * rows * len(call.value(coefficients, ()))


def _trees(call: Call) -> float:
    """A row passes one node per level of every tree."""
    nodes = len(call.value("nodes_featureids", ()))
    roots = call.value("tree_roots", None) or set(call.value("nodes_treeids", (0,)))
    return prod(call.shape(0)[:-1]) * len(roots) * log2(max(2, nodes / len(roots)))


_CONVOLUTION, _PRODUCT = partial(_convolution, 1), partial(_matrix_product, 0, 1)
_EXPLICIT = partial(_attention, "num_heads")


def _alike(count: Count, names: str) -> dict[str, Count]:
    return dict.fromkeys(names.split(), count)


#: By operator; "domain.Operator" where two domains differ.
OPERATIONS: dict[str, Count] = {
    **_alike(_CONVOLUTION, "Conv FusedConv NhwcConv NhwcFusedConv ConvInteger"),
    **_alike(_CONVOLUTION, "CausalConvWithState"),
    "QLinearConv": partial(_convolution, 3),
    **_alike(_transposed_convolution, "ConvTranspose ConvTransposeWithDynamicPads"),
    "DeformConv": _deformable_convolution,
    **_alike(_PRODUCT, "MatMul Gemm MatMulInteger MatMulInteger16 MatMulIntegerToFloat"),
    **_alike(_PRODUCT, "DynamicQuantizeMatMul FusedMatMul FusedMatMulActivation FusedGemm"),
    **_alike(_PRODUCT, "TransposeMatMul SparseToDenseMatMul GemmFastGelu GemmFloat8"),
    **_alike(partial(_matrix_product, 0, 3), "QLinearMatMul QGemm"),
    "QOrderedMatMul": partial(_matrix_product, 0, 2),
    **_alike(_packed_product, "MatMulNBits MatMulBnb4"),
    "Einsum": _einsum,
    # Beside the gates: f * c + i * g, its tanh, o * h, and the sums with biases.
    **_alike(partial(_recurrent, 4, 9), "LSTM DynamicQuantizeLSTM"),
    "GRU": partial(_recurrent, 3, 8),
    "RNN": partial(_recurrent, 1, 2),
    "com.microsoft.Attention": partial(_projected_attention, 1, 4),
    "QAttention": partial(_projected_attention, 1, 8),
    "Attention": partial(_attention, "q_num_heads", 4),
    "MultiHeadAttention": partial(_EXPLICIT, 6),
    "DecoderMaskedMultiHeadAttention": partial(_EXPLICIT, 5),
    **_alike(partial(_EXPLICIT, 3), "GroupQueryAttention SparseAttention"),
    "MoE": partial(_experts, (2, 4, 6), 8),
    "QMoE": partial(_experts, (2, 5, 8), 4),
    **_alike(_pool, "AveragePool MaxPool LpPool NhwcMaxPool QLinearAveragePool"),
    **_alike(
        partial(_per_input, 1),
        "GlobalAveragePool GlobalMaxPool GlobalLpPool QLinearGlobalAveragePool ArgMax ArgMin "
        "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd QLinearReduceMean",
    ),
    **_alike(
        partial(_per_input, 2),
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare",
    ),
    **_alike(partial(_per_input, SOFTMAX), "Softmax LogSoftmax QLinearSoftmax"),
    **_alike(
        partial(_per_input, NORMALISATION),
        "LayerNormalization InstanceNormalization GroupNormalization RMSNormalization "
        "MeanVarianceNormalization SimplifiedLayerNormalization SkipLayerNormalization "
        "SkipSimplifiedLayerNormalization GroupNorm SkipGroupNorm",
    ),
    "DFT": _fourier,
    "STFT": _short_fourier,
    **_alike(partial(_linear_model, "coefficients"), "LinearClassifier LinearRegressor"),
    **_alike(partial(_linear_model, "support_vectors"), "SVMClassifier SVMRegressor"),
    **_alike(_trees, "TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor"),
}

_FIRST_TWO = (0, 1)

#: Operators that apply learned weights to an activation, and the inputs that may hold these.
WEIGHTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        "Conv FusedConv NhwcConv NhwcFusedConv ConvInteger ConvTranspose DeformConv "
        "ConvTransposeWithDynamicPads CausalConvWithState MatMulNBits MatMulBnb4 "
        "Attention QAttention".split(),
        (1,),
    ),
    **dict.fromkeys(
        "MatMul Gemm MatMulInteger MatMulInteger16 MatMulIntegerToFloat FusedMatMul "
        "DynamicQuantizeMatMul FusedMatMulActivation FusedGemm TransposeMatMul "
        "SparseToDenseMatMul GemmFastGelu GemmFloat8".split(),
        _FIRST_TWO,
    ),
    "QLinearConv": (3,),
    **dict.fromkeys(("QLinearMatMul", "QGemm"), (0, 3)),
    "QOrderedMatMul": (0, 2),
    "Einsum": tuple(range(16)),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), (1, 2)),
    "MoE": (2, 4, 6),
    "QMoE": (2, 5, 8),
}


def operations(domain: str, op_type: str, call: Call) -> float:
    """Operations of one node; one per output element where its shapes are not known."""
    count = OPERATIONS.get(f"{domain}.{op_type}") or OPERATIONS.get(op_type, _elementwise)
    try:
        return count(call)
    except (LookupError, TypeError, ValueError, ZeroDivisionError):
        return call.made()  # the shapes do not fit the definition
