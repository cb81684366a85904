"""The kinds of textures: each a picture of grey values from a picture's random numbers.

Values may leave 0..255 (the bank clips them). Lengths are pixels.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from jaxres.data.noise import Draws, blur, fractal, standard

Picture = Float32[np.ndarray, "side side"]


def rings(draws: Draws, side: int) -> Picture:
    """Ramps that rise from black and drop back at once, around a far or near centre or straight."""
    rows, columns = _grid(side)
    period = draws.log_uniform(15, 40)
    if draws.chance(0.2):
        angle = draws.angle()
        distance = rows * np.float32(math.sin(angle)) + columns * np.float32(math.cos(angle))
    else:
        row, column = draws.uniforms(2, -0.75 * side, 1.75 * side).astype(np.float32)
        aspect = np.float32(draws.log_uniform(0.7, 1.4) if draws.chance(0.4) else 1)
        distance = np.sqrt(((rows - row) * aspect) ** 2 + (columns - column) ** 2)
    if draws.chance(0.25):
        bend = draws.uniform(0.1, 0.6) * period
        distance += np.float32(bend) * fractal(draws, side, rows=60, columns=60, octaves=1)
    cycles = distance * np.float32(draws.below(2) * 2 - 1) / np.float32(period)
    cycles += np.float32(draws.uniform(0, 1) + 256)
    ramp = cycles % 1
    if draws.chance(0.1):
        ramp = 1 - np.abs(2 * ramp - 1)  # both flanks sloped
    low = draws.uniform(0, 30) if draws.chance(0.2) else 0
    picture = np.float32(low) + np.float32(draws.uniform(150, 195) - low) * ramp
    picture = blur(picture, draws.uniform(0.2, 0.8))
    return picture + _grain(draws, side, draws.uniform(0.5, 4))


def starfield(draws: Draws, side: int) -> Picture:
    """Dark sky with haze and noise, many faint dots, some stars, a few with glow and spikes."""
    haze = fractal(draws, side, rows=50, columns=50, octaves=3)
    picture = np.float32(draws.uniform(14, 34)) + np.float32(draws.uniform(1, 7)) * haze
    picture += _grain(draws, side, draws.uniform(3, 8), draws.uniform(0, 0.6))
    area = side * side
    faint = int(area * draws.log_uniform(0.003, 0.02))
    _add_dots(picture, draws, faint, low=20, high=130, steepness=2)
    _add_dots(picture, draws, int(area * draws.log_uniform(3e-4, 3e-3)), low=120, high=400)
    tilt = draws.uniform(0, math.pi / 2) if draws.chance(0.5) else math.pi / 4
    for _ in range(draws.below(2 + area // 8000)):
        _add_bright_star(picture, draws, tilt)
    return picture


def speckle(draws: Draws, side: int) -> Picture:
    """Grains of one size, evenly bright and dark or mostly dark with bright ones."""
    field = standard(blur(draws.normals(side, side), draws.uniform(0.5, 1.8)))
    if draws.chance(0.5):
        field = standard(np.exp(np.float32(draws.uniform(0.3, 0.9)) * field))
    patches = fractal(draws, side, rows=40, columns=40, octaves=2)
    contrast = np.float32(draws.uniform(15, 45))
    picture = field * contrast * (1 + np.float32(draws.uniform(0, 0.3)) * patches)
    picture += np.float32(draws.uniform(0, 15)) * patches
    return np.minimum(picture + np.float32(draws.uniform(60, 160)), 230)


def gravel(draws: Draws, side: int) -> Picture:
    """Chips of every brightness and direction, from large to small, with dark gaps and grain."""
    level = draws.uniform(105, 150)
    spread = draws.uniform(15, 35)
    patches = fractal(draws, side, rows=30, columns=30, octaves=3)
    picture = np.float32(level) + np.float32(draws.uniform(5, 15)) * patches
    picture = np.ascontiguousarray(picture)
    count = int(side * side * draws.uniform(0.01, 0.03))
    largest = draws.uniform(8, 20)
    # Many small chips and few large ones, the large ones first.
    radii = np.sort(1.5 + (largest - 1.5) * draws.uniforms(count) ** 6)[::-1]
    polygons = _chips(draws, radii, side)
    brightness = level + spread * draws.normals(count, 1)[:, 0]
    gap = brightness - draws.uniforms(count, 15, 70)
    drop = draws.uniforms(2, -12, 12).astype(np.int32)  # sixteenths of a pixel
    for polygon, bright, dark in zip(polygons, brightness.tolist(), gap.tolist(), strict=True):
        cv2.fillConvexPoly(picture, polygon + drop, dark, cv2.LINE_8, 4)
        cv2.fillConvexPoly(picture, polygon, bright, cv2.LINE_8, 4)
    picture += _grain(draws, side, draws.uniform(16, 32), draws.uniform(0.2, 0.7))
    return np.minimum(picture, 250)


def scratches(draws: Draws, side: int) -> Picture:
    """Bright metal or concrete with long thin dark lines, short dark marks and blotches."""
    level = draws.uniform(95, 165)
    stains = fractal(draws, side, rows=50, columns=50, octaves=3)
    brushed = draws.log_uniform(1, 12) if draws.chance(0.4) else 1
    rows, columns = (1.5, 1.5 * brushed) if draws.chance(0.5) else (1.5 * brushed, 1.5)
    picture = np.float32(level) + np.float32(draws.uniform(3, 12)) * stains
    texture = fractal(draws, side, rows=2 * rows, columns=2 * columns, octaves=2, gain=0.8)
    picture += np.float32(draws.uniform(5, 14)) * texture
    marks = np.zeros((side, side), np.uint8)
    for _ in range(draws.below(int(side * side * 2.5e-3)) + 5):  # short marks and dots
        start, length = draws.uniforms(2, 0, side), draws.uniform(0, 9)
        _draw_line(marks, draws, start, draws.angle(), length, draws.uniform(30, 200))
    main = draws.angle()
    for _ in range(draws.below(3 + side // 20) + 1):  # long scratches, some of them parallel
        start = draws.uniforms(2, 0, side)
        angle = main + draws.uniform(-0.15, 0.15) if draws.chance(0.4) else draws.angle()
        length = draws.log_uniform(0.3, 2) * side
        _draw_line(marks, draws, start, angle, length, draws.uniform(40, 255))
    worn = blur(marks.astype(np.float32) / 255, draws.uniform(0.4, 1.0))
    worn *= np.clip(1 + 0.4 * stains, 0.2, 1.4)
    depth = draws.uniform(60, 130)
    if draws.chance(0.15):
        depth = -0.4 * depth  # fresh scratches are bright
    picture -= np.float32(depth) * worn
    return np.minimum(picture + _grain(draws, side, draws.uniform(1, 5)), 235)


def ripples(draws: Draws, side: int) -> Picture:
    """Dark water: long thin crests over slow swell, level or tilted."""
    large = math.ceil(side * 1.42)
    crest = draws.log_uniform(5, 14)
    stretch = draws.log_uniform(3, 8)
    height = fractal(draws, large, rows=crest, columns=crest * stretch, octaves=4, gain=0.7)
    swell = fractal(draws, large, rows=30, columns=90, octaves=2)
    ridge = standard(np.exp(np.float32(-draws.uniform(1, 4)) * np.abs(height)))
    picture = np.float32(draws.uniform(0.3, 0.8)) * ridge + np.float32(0.5) * height
    picture = standard(picture + np.float32(draws.uniform(0.1, 0.5)) * swell)
    tilt = draws.uniform(-12, 12) if draws.chance(0.7) else draws.uniform(-90, 90)
    turn = cv2.getRotationMatrix2D((large / 2, large / 2), tilt, 1)
    turn[:, 2] -= (large - side) / 2
    picture = cv2.warpAffine(picture, turn, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    level = draws.uniform(30, 80)
    picture = level + np.float32(level * draws.uniform(0.35, 0.55)) * picture
    return np.minimum(picture, 220) + _grain(draws, side, draws.uniform(1, 5))


def contours(draws: Draws, side: int) -> Picture:
    """Lines of equal height on smooth hills, the ground plain, shaded or in steps."""
    scale = draws.log_uniform(25, 90)
    height = fractal(draws, side, rows=scale, columns=scale, octaves=2, gain=0.3)
    cycles = height * np.float32(draws.uniform(2, 6)) + 64
    down, across = np.gradient(cycles)
    slope = np.sqrt(down**2 + across**2) + np.float32(1e-3)
    away = np.abs(cycles - np.rint(cycles)) / slope  # pixels to the nearest line
    width = np.float32(draws.uniform(0.5, 1.2))
    line = np.exp(-((away / width) ** 2))
    ground = draws.uniform(20, 190)
    mode = draws.below(3)
    if mode == 0:
        picture = np.full((side, side), ground, np.float32)
    elif mode == 1:
        picture = np.float32(draws.uniform(130, 190)) * (cycles % 1)
    else:
        picture = ground + np.float32(draws.uniform(8, 25)) * standard(np.floor(cycles))
    ink = draws.uniform(0, 60) if ground > 100 else draws.uniform(110, 190)
    if mode != 1:
        picture += line * (np.float32(ink) - picture)
    return blur(picture, draws.uniform(0, 0.7)) + _grain(draws, side, draws.uniform(0.5, 8))


def noise(draws: Draws, side: int) -> Picture:
    """Bell-shaped or even noise of any mean, contrast and blur."""
    field = draws.normals(side, side)
    if draws.chance(0.4):
        field = draws.uniforms(side * side, -1, 1).astype(np.float32).reshape(side, side)
    if draws.chance(0.6):
        field = blur(field, draws.uniform(0.4, 4))
    level = draws.uniform(25, 165)
    contrast = draws.uniform(5, 0.4 * level)
    return np.float32(level) + np.float32(contrast) * standard(field)


def _grid(side: int) -> tuple[Picture, Picture]:
    """The row and the column of every pixel."""
    steps = np.arange(side, dtype=np.float32)
    return np.repeat(steps[:, None], side, 1), np.repeat(steps[None], side, 0)


def _grain(draws: Draws, side: int, deviation: float, sigma: float = 0.0) -> Picture:
    """Noise of this standard deviation, after a blur of `sigma` pixels."""
    grain = draws.normals(side, side)
    if sigma >= 0.2:
        grain = standard(blur(grain, sigma))
    return np.float32(deviation) * grain


def _add_dots(
    picture: Picture,
    draws: Draws,
    count: int,
    *,
    low: int,
    high: int,
    steepness: int = 3,
) -> None:
    """Add `count` dots of 1-2 pixels, most of them near the lower brightness."""
    side = len(picture)
    rows, columns = draws.uniforms(2 * count, 2, side - 3).reshape(2, count, 1, 1)
    peaks = low + (high - low) * draws.uniforms(count).reshape(count, 1, 1) ** steepness
    widths = draws.uniforms(count, 0.4, 0.75).reshape(count, 1, 1)
    down, across = np.mgrid[-2:3, -2:3]
    at = np.rint(rows).astype(int) + down, np.rint(columns).astype(int) + across
    squares = (at[0] - rows) ** 2 + (at[1] - columns) ** 2
    np.add.at(picture, at, (peaks * np.exp(-squares / (2 * widths**2))).astype(np.float32))


def _add_bright_star(picture: Picture, draws: Draws, tilt: float) -> None:
    """Add a core, a glow and four spikes, which start in direction `tilt` (radians)."""
    rows, columns = _grid(len(picture))
    row, column = draws.uniforms(2, 0, len(picture))
    rows, columns = rows - np.float32(row), columns - np.float32(column)
    radius = np.sqrt(rows**2 + columns**2)
    core = draws.uniform(1, 3.5)
    star = 300 * np.exp(-((radius / np.float32(core)) ** 2))
    star += np.float32(draws.uniform(30, 120)) * np.exp(-radius / np.float32(draws.uniform(3, 8)))
    length = np.float32(draws.log_uniform(6, 25) * core**0.5)
    sine, cosine = np.float32(math.sin(tilt)), np.float32(math.cos(tilt))
    along, beside = rows * sine + columns * cosine, columns * sine - rows * cosine
    bright = np.float32(draws.uniform(60, 180))
    for first, second in ((along, beside), (beside, along)):
        star += bright * np.clip(1 - np.abs(first) / length, 0, 1) * np.exp(-(second**2) * 2)
    picture += star


def _chips(draws: Draws, radii: np.ndarray, side: int) -> np.ndarray:
    """Convex polygons, count x 5 x 2 (column, row), in sixteenths of a pixel."""
    count = len(radii)
    turns = (np.arange(5) + draws.uniforms(count * 5, 0, 0.8).reshape(count, 5)) * (0.4 * np.pi)
    flat = draws.uniforms(count, 0.3, 1)[:, None]
    angle = draws.uniforms(count, 0, np.pi)[:, None]
    along, beside = np.cos(turns) * radii[:, None], np.sin(turns) * radii[:, None] * flat
    columns = along * np.cos(angle) - beside * np.sin(angle)
    rows = along * np.sin(angle) + beside * np.cos(angle)
    centres = draws.uniforms(2 * count, 0, side).reshape(count, 1, 2)
    return np.rint((np.stack([columns, rows], axis=2) + centres) * 16).astype(np.int32)


def _draw_line(
    marks: UInt8[np.ndarray, "side side"],
    draws: Draws,
    start: np.ndarray,
    angle: float,
    length: float,
    strength: float,
) -> None:
    """Draw a nearly straight line, one or two pixels wide."""
    bend = draws.uniform(-0.06, 0.06)
    turns = angle + bend * np.arange(5)
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (length / 5)
    points = np.rint((start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])) * 16)
    thickness = 2 if draws.chance(0.25) else 1
    cv2.polylines(marks, [points.astype(np.int32)], False, strength, thickness, cv2.LINE_AA, 4)
