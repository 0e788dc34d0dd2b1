"""Pictures from files: every mode becomes 8 bits a sample, or is refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from midstream_partitioner.inputs import picture
from midstream_partitioner.inputs.picture import open_picture
from midstream_wire.errors import UsageError

RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)
GREY = np.uint8(RAMP * 255)
DEEP = np.uint16(RAMP * 65535)


def saved(tmp_path: Path, name: str, image: Image.Image, **how: Any) -> Path:
    image.save(tmp_path / name, **how)
    return tmp_path / name


def pixels(path: Path, *, gray: bool = True) -> np.ndarray[Any, Any]:
    return np.asarray(open_picture(path, gray=gray))


@pytest.mark.parametrize("name", ["p.png", "p.tif", "p.pgm"])
@pytest.mark.parametrize("gray", [True, False])
def test_of_16_bit_grey_the_upper_8_bits_are_read(
    tmp_path: Path, name: str, gray: bool
) -> None:
    found = pixels(saved(tmp_path, name, Image.fromarray(DEEP)), gray=gray)
    plane = found if gray else found[..., 1]
    np.testing.assert_array_equal(plane, DEEP >> 8)


def test_16_bits_are_turned_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    path = saved(tmp_path, "p.png", Image.fromarray(DEEP), exif=exif)
    np.testing.assert_array_equal(pixels(path), np.rot90(DEEP >> 8, -1))


def test_16_bit_grey_whose_zero_is_white_is_turned_round(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    path = saved(tmp_path, "p.tif", Image.fromarray(DEEP), tiffinfo=tags)
    content = bytearray(path.read_bytes())
    at = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01")  # photometric: black is zero
    content[at + 8] = 0
    path.write_bytes(content)
    np.testing.assert_array_equal(pixels(path), 255 - (DEEP >> 8))


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.float32(RAMP), "floats"),
        (np.int32(RAMP * 65535), "whole numbers of unknown range"),
        (np.int16(RAMP * 32767), "whole numbers of unknown range"),
    ],
    ids=["float", "32 bits", "signed"],
)
def test_samples_without_a_range_are_refused(
    tmp_path: Path, array: np.ndarray[Any, Any], what: str
) -> None:
    path = saved(tmp_path, "p.tif", Image.fromarray(array))
    with pytest.raises(UsageError, match=f"holds {what}: scale it to 8 bits"):
        open_picture(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_over_white(tmp_path: Path, mode: str) -> None:
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 255))
    assert pixels(saved(tmp_path, "p.png", clear.convert(mode))).tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("mode", "name"),
    [("CMYK", "p.tif"), ("CMYK", "p.jpg"), ("YCbCr", "p.tif"), ("1", "p.png")],
)
@pytest.mark.parametrize("gray", [True, False])
def test_other_modes_keep_their_picture(
    tmp_path: Path, mode: str, name: str, gray: bool
) -> None:
    grey = Image.fromarray(GREY).convert("RGB").convert(mode)
    found = pixels(saved(tmp_path, name, grey), gray=gray)
    assert abs(found.mean() - GREY.mean()) < 2
    assert found[0].mean() < 30 < 220 < found[-1].mean()


@pytest.mark.parametrize("gray", [True, False])
def test_lab_is_read(tmp_path: Path, gray: bool) -> None:
    lab = Image.merge("LAB", [Image.fromarray(GREY), *[Image.new("L", (64, 64), 128)] * 2])
    found = pixels(saved(tmp_path, "p.tif", lab), gray=gray)
    assert found[0].mean() < 30 < 220 < found[-1].mean()


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), shade) for shade in (40, 200)]
    for name in ("p.gif", "p.tif", "p.webp"):
        path = saved(tmp_path, name, frames[0], save_all=True, append_images=frames[1:])
        assert abs(pixels(path).mean() - 40) < 3


@pytest.mark.parametrize("name", ["p.png", "p.jpg", "p.tif", "p.webp", "p.gif"])
def test_half_a_file_is_refused(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path, name, Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UsageError, match="must be a picture that Pillow reads"):
        open_picture(path)


def test_a_decompression_bomb_is_refused_from_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "MAX_PIXELS", 100)
    path = saved(tmp_path, "p.png", Image.new("1", (11, 10)))
    with pytest.raises(UsageError, match="at most 100 pixels"):
        open_picture(path)
