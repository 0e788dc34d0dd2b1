"""Pictures that need no camera: what calibrates the reference networks, and feeds their tests.

Dead leaves: opaque shapes of all sizes, far ones behind near ones, sizes falling off with the
third power. Occlusion gives the edges, the spread of sizes the 1/f spectrum, for which natural
scenes are known (Lee, Mumford and Huang 2001). Each leaf has its own colour and texture; light
falls off across the scene. Photographs of the world would do as well, but would have to be
shipped, and the networks must come out the same where scikit-learn's samples are missing.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_LEAVES = 400
#: Texture within a leaf, as a share of full scale.
_TEXTURE = 0.06


def photo(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """An RGB picture [H, W, 3]; another seed is another scene, light and palette."""
    rng = np.random.default_rng(seed)
    texture = _noise(rng, height, width)
    # Brightness varies more than hue, within a picture as from picture to picture.
    palette = rng.uniform(0.3, 0.65) + rng.normal(0, 0.07, 3)
    palette = palette + rng.normal(0, 0.22, (_LEAVES, 1))
    palette += rng.normal(0, 0.06, (_LEAVES, 3))
    scene = np.empty((height, width, 3))
    scene[:] = palette[0]
    # Drawn from the far to the near, so that every leaf hides what lies behind it.
    for colour in palette[1:]:
        window, mask = _leaf(rng, height, width)
        grain = _TEXTURE * rng.uniform(0, 2) * texture[window][mask]
        scene[window][mask] = colour + grain[:, None]
    down, right = rng.normal(0, 0.3, 2)
    y = np.linspace(-0.5, 0.5, height)[:, None, None]
    x = np.linspace(-0.5, 0.5, width)[None, :, None]
    scene *= 1 + down * y + right * x
    scene += rng.normal(0, 0.008, scene.shape)  # the sensor's noise
    return np.round(255 * scene.clip(0, 1)).astype(np.uint8)


def photos(count: int, height: int, width: int, *, first_seed: int = 0) -> NDArray[np.uint8]:
    """`count` pictures [N, H, W, 3] of consecutive seeds."""
    seeds = range(first_seed, first_seed + count)
    return np.stack([photo(seed, height, width) for seed in seeds])


def _leaf(
    rng: np.random.Generator, height: int, width: int
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """A window of the picture, and the ellipse or box in it; sizes of density r^-3."""
    smallest, largest = 0.015, 0.5
    spread = smallest**-2 + rng.uniform() * (largest**-2 - smallest**-2)
    radius = float(max(height, width) * spread**-0.5)
    stretch, angle = rng.uniform(0.4, 1.0), rng.uniform(0, np.pi)
    centre = rng.uniform(0, height), rng.uniform(0, width)
    reach = 1.5 * radius  # a box's corners, at the square root of 2
    rows, columns = (
        slice(max(0, math.floor(middle - reach)), min(side, math.ceil(middle + reach)))
        for middle, side in zip(centre, (height, width), strict=True)
    )
    y = np.arange(height)[rows, None] - centre[0]
    x = np.arange(width)[None, columns] - centre[1]
    u = (np.cos(angle) * x + np.sin(angle) * y) / radius
    v = (np.cos(angle) * y - np.sin(angle) * x) / (radius * stretch)
    ellipse = rng.uniform() < 0.5
    inside = u**2 + v**2 < 1 if ellipse else (np.abs(u) < 1) & (np.abs(v) < 1)
    return (rows, columns), np.asarray(inside)


def _noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Noise [H, W] with a 1/f amplitude spectrum, mean 0 and deviation 1."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequency
    noise = np.fft.irfft2(spectrum, s=(height, width))
    return np.asarray(noise / noise.std())
