"""What onnxruntime refuses is told in one sentence, without C++ and never in half a word."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from tests.partitioner.conftest import make_model

from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.backends.refusals import MAX_CHARS, refusal
from midstream_wire.errors import ModelError, TensorError

CPP = re.compile(r"::|\.cc:|\.h:|&,|\bconst\b|ONNXRuntimeError|status code")
RELU = "net (float[b, 2] x) => (float[b, 2] y) { y = Relu(x) }"


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        (RELU, {"ir": 14}, r"IR version must be at most \d+ \(not 14\): set model.ir_version"),
        (RELU, {"opset": 30}, r"opset must be at most \d+ \(not 30\): export it"),
        (RELU.replace("Relu", "Foo"), {}, "has no Foo in opset 17: export the model"),
        (RELU.replace("Relu(x)", "MatMul(x, x)"), {}, None),
    ],
)
def test_a_network_that_is_refused_is_told_why(
    text: str, options: dict[str, Any], told: str | None
) -> None:
    model = make_model(text, **options).SerializeToString()
    if told is None:
        with pytest.raises(
            TensorError, match="cannot run on this input: in MatMul"
        ) as refused:
            Executor(model).run({"x": np.ones((3, 2), np.float32)})
    else:
        with pytest.raises(ModelError, match=told) as refused:  # type: ignore[assignment]
            Executor(model)
    assert not CPP.search(str(refused.value))


def test_inputs_that_do_not_fit_are_told_which_size_and_dtype_must_come() -> None:
    executor = Executor(make_model(RELU).SerializeToString())
    with pytest.raises(TensorError, match=r"x must have size 2 in dimension 1 \(not 3\)"):
        executor.run({"x": np.ones((1, 3), np.float32)})
    with pytest.raises(TensorError, match=r"dtype float \(not double\): convert it"):
        executor.run({"x": np.ones((1, 2))})


def test_a_long_message_ends_behind_a_word_and_keeps_the_advice() -> None:
    told = refusal(RuntimeError("every word whole " * 100), advice="export it again")
    assert re.fullmatch(r"(every word whole )+.*\.\.\.: export it again", told)
    said = told.removesuffix("...: export it again").split()
    assert set(said) == {"every", "word", "whole"}
    assert len(told) < MAX_CHARS + 30


def test_a_signature_with_parentheses_inside_is_no_part_of_the_sentence() -> None:
    raw = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add "
        "node. Name:'a' Status Message: /onnxruntime_src/core/element_wise_ops.h:563 void "
        "onnxruntime::BroadcastIterator::Init(ptrdiff_t, std::function<void(int)>) "
        "axis == 1 || axis == largest was false. Attempting to broadcast by 3"
    )
    told = refusal(RuntimeError(raw), advice="mend it")
    assert told == "in Add a: Attempting to broadcast by 3: mend it"
