"""The kinds of textures: each an image of grey values from an image's random numbers.

Values may leave 0..255 (the bank clips them). Lengths are pixels.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from jaxres.data.backgrounds.noise import Draws, blur, fractal, standard

Image = Float32[np.ndarray, "side side"]


def rings(draws: Draws, side: int) -> Image:
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
    if draws.chance(0.06):
        ramp = 1 - np.abs(2 * ramp - 1)  # both flanks sloped
    low = draws.uniform(0, 30) if draws.chance(0.1) else 0
    peak = draws.uniform(160, 198)
    ramp = np.minimum(ramp * np.float32(draws.uniform(1, 1.2)), 1)
    image = blur(np.float32(low) + np.float32(peak - low) * ramp, draws.uniform(0.1, 0.7))
    return image + _grain(draws, side, draws.uniform(0.5, 4))


def starfield(draws: Draws, side: int) -> Image:
    """Dark sky with haze and noise, many faint dots, some stars, a few with glow and spikes."""
    haze = fractal(draws, side, rows=50, columns=50, octaves=3)
    image = np.float32(draws.uniform(16, 36)) + np.float32(draws.uniform(1, 7)) * haze
    image += _grain(draws, side, draws.uniform(3, 8), draws.uniform(0, 0.6))
    area = side * side
    faint = int(area * draws.log_uniform(0.008, 0.04))
    _add_dots(image, draws, faint, low=20, high=180, steepness=2)
    _add_dots(image, draws, int(area * draws.log_uniform(5e-4, 5e-3)), low=120, high=520)
    tilt = draws.uniform(0, math.pi / 2) if draws.chance(0.5) else math.pi / 4
    for _ in range(draws.below(2 + area // 7000)):
        _add_bright_star(image, draws, tilt)
    return image


def speckle(draws: Draws, side: int) -> Image:
    """Grains of one size, evenly bright and dark or mostly dark with bright ones."""
    field = standard(blur(draws.normals(side, side), draws.uniform(0.5, 1.8)))
    if draws.chance(0.5):
        field = standard(np.exp(np.float32(draws.uniform(0.2, 0.6)) * field))
    patches = fractal(draws, side, rows=40, columns=40, octaves=2)
    contrast = np.float32(draws.uniform(18, 48))
    image = field * contrast * (1 + np.float32(draws.uniform(0, 0.3)) * patches)
    image += np.float32(draws.uniform(0, 15)) * patches
    return np.minimum(image + np.float32(draws.uniform(60, 168)), 230)


def gravel(draws: Draws, side: int) -> Image:
    """Chips of every brightness and direction, from large to small, with dark gaps and grain."""
    level = draws.uniform(135, 180)
    spread = draws.uniform(14, 34)
    patches = fractal(draws, side, rows=35, columns=35, octaves=3)
    image = np.full((side, side), level - 40, np.float32)
    count = int(side * side * draws.uniform(0.03, 0.06))
    smallest, largest = draws.uniform(1.5, 3), draws.uniform(8, 22)
    # Many small chips and few large ones. The large lie lower, but not in strict order.
    radii = smallest + (largest - smallest) * draws.uniforms(count) ** draws.uniform(4, 9)
    radii = radii[np.argsort(-radii * draws.uniforms(count, 0.3, 1), kind="stable")]
    polygons = _chips(draws, radii, side)
    brightness = level + spread * draws.normals(count, 1)[:, 0]
    gaps = draws.uniforms(count) < draws.uniform(0.1, 0.35)
    brightness -= np.where(gaps, draws.uniforms(count, 20, 110), 0) * np.minimum(4 / radii, 1)
    for polygon, bright in zip(polygons, brightness.tolist(), strict=True):
        cv2.fillConvexPoly(image, polygon, bright, cv2.LINE_8, 4)
    slivers = np.zeros((side, side), np.uint8)
    main = draws.angle()
    _draw_lines(slivers, draws, count // 15, main, lengths=(2, 12), strengths=(30, 130))
    image -= slivers
    slivers[:] = 0
    _draw_lines(slivers, draws, count // 60, main, lengths=(2, 20), strengths=(20, 90))
    image += slivers
    image = blur(image, draws.uniform(0.25, 0.6))
    image += np.float32(draws.uniform(4, 16)) * patches
    image += _grain(draws, side, draws.uniform(10, 28), draws.uniform(0, 0.6))
    return np.minimum(image, 185 + 0.65 * (image - 185))


def scratches(draws: Draws, side: int) -> Image:
    """Bright metal or concrete with long thin dark lines, short dark marks and blotches."""
    level = draws.uniform(105, 172)
    stains = fractal(draws, side, rows=50, columns=50, octaves=3)
    brushed = draws.log_uniform(1, 12) if draws.chance(0.4) else 1
    rows, columns = (1.5, 1.5 * brushed) if draws.chance(0.5) else (1.5 * brushed, 1.5)
    image = np.float32(level) + np.float32(draws.uniform(3, 14)) * stains
    texture = fractal(draws, side, rows=2 * rows, columns=2 * columns, octaves=2, gain=0.8)
    image += np.float32(draws.uniform(6, 16)) * texture
    marks = np.zeros((side, side), np.uint8)
    main = draws.angle()  # of a family of nearly parallel lines
    area = side * side
    faint = int(area * draws.uniform(0, 0.03))
    _draw_lines(marks, draws, faint, main, lengths=(1, 10), strengths=(10, 70))
    short = int(area * draws.log_uniform(3e-4, 8e-3))
    _draw_lines(marks, draws, short, main, lengths=(0.1, 9), strengths=(60, 255))
    long = 2 + draws.below(4 + side // 14)
    _draw_lines(marks, draws, long, main, lengths=(0.4 * side, 3 * side), strengths=(60, 255))
    worn = blur(marks.astype(np.float32) / 255, draws.uniform(0.4, 1.0))
    worn *= np.clip(1 + 0.4 * stains, 0.2, 1.4)
    depth = draws.uniform(60, 130)
    if draws.chance(0.15):
        depth = -0.4 * depth  # fresh scratches are bright
    image -= np.float32(depth) * worn
    return np.minimum(image + _grain(draws, side, draws.uniform(1, 5)), 235)


def ripples(draws: Draws, side: int) -> Image:
    """Dark water: long thin crests that cross at small angles over slow swell."""
    large = math.ceil(side * 1.42)
    swell = fractal(draws, large, rows=20, columns=70, octaves=3)
    water = np.float32(draws.uniform(0.2, 0.6)) * swell
    crest = draws.log_uniform(5, 12)
    stretch = draws.log_uniform(5, 12)
    sharp = np.float32(draws.uniform(1, 4))
    for layer in range(4):
        rows = crest * 0.7**layer
        waves = fractal(draws, large, rows=rows, columns=rows * stretch, octaves=2)
        ridge = standard(np.exp(-sharp * np.abs(waves)))
        lit = standard(waves - np.roll(waves, 1, 0))  # one flank of a wave is brighter
        slant = draws.uniform(-0.25, 0.25)
        shear = np.array([[1, 0, 0], [slant, 1, -slant * large / 2]])
        part = cv2.warpAffine(ridge + lit, shear, (large, large), borderMode=cv2.BORDER_REFLECT_101)
        water += np.float32(0.85**layer) * part
    tilt = draws.uniform(-0.15, 0.15) if draws.chance(0.7) else draws.uniform(-1.6, 1.6)
    rows, columns = (field - np.float32(side / 2) for field in _grid(side))
    sine, cosine = np.float32(math.sin(tilt)), np.float32(math.cos(tilt))
    wobble = fractal(draws, side, rows=crest, columns=2.5 * crest, octaves=2)
    down = rows * cosine - columns * sine + np.float32(large / 2)
    down += np.float32(draws.uniform(0, 0.2) * crest) * wobble
    across = rows * sine + columns * cosine + np.float32(large / 2)
    water = cv2.remap(
        standard(water), across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    level = draws.uniform(30, 80)
    image = np.float32(level) * (1 + np.float32(draws.uniform(0.35, 0.6)) * water)
    image = blur(np.maximum(image, np.float32(0.15 * level)), draws.uniform(0, 0.7))
    return np.minimum(image, 220) + _grain(draws, side, draws.uniform(1, 4))


def contours(draws: Draws, side: int) -> Image:
    """Lines of equal height on smooth hills, the ground plain, shaded or in steps."""
    scale = draws.log_uniform(25, 90)
    height = fractal(draws, side, rows=scale, columns=scale, octaves=2, gain=0.3)
    cycles = height * np.float32(draws.log_uniform(1.2, 4)) + 64
    down, across = np.gradient(cycles)
    slope = np.sqrt(down**2 + across**2) + np.float32(1e-3)
    away = np.abs(cycles - np.rint(cycles)) / slope  # pixels to the nearest line
    width = np.float32(draws.uniform(0.5, 1.2))
    line = np.exp(-((away / width) ** 2))
    ground = draws.uniform(20, 190)
    mode = draws.below(3)
    if mode == 0:
        image = np.full((side, side), ground, np.float32)
    elif mode == 1:
        image = np.float32(draws.uniform(130, 190)) * (cycles % 1)
    else:
        image = ground + np.float32(draws.uniform(8, 25)) * standard(np.floor(cycles))
    ink = draws.uniform(0, 60) if ground > 100 else draws.uniform(110, 190)
    if mode != 1:
        image += line * (np.float32(ink) - image)
    return blur(image, draws.uniform(0.1, 0.8)) + _grain(draws, side, draws.uniform(0.5, 8))


def noise(draws: Draws, side: int) -> Image:
    """Bell-shaped or even noise of any mean, contrast and blur."""
    if draws.chance(0.6):
        field = draws.normals(side, side)
    else:
        field = draws.uniforms(side * side).astype(np.float32).reshape(side, side)
    if draws.chance(0.6):
        field = blur(field, draws.uniform(0.4, 4))
    level = draws.uniform(25, 165)
    contrast = draws.uniform(5, 0.4 * level)
    return np.float32(level) + np.float32(contrast) * standard(field)


def _grid(side: int) -> tuple[Image, Image]:
    """The row and the column of every pixel."""
    steps = np.arange(side, dtype=np.float32)
    return np.repeat(steps[:, None], side, 1), np.repeat(steps[None], side, 0)


def _grain(draws: Draws, side: int, deviation: float, sigma: float = 0.0) -> Image:
    """Noise of this standard deviation, after a blur of `sigma` pixels."""
    grain = draws.normals(side, side)
    if sigma >= 0.2:
        grain = standard(blur(grain, sigma))
    return np.float32(deviation) * grain


def _add_dots(
    image: Image,
    draws: Draws,
    count: int,
    *,
    low: int,
    high: int,
    steepness: int = 3,
) -> None:
    """Add `count` dots of 1-2 pixels, most of them near the lower brightness."""
    side = len(image)
    rows, columns = draws.uniforms(2 * count, 2, side - 3).reshape(2, count, 1, 1)
    peaks = low + (high - low) * draws.uniforms(count).reshape(count, 1, 1) ** steepness
    widths = draws.uniforms(count, 0.4, 0.75).reshape(count, 1, 1)
    down, across = np.mgrid[-2:3, -2:3]
    at = np.rint(rows).astype(int) + down, np.rint(columns).astype(int) + across
    squares = (at[0] - rows) ** 2 + (at[1] - columns) ** 2
    np.add.at(image, at, (peaks * np.exp(-squares / (2 * widths**2))).astype(np.float32))


def _add_bright_star(image: Image, draws: Draws, tilt: float) -> None:
    """Add a core, a glow and four spikes, which start in direction `tilt` (radians)."""
    rows, columns = _grid(len(image))
    row, column = draws.uniforms(2, 0, len(image))
    rows, columns = rows - np.float32(row), columns - np.float32(column)
    radius = np.sqrt(rows**2 + columns**2)
    core = draws.uniform(1, 3.5)
    star = 300 * np.exp(-((radius / np.float32(core)) ** 2))
    star += np.float32(draws.uniform(40, 140)) * np.exp(-radius / np.float32(draws.uniform(3, 9)))
    length = np.float32(draws.log_uniform(8, 28) * core**0.5)
    sine, cosine = np.float32(math.sin(tilt)), np.float32(math.cos(tilt))
    along, beside = rows * sine + columns * cosine, columns * sine - rows * cosine
    bright = np.float32(draws.uniform(60, 180))
    for first, second in ((along, beside), (beside, along)):
        star += bright * np.clip(1 - np.abs(first) / length, 0, 1) * np.exp(-(second**2) * 2)
    image += star


def _chips(draws: Draws, radii: np.ndarray, side: int) -> np.ndarray:
    """Shards of four corners, count x 4 x 2 (column, row), in sixteenths of a pixel."""
    count = len(radii)
    turns = (np.arange(4) + draws.uniforms(count * 4, 0, 0.9).reshape(count, 4)) * (0.5 * np.pi)
    flat = draws.uniforms(count, 0.15, 0.9)[:, None]
    angle = draws.uniforms(count, 0, np.pi)[:, None]
    along, beside = np.cos(turns) * radii[:, None], np.sin(turns) * radii[:, None] * flat
    columns = along * np.cos(angle) - beside * np.sin(angle)
    rows = along * np.sin(angle) + beside * np.cos(angle)
    centres = draws.uniforms(2 * count, 0, side).reshape(count, 1, 2)
    return np.rint((np.stack([columns, rows], axis=2) + centres) * 16).astype(np.int32)


def _draw_lines(
    marks: UInt8[np.ndarray, "side side"],
    draws: Draws,
    count: int,
    main: float,
    *,
    lengths: tuple[float | int, float | int],
    strengths: tuple[int, int],
) -> None:
    """Draw nearly straight lines, one or two pixels wide, half of them near direction `main`."""
    middles = draws.uniforms(2 * count, 0, len(marks)).reshape(count, 1, 2)
    angles = draws.uniforms(count, 0, 2 * math.pi)
    near = draws.uniforms(count) < 0.5
    angles = np.where(near, main + (angles - math.pi) / 20, angles)
    low, high = lengths
    stretch = low * (high / low) ** draws.uniforms(count)
    steps = np.linspace(-0.5, 0.5, 7)
    bends = draws.uniforms(count, -0.15, 0.15)[:, None]
    turns = angles[:, None] + bends * steps
    points = (
        np.stack([np.cos(turns), np.sin(turns)], axis=2) * (stretch[:, None] * steps)[..., None]
    )
    points = np.rint((middles + points) * 16).astype(np.int32)
    shades = draws.uniforms(count, *strengths).tolist()
    widths = 1 + (draws.uniforms(count) < 0.12)
    for line, shade, width in zip(points, shades, widths.tolist(), strict=True):
        cv2.polylines(marks, [line], False, shade, width, cv2.LINE_AA, 4)
