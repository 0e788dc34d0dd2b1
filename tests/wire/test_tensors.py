"""What counts as a tensor: what an array holds, not what it is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from midstream_wire.codecs import codec, encode
from midstream_wire.errors import TensorError
from midstream_wire.tensors import Array, TensorSpec, dtype_of, require_array

SPEC = TensorSpec("x", "float32", ("b", 2))

NO_ARRAYS = [
    pytest.param([[1.0, 2.0]], id="list"),
    pytest.param(None, id="None"),
    pytest.param("text", id="str"),
    pytest.param(1.5, id="float"),
    pytest.param(np.ones((1, 2), np.float32).view(np.matrix), id="matrix"),
    pytest.param(np.ma.masked_equal(np.ones((1, 2), np.float32), 1), id="masked"),
    pytest.param(np.rec.array([(1.0, 2.0)], dtype="f4,f4"), id="recarray"),
    pytest.param(memoryview(b"12345678"), id="memoryview"),
]

OTHER_DTYPES = [
    pytest.param(np.ones((1, 2), ">f4"), ">f4", id="byte-swapped"),
    pytest.param(np.ones((1, 2), object), "object", id="object"),
    pytest.param(np.array([["a", "b"]]), "<U1", id="strings"),
    pytest.param(np.zeros((1, 2), [("float32", "f4")]), "float32", id="structured"),
    pytest.param(np.ones((1, 2), "f8"), "float64", id="wider"),
    pytest.param(np.ones((1, 2), "M8[s]"), "datetime64", id="times"),
]


@pytest.mark.parametrize("given", NO_ARRAYS)
def test_what_is_no_plain_array_is_refused_in_one_sentence(given: object) -> None:
    with pytest.raises(TensorError, match=r"must be a plain numpy array \(not a ") as caught:
        SPEC.check(given)
    assert "\n" not in str(caught.value)
    with pytest.raises(TensorError, match="plain numpy array"):
        encode(codec("raw"), given)  # type: ignore[arg-type]


def test_a_mask_is_not_lost_in_silence() -> None:
    masked = np.ma.masked_greater(np.ones(2, np.float32), 0)
    with pytest.raises(TensorError, match="mask would be lost"):
        require_array("a tensor", masked)


@pytest.mark.parametrize(("array", "named"), OTHER_DTYPES)
def test_a_dtype_is_known_by_what_it_is_not_by_a_like_name(array: Array, named: str) -> None:
    assert named in dtype_of(array)
    assert dtype_of(array) != SPEC.dtype
    with pytest.raises(TensorError, match="must be float32"):
        SPEC.check(array)


def test_an_array_that_fits_is_taken_wherever_it_lies(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    SPEC.check(np.load(tmp_path / "x.npy", mmap_mode="r"))
    SPEC.check(np.ones((2, 6), np.float32)[:, ::3])
    TensorSpec("n", "int64", ()).check(np.array(3, np.longlong))


def test_a_scalar_of_numpys_is_an_array_without_dimensions() -> None:
    TensorSpec("x", "float32", ()).check(np.float32(1.5))
