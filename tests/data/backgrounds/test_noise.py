import math

import numpy as np
import pytest

from jaxres.data.backgrounds import noise
from jaxres.data.backgrounds.noise import Draws


def draws(index: int = 0) -> Draws:
    return Draws(np.array([7, index], np.uint64))


def test_uniforms_are_those_of_numpy():
    """NumPy makes doubles from the same words in the same way."""
    generator = np.random.Generator(np.random.Philox(key=np.array([7, 0], np.uint64)))
    expected = 2 + 3 * generator.random(100)
    np.testing.assert_allclose(draws().uniforms(100, 2, 5), expected, rtol=1e-15)


def test_numbers_stay_in_their_ranges():
    some = draws()
    numbers = np.array([some.log_uniform(2, 8) for _ in range(1000)])
    assert numbers.min() >= 2
    assert numbers.max() < 8
    assert np.median(numbers) == pytest.approx(4, rel=0.1)
    assert {some.below(3) for _ in range(100)} == {0, 1, 2}
    assert np.mean([some.chance(0.2) for _ in range(1000)]) == pytest.approx(0.2, abs=0.04)
    assert 0 <= some.angle() < 2 * math.pi


def test_normals_have_the_moments_of_the_bell_curve():
    numbers = draws().normals(500, 400).astype(np.float64)
    assert numbers.mean() == pytest.approx(0, abs=0.01)
    assert numbers.var() == pytest.approx(1, abs=0.01)
    assert (numbers**3).mean() == pytest.approx(0, abs=0.03)
    # The sum of four even numbers: 3 - 6 / (5 * 4)
    assert (numbers**4).mean() == pytest.approx(2.7, abs=0.05)


def test_a_field_is_smooth_at_its_scale_in_either_direction():
    field = noise.standard(noise.smooth(draws(), 200, 300, rows=4, columns=30))
    assert field.shape == (200, 300)
    assert (field[:, :-4] * field[:, 4:]).mean() > 0.9
    assert (field[:-4] * field[4:]).mean() < 0.5


def test_octaves_make_a_field_rougher():
    def roughness(octaves: int) -> float:
        field = noise.fractal(draws(), 128, rows=32, columns=32, octaves=octaves)
        assert field.std() == pytest.approx(1, abs=1e-3)
        return float(np.abs(np.diff(field)).mean())

    assert roughness(1) < roughness(2) < roughness(4)


def test_a_flat_field_stays_finite():
    np.testing.assert_array_equal(noise.standard(np.full((8, 8), 3, np.float32)), 0)
