"""Random views of training faces: where a crop is cut, how it is lit, blurred and compressed."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
BORDERS = (cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT)


def cut(
    picture: Picture, matrix: NDArray[np.float64], size: int, generator: np.random.Generator
) -> Picture:
    """Return the `size` px view that `matrix` (`[2, 3]`, source to view) shows of a picture."""
    border = BORDERS[int(generator.choice(3, p=(0.4, 0.35, 0.25)))]
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    shrink = np.hypot(matrix[0, 0], matrix[0, 1]) < 0.75
    view = cv2.warpAffine(
        picture,
        matrix,
        (size, size),
        flags=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR,
        borderMode=border,
        borderValue=colour,
    )
    return np.asarray(view, np.uint8)


@lru_cache(maxsize=1)
def _noise_bank() -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((1024, 1024, 3)).astype(np.float32)


def degrade(picture: Picture, generator: np.random.Generator, strength: float = 1.0) -> Picture:
    """Return a picture under other light, out of focus, noisy, compressed, part covered."""
    if generator.random() < 0.8:
        picture = _relit(picture, generator, strength)
    if generator.random() < 0.25 * strength:
        sigma = generator.uniform(0.4, 1.6)
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), np.uint8)
    if generator.random() < 0.15 * strength:
        height, width = picture.shape[:2]
        factor = generator.uniform(1.3, 3.0)
        small = cv2.resize(
            picture, (int(width / factor), int(height / factor)), interpolation=cv2.INTER_AREA
        )
        picture = np.asarray(cv2.resize(small, (width, height)), np.uint8)
    if generator.random() < 0.2 * strength:
        top, left = generator.integers(0, 1024 - max(picture.shape[:2]), 2)
        noise = _noise_bank()[top : top + picture.shape[0], left : left + picture.shape[1]]
        noisy = picture + generator.uniform(2, 12) * noise
        picture = np.clip(noisy, 0, 255).astype(np.uint8)
    if generator.random() < 0.25 * strength:
        quality = int(generator.integers(15, 80))
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return picture


def _relit(picture: Picture, generator: np.random.Generator, strength: float) -> Picture:
    """Change gamma, contrast, brightness and colour by a table a channel; sometimes drop colour."""
    levels = np.linspace(0, 1, 256)
    gamma = np.exp(generator.normal(0, 0.25 * strength))
    contrast = np.exp(
        generator.normal(0, 0.2 * strength, (1, 1)) + generator.normal(0, 0.06, (1, 3))
    )
    offset = generator.normal(0, 0.06 * strength)
    table = 0.5 + (levels[:, None] ** gamma - 0.5) * contrast + offset  # [256, 3]
    table8 = np.clip(255 * table, 0, 255).astype(np.uint8)
    lit = np.asarray(cv2.LUT(picture, table8.reshape(256, 1, 3).reshape(1, 256, 3)), np.uint8)
    if generator.random() < 0.08:
        lit = np.repeat(cv2.cvtColor(lit, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return lit


def cover(picture: Picture, generator: np.random.Generator) -> Picture:
    """Return a picture with one coloured ellipse or bar over part of it: a hand, a microphone."""
    covered = picture.copy()
    size = picture.shape[0]
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    centre = tuple(int(value) for value in generator.uniform(0.05, 0.95, 2) * size)
    axes = tuple(int(value) for value in generator.uniform(0.05, 0.2, 2) * size)
    cv2.ellipse(covered, centre, axes, generator.uniform(0, 180), 0, 360, colour, -1)
    return np.asarray(covered, np.uint8)


def smooth_field(size: int, reach: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return a smooth random displacement along one axis, `[size, size]`, `reach` px rms or so."""
    cells = int(generator.integers(3, 8))
    coarse = generator.standard_normal((cells, cells)).astype(np.float32)
    field = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.float32(reach) * field, np.float32)


def shuffled(picture: Picture, generator: np.random.Generator) -> Picture:
    """Return a picture cut into tiles in random order, each turned: texture without a face."""
    size = picture.shape[0]
    tiles = int(generator.choice((3, 4, 6, 8)))
    side = size // tiles
    grid = picture[: side * tiles, : side * tiles].reshape(tiles, side, tiles, side, 3)
    flat = grid.transpose(0, 2, 1, 3, 4).reshape(tiles * tiles, side, side, 3)
    flat = np.rot90(flat[generator.permutation(len(flat))], int(generator.integers(4)), axes=(1, 2))
    mixed = flat.reshape(tiles, tiles, side, side, 3).transpose(0, 2, 1, 3, 4)
    mixed = mixed.reshape(side * tiles, side * tiles, 3)
    return np.asarray(cv2.resize(np.ascontiguousarray(mixed), (size, size)), np.uint8)


def scenery(size: int, generator: np.random.Generator) -> Picture:
    """Return a procedural picture: coloured 1/f noise, gradients, stripes, polygons and disks."""
    small = max(4, size // 4)
    frequency = np.fft.fftfreq(small)
    radius = np.hypot(frequency[:, None], frequency[None]) + 1 / small
    power = radius ** -generator.uniform(0.8, 2.0)
    spectrum = np.fft.fft2(generator.standard_normal((3, small, small))) * power
    field = np.fft.ifft2(spectrum).real
    field /= field.std(axis=(1, 2), keepdims=True) + 1e-6
    colours = generator.uniform(20, 235, 3)
    mixing = generator.uniform(-1, 1, (3, 3)) + 1.5 * np.ones((3, 3)) * generator.random()
    texture = colours[:, None, None] + generator.uniform(5, 45) * np.tensordot(mixing, field, 1)
    coarse = np.ascontiguousarray(np.clip(texture, 0, 255).astype(np.uint8).transpose(1, 2, 0))
    picture = np.array(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    for _ in range(int(generator.integers(0, 9))):
        _draw(picture, generator)
    if generator.random() < 0.6:  # few real scenes are as gaudy
        grey = picture.mean(axis=2, keepdims=True)
        picture = (grey + generator.uniform(0, 0.6) * (picture - grey)).astype(np.uint8)
    if generator.random() < 0.5:
        picture = np.array(cv2.GaussianBlur(picture, (0, 0), generator.uniform(0.5, 3)), np.uint8)
    return picture


def _draw(picture: Picture, generator: np.random.Generator) -> None:
    size = picture.shape[0]
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    kind = int(generator.integers(6))
    if kind == 0:
        corners = generator.uniform(-0.2, 1.2, (int(generator.integers(3, 6)), 2)) * size
        cv2.fillPoly(picture, [corners.astype(np.int32)], colour)
    elif kind == 1:
        centre = (generator.uniform(0, 1, 2) * size).astype(int)
        axes = (generator.uniform(0.02, 0.3, 2) * size).astype(int)
        cv2.ellipse(
            picture, tuple(map(int, centre)), tuple(map(int, axes)), generator.uniform(0, 180),
            0, 360, colour, int(generator.choice((-1, 2))),
        )  # fmt: skip
    elif kind == 2:
        start, end = (generator.uniform(-0.2, 1.2, (2, 2)) * size).astype(int)
        cv2.line(
            picture,
            tuple(map(int, start)),
            tuple(map(int, end)),
            colour,
            int(generator.integers(1, 9)),
        )
    elif kind == 3:
        left, top = (generator.uniform(-0.2, 0.9, 2) * size).astype(int)
        width, height = (generator.uniform(0.05, 0.7, 2) * size).astype(int)
        cv2.rectangle(picture, (int(left), int(top), int(width), int(height)), colour, -1)
    elif kind == 4:
        _draw_ball(picture, generator)
    else:
        _draw_writing(picture, generator)


def _draw_ball(picture: Picture, generator: np.random.Generator) -> None:
    """Draw a shaded, grained ellipse: a coin, a fruit, a cup; the size of a face, but none."""
    size = picture.shape[0]
    axes = generator.uniform(0.03, 0.4) * size * np.exp(generator.normal(0, 0.15, 2))
    centre = generator.uniform(0, 1, 2) * size
    y, x = np.mgrid[:size, :size].astype(np.float32)
    across, down = (x - centre[0]) / axes[0], (y - centre[1]) / axes[1]
    inside = np.clip((1 - np.hypot(across, down)) * axes.min() / 1.5, 0, 1)[..., None]
    slope = generator.normal(0, 0.4, 2)
    waves = np.cos(generator.uniform(1, 6) * across + generator.uniform(0, 6))
    waves = waves * np.cos(generator.uniform(1, 6) * down + generator.uniform(0, 6))
    light = 1 + slope[0] * across + slope[1] * down + generator.uniform(0, 0.5) * waves
    top, left = generator.integers(0, 1024 - size, 2)
    grain = _noise_bank()[top : top + size, left : left + size, :1]
    colour = generator.uniform(30, 240, 3)
    ball = colour * light[..., None] + generator.uniform(0, 15) * grain
    picture[:] = np.clip(inside * ball + (1 - inside) * picture, 0, 255).astype(np.uint8)


def _draw_writing(picture: Picture, generator: np.random.Generator) -> None:
    size = picture.shape[0]
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    scale, top = generator.uniform(0.3, 2.5), int(generator.uniform(0, 1) * size)
    for line in range(int(generator.integers(1, 6))):
        letters = "".join(chr(int(code)) for code in generator.integers(33, 123, 24))
        place = (int(generator.uniform(-0.3, 0.5) * size), top + int(30 * scale) * line)
        cv2.putText(
            picture, letters, place, int(generator.integers(8)), scale, colour, 1 + (scale > 1)
        )
