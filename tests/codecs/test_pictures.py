"""Pictures through png, jpeg, webp and avif."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from midstream_wire.codecs import BLOCK_NBYTES, codec, decode, encode, encode_bytes
from midstream_wire.codecs.pictures import MAX_PIXELS
from midstream_wire.tensors import Array, TensorSpec

Picture = Callable[[int, int], Array]


def delivered(id: str, array: Array) -> Array:
    spec = TensorSpec("x", "uint8", array.shape)
    return decode(encode_bytes(codec(id), array), spec, max_nbytes=array.nbytes)


@pytest.mark.parametrize("id", ["png", "jpeg", "webp", "avif"])
@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ((1, 224, 224, 3), True),
        ((224, 224, 3), True),
        ((1, 1, 1, 3), True),
        ((1, 5000, 16383, 3), False),
        ((4000, 16383, 3), True),
        ((10, 16384, 3), False),
        ((2, 224, 224, 3), False),
        ((1, 3, 224, 224), False),
        ((224, 224), False),
        ((224, 224, 4), False),
        ((0, 224, 3), False),
        ((224, 0, 3), False),
        ((), False),
    ],
)
def test_pictures_are_rgb_and_of_bounded_size(
    id: str, shape: tuple[int, ...], taken: bool
) -> None:
    assert codec(id).accepts("uint8", shape) is taken
    assert not codec(id).accepts("float32", shape)
    assert MAX_PIXELS < 5000 * 16383


def test_png_keeps_every_bit(picture: Picture) -> None:
    for shape in ((1, 1), (37, 53), (700, 900)):
        array = picture(*shape)
        assert delivered("png", array).tobytes() == array.tobytes()
        assert delivered("png", array[None]).tobytes() == array.tobytes()


@pytest.mark.parametrize("id", ["jpeg:95", "webp:95", "avif:95"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (229, 331), (1000, 701)])
def test_lossy_pictures_look_alike(id: str, shape: tuple[int, int], picture: Picture) -> None:
    array = picture(*shape)
    error = np.abs(delivered(id, array).astype(int) - array)
    assert error.mean() < 8


@pytest.mark.parametrize("family", ["jpeg", "webp", "avif"])
def test_quality_buys_fidelity_with_bytes(family: str, picture: Picture) -> None:
    array = picture(300, 400)
    sizes, errors = [], []
    for quality in (10, 50, 90):
        sizes.append(len(encode_bytes(codec(f"{family}:{quality}"), array)))
        errors.append(
            np.abs(delivered(f"{family}:{quality}", array).astype(int) - array).mean()
        )
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert sizes[-1] < array.nbytes / 2


@pytest.mark.parametrize("id", ["png", "jpeg", "webp", "avif"])
def test_large_pictures_go_in_strips(id: str, picture: Picture) -> None:
    array = picture(1000, 1001)
    row_nbytes = 3 * 1001
    rows = BLOCK_NBYTES // row_nbytes // 16 * 16
    assert len(list(encode(codec(id), array))) == -(-1000 // rows)


def test_strips_of_jpeg_lose_hardly_more_than_the_whole(picture: Picture) -> None:
    import io

    from PIL import Image

    array = picture(1000, 701)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "JPEG", quality=90)
    whole = np.abs(np.asarray(Image.open(file)).astype(int) - array).mean()
    strips = np.abs(delivered("jpeg:90", array).astype(int) - array).mean()
    assert strips <= whole * 1.01
    assert len(encode_bytes(codec("jpeg:90"), array)) <= len(file.getvalue()) + 2000


@pytest.mark.parametrize(
    "id", ["jpeg:1", "jpeg:3", "jpeg:100", "webp:1", "webp:100", "avif:1", "avif:100"]
)
def test_every_quality_is_one_that_the_decoder_takes(id: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (64, 70, 3), np.uint8)
    assert delivered(id, noise).shape == noise.shape
    assert len(encode_bytes(codec(id), noise)) < 2 * noise.nbytes


def test_the_picture_library_is_loaded_only_for_pictures() -> None:
    code = (
        "import sys, numpy, midstream_wire.codecs as c;"
        "c.encode_bytes(c.codec('int8'), numpy.ones((3, 3), 'float32'));"
        "sys.exit('PIL' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
