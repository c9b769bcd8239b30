"""Augmentation of training faces: crops, light, blur, compression, occlusion, local deformation."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.networks.face_points import IRISES, MOUTH_CORNERS, NOSE_TIP, OUTER_LIPS

Picture = NDArray[np.uint8]
Points = NDArray[np.float32]
BORDERS = (cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT)
# Centres of deformation among the 478 points; in inter-ocular distances the standard deviation of
# the Gaussian bump and of its displacement across and down.
PLACES: tuple[tuple[int, float, float, float], ...] = (
    (61, 0.22, 0.08, 0.07),  # right corner of the mouth
    (291, 0.22, 0.08, 0.07),  # left corner
    (0, 0.25, 0.07, 0.03),  # upper lip
    (17, 0.25, 0.07, 0.06),  # lower lip
    (105, 0.22, 0.03, 0.06),  # right brow
    (334, 0.22, 0.03, 0.06),  # left brow
    (152, 0.45, 0.08, 0.08),  # chin
    (205, 0.3, 0.04, 0.05),  # right cheek
    (425, 0.3, 0.04, 0.05),  # left cheek
)
MOUTH = (*MOUTH_CORNERS, *OUTER_LIPS)
IRIS_WIDTH, IRIS_REACH = 0.1, 0.06  # likewise for shifts of the irises


def cut(
    picture: Picture, matrix: NDArray[np.float64], size: int, generator: np.random.Generator
) -> Picture:
    """Return a `size` px crop of a picture by `matrix` (`[2, 3]`, picture to crop)."""
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
    """Return a picture with random light, blur, resampling, noise and JPEG compression."""
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
    """Change gamma, contrast, brightness and colour by one table a channel; sometimes to grey."""
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
    """Return a picture occluded by one coloured ellipse."""
    covered = picture.copy()
    size = picture.shape[0]
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    centre = tuple(int(value) for value in generator.uniform(0.05, 0.95, 2) * size)
    axes = tuple(int(value) for value in generator.uniform(0.05, 0.2, 2) * size)
    cv2.ellipse(covered, centre, axes, generator.uniform(0, 180), 0, 360, colour, -1)
    return np.asarray(covered, np.uint8)


def smooth_field(size: int, reach: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return a smooth random displacement along one axis, `[size, size]`, about `reach` px rms."""
    cells = int(generator.integers(3, 8))
    coarse = generator.standard_normal((cells, cells)).astype(np.float32)
    field = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.float32(reach) * field, np.float32)


def shuffled(picture: Picture, generator: np.random.Generator) -> Picture:
    """Return a picture as rotated tiles in random order: texture without a face."""
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
    if generator.random() < 0.6:  # real scenes are less saturated
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
    """Draw a shaded ellipse with grain, of the size of a face: a negative example."""
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


def deformed(
    picture: Picture, points: Points, unit: float, generator: np.random.Generator
) -> tuple[Picture, Points]:
    """Return a face with random local deformations, and its landmarks moved along.

    Args:
        picture: `[S, S, 3]`.
        points: `[478, 2]` in pixels of the picture.
        unit: the inter-ocular distance in pixels.
        generator: draws the deformations, independently for the two sides of a face.
    """
    bumps = _bumps(points, unit, generator)
    size = picture.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    grid = np.stack([x, y], -1).reshape(-1, 2)
    source = (grid + _field(grid, bumps)).reshape(size, size, 2)
    warped = cv2.remap(
        picture, np.ascontiguousarray(source[..., 0]), np.ascontiguousarray(source[..., 1]),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    moved = points
    for _ in range(6):  # fixed point of the inverse
        moved = points - _field(moved, bumps)
    return np.asarray(warped, np.uint8), moved


def _bumps(points: Points, unit: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return bumps `[B, 5]`: centre, deviation, displacement across and down, all in pixels."""
    bumps = []
    if generator.random() < 0.5:  # the whole mouth
        middle = points[list(MOUTH)].mean(0)
        bumps.append((*middle, 0.4 * unit, *(unit * generator.normal(0, (0.09, 0.03)))))
    for place, width, across, down in PLACES:
        if generator.random() < 0.4:
            length = unit * generator.normal(0, (across, down))
            bumps.append((*points[place], unit * width * generator.uniform(0.8, 1.3), *length))
    if generator.random() < 0.5:
        length = unit * generator.normal(0, (IRIS_REACH, 0.3 * IRIS_REACH))
        crossed = generator.random() < 0.3
        for index, iris in enumerate(IRISES):
            sign = -1 if crossed and index else 1
            bumps.append((*points[iris], unit * IRIS_WIDTH, sign * length[0], length[1]))
    bumps.append((*points[NOSE_TIP], unit, 0.0, 0.0))  # never empty
    array = np.asarray(bumps, np.float32)
    reach = np.linalg.norm(array[:, 3:], axis=1, keepdims=True)
    array[:, 3:] *= np.minimum(1, 0.9 * array[:, 2:3] / np.maximum(reach, 1e-6))  # no folds
    return array


def _field(places: Points, bumps: NDArray[np.float32]) -> Points:
    """Return the offsets `[N, 2]` from `places` to their sources in the picture before."""
    field = np.zeros_like(places)
    for x, y, width, across, down in bumps:
        squared = (places[:, 0] - x) ** 2 + (places[:, 1] - y) ** 2
        height = np.exp(-squared / (2 * width * width))
        field[:, 0] -= across * height
        field[:, 1] -= down * height
    return field
