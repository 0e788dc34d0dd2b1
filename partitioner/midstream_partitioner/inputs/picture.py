"""A picture from a file as 8-bit pixels, in whatever form the file holds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from midstream_wire.errors import UsageError

#: Largest picture that is decoded, checked from its header. 64 Mpixel decode to 192 MiB; what
#: claims more is more likely a decompression bomb than a photo for a network.
MAX_PIXELS = 64 * 2**20

#: Formats whose 16-bit grey has a range that Pillow tells, or brings to 16 bits.
_RANGED = ("JPEG2000", "PNG", "PPM", "TIFF")
#: TIFF tags: bits per sample, and whether 0 is black (1) or white (0).
_BITS, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0


def open_picture(path: Path, *, gray: bool = False) -> Image.Image:
    """Return the picture upright as its EXIF tells, in RGB, or in L for `gray`.

    Of several frames the first; what is transparent over white, as viewers show it; of 16-bit
    samples the upper 8 bits. Raises `UsageError` where it is no picture, has samples without
    a known range, or more than `MAX_PIXELS`.
    """
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            picture = ImageOps.exif_transpose(opened)
            if opened.mode == "F" or opened.mode.startswith("I"):
                picture = _upper_bits(path, opened, picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UsageError(
            f"{path} must have at most {MAX_PIXELS} pixels: scale it down"
        ) from None
    except UsageError:
        raise
    except UnidentifiedImageError:
        raise UsageError(
            f"{path} must be a picture that Pillow reads, and is in no format that it knows"
        ) from None
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types
        raise UsageError(f"{path} must be a picture that Pillow reads ({error})") from None
    return _flat(picture).convert("L" if gray else "RGB")


def _upper_bits(path: Path, opened: Image.Image, picture: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8 bits; Pillow would cut everything above 255 off."""
    tags = getattr(opened, "tag_v2", {})
    bits = int(np.max(tags.get(_BITS, 16)))
    # Pillow reads a 16-bit PGM as 32 bits, its values already spread over 16.
    narrow = opened.mode.startswith("I;16") or opened.format == "PPM"
    if opened.format not in _RANGED or not narrow or not 8 < bits <= 16:
        what = "floats" if opened.mode == "F" else "whole numbers of unknown range"
        raise UsageError(
            f"{path} must have 8 or 16 bits a sample, whose range is known, and holds {what}: "
            "scale it to 8 bits"
        )
    samples = np.asarray(picture).astype(np.uint16) >> (bits - 8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        samples = 255 - samples
    return Image.fromarray(samples.astype(np.uint8))


def _flat(picture: Image.Image) -> Image.Image:
    """Return `picture` without transparency, and in a mode that converts to any other."""
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB") if picture.mode == "LAB" else picture
