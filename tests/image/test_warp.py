import jax.numpy as jnp
import numpy as np

from jaxres.image import warp
from jaxres.image.hashing import pixel_noise

RNG = np.random.default_rng(0)


def bilinear(image: np.ndarray, row: float, column: float, border: str) -> float:
    """By the definition, one place at a time."""

    def level(i: int, j: int) -> float:
        height, width = image.shape
        if border == "mirror":
            i, j = (
                np.pad(np.arange(n), 60, mode="reflect")[k + 60]
                for n, k in ((height, i), (width, j))
            )
        elif not (0 <= i < height and 0 <= j < width):
            return 0.0
        return float(image[i, j])

    top, left = int(np.floor(row)), int(np.floor(column))
    down, right = row - top, column - left
    return (1 - down) * ((1 - right) * level(top, left) + right * level(top, left + 1)) + down * (
        (1 - right) * level(top + 1, left) + right * level(top + 1, left + 1)
    )


def test_sampling_is_bilinear_with_either_border():
    images = RNG.integers(0, 256, (3, 9, 7), np.uint8)
    chosen = np.array([2, 0], np.int32)
    row, column = (RNG.uniform(-20, 30, (2, 5, 6)).astype(np.float32) for _ in range(2))
    for border in ("mirror", "black"):
        ours = np.asarray(
            warp.sampled(
                jnp.asarray(images),
                jnp.asarray(chosen),
                jnp.asarray(row),
                jnp.asarray(column),
                border=border,
            )
        )
        for place in np.ndindex(ours.shape):
            image = images[chosen[place[0]]]
            expected = bilinear(image, float(row[place]), float(column[place]), border)
            np.testing.assert_allclose(ours[place], expected, atol=1e-2)


def test_places_move_by_the_matrix_and_by_noise_of_their_own():
    rows = jnp.asarray([[3, 4], [0, 1]])
    columns = jnp.asarray([[5, 6, 7], [0, 1, 2]])
    still = warp.pixel_places(rows, columns, None, None)
    np.testing.assert_array_equal(still[0][0], [[3, 3, 3], [4, 4, 4]])
    np.testing.assert_array_equal(still[1][1], [[0, 1, 2], [0, 1, 2]])
    matrix = jnp.tile(jnp.asarray([[2.0, 0, 1], [0, 3, -1], [0, 0, 0.5]]), (2, 1, 1))
    row, column = warp.transformed(matrix, *still)
    np.testing.assert_allclose(row[0], (3 * still[0][0] - 1) / 0.5)
    np.testing.assert_allclose(column[0], (2 * still[1][0] + 1) / 0.5)

    seeds, most = jnp.asarray([7, 8], jnp.uint32), jnp.asarray([0.5, 2.0])
    moved = warp.pixel_places(rows, columns, most, seeds)
    shift = np.asarray(moved[0][1] - still[0][1])
    assert 0 < np.abs(shift).max() <= 2
    # The same pixel of another window moves alike.
    part = warp.pixel_places(rows[:, 1:], columns[:, 2:], most, seeds)
    np.testing.assert_array_equal(part[1][:, 0, 0], moved[1][:, 1, 2])


def test_noise_is_uniform_and_the_same_in_numpy_and_jax():
    row, column = (each.astype(np.uint32) for each in np.mgrid[:256, :256])
    seed = np.uint32(12345)
    noise = pixel_noise(row, column, seed, axis=0)
    np.testing.assert_array_equal(
        noise, pixel_noise(jnp.asarray(row), jnp.asarray(column), jnp.asarray(seed), axis=0)
    )
    counts = np.histogram(noise, 16, (-1, 1))[0]
    assert np.abs(counts - 4096).max() < 5 * np.sqrt(4096)
    for other in (noise.T, pixel_noise(row, column, seed, axis=1), np.roll(noise, 1, 0)):
        assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.02


def test_patches_lie_where_their_corner_says_and_beyond_the_border_are_cut():
    patches = RNG.uniform(size=(3, 4, 4)).astype(np.float32)
    corner = np.array([[2, 3], [-1, 6], [20, 0]], np.int32)
    placed = np.asarray(warp.placed(jnp.asarray(patches), jnp.asarray(corner), side=8))
    expected = np.zeros((3, 16, 16), np.float32)
    expected[0, 6:10, 7:11], expected[1, 3:7, 10:14] = patches[:2]
    np.testing.assert_array_equal(placed, expected[:, 4:12, 4:12])
