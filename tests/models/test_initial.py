"""Initial weights: distribution, fans, and the same bits however they are drawn."""

import jax
import numpy as np
import pytest

from jaxres.models.initial import variance_scaling

KEY = jax.random.key(7)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(
    ("mode", "shape", "fan"),
    [
        ("fan_in", (300, 401), 300),
        ("fan_out", (300, 401), 401),
        ("fan_in", (3, 5, 60, 70), 900),
        ("fan_out", (3, 5, 60, 70), 1050),
    ],
)
def test_moments_are_those_of_jaxs_initializers(distribution, mode, shape, fan):
    ours = np.asarray(variance_scaling(2.0, mode, distribution)(KEY, shape), np.float64)
    theirs = jax.nn.initializers.variance_scaling(2.0, mode, distribution)(KEY, shape)
    assert ours.shape == shape
    assert ours.std() == pytest.approx(float(np.std(theirs)), rel=0.02)
    assert ours.var() == pytest.approx(2 / fan, rel=0.02)
    assert abs(ours.mean()) < 4 * ours.std() / ours.size**0.5
    standard = ours / ours.std()
    fourth = {"normal": 3.0, "uniform": 1.8}[distribution]
    assert np.mean(standard**4) == pytest.approx(fourth, rel=0.05)
    if distribution == "uniform":
        assert np.abs(ours).max() <= (6 / fan) ** 0.5


def test_neighbours_are_independent():
    values = np.asarray(variance_scaling(1.0, "fan_in", "normal")(KEY, (1, 100_001))).ravel()
    half = len(values) // 2 + 1  # the two values of one pair of Box and Muller lie so far apart
    for lag in (1, half):
        first, second = values[:-lag], values[lag:]
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
        assert abs(np.corrcoef(first**2, second**2)[0, 1]) < 0.02


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_a_compiled_drawing_gives_the_same_weights(distribution):
    draw = variance_scaling(2.0, "fan_out", distribution)
    compiled = jax.jit(lambda key: draw(key, (3, 3, 5, 7)))
    np.testing.assert_array_equal(compiled(KEY), draw(KEY, (3, 3, 5, 7)))
    assert not np.array_equal(draw(jax.random.key(8), (3, 3, 5, 7)), draw(KEY, (3, 3, 5, 7)))


def test_weights_of_a_seed_stay_what_they_are():
    """A seed means the same weights in later versions (golden values of `key(0)`)."""
    weights = variance_scaling(1.0, "fan_in", "uniform")(jax.random.key(0), (1, 4))
    np.testing.assert_allclose(
        weights, [[-1.6117013, -1.6920516, 0.38780713, -0.8952997]], rtol=1e-6
    )
    weights = variance_scaling(1.0, "fan_in", "normal")(jax.random.key(0), (1, 4))
    np.testing.assert_allclose(
        weights, [[-1.9769443, 0.15853332, -1.6766958, 2.9828792]], rtol=1e-6
    )
