"""The generator's images against what is known of the contest's (studies S3 and S4)."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxres.config import Config, DataConfig
from jaxres.data import composed
from jaxres.data.compose import render_host
from jaxres.data.datasets.registry import Source
from jaxres.data.readers.idx import read_idx

COUNT = 10_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(
    original: Callable[[str], Path], module_patch: pytest.MonkeyPatch
) -> composed.ComposedDataset:
    """The test split of the recipes' settings, over MNIST's published test digits."""
    images = read_idx(original("mnist") / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(original("mnist") / "t10k-labels-idx1-ubyte.gz").astype(np.int32)
    source = Source(images, labels, tuple("0123456789"))
    module_patch.setattr(composed.registry, "load", lambda *_, **__: source)
    data = DataConfig(dataset="mnist", composition="scatter_digits", canvas=128, render="host")
    return composed.open_split(Config(data=data), "test")


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_labels_are_the_largest_of_three_uniform_digits(dataset):
    plan = dataset.compose.draw(
        np.arange(COUNT, dtype=np.int32), seed=0, stream="test", epoch=0, first=0
    )
    shares = np.array([(k + 1) ** 3 - k**3 for k in range(10)]) / 1000
    counts = np.bincount(dataset.compose.labels(plan), minlength=10)
    errors = np.sqrt(COUNT * shares * (1 - shares))
    assert (np.abs(counts - COUNT * shares) <= 3 * errors).all(), counts


def test_images_are_as_bright_and_as_varied(dataset):
    images = np.concatenate(
        [
            dataset.batch(np.arange(k, k + 500, dtype=np.int32), epoch=0, first=k)["image"][..., 0]
            for k in range(0, COUNT, 500)
        ]
    )
    # Known: mean about 98, standard deviation 62, 1.6 % of the pixels in 201 to 254, background
    # means from 19 to 172.
    assert 92 < images.mean() < 104
    assert 56 < images.std() < 66
    assert 0.012 < ((images > 200) & (images < 255)).mean() < 0.024
    means = images.mean((1, 2))
    assert np.quantile(means, 0.01) < 35
    assert np.quantile(means, 0.99) > 150
    # The cores of three digits: 1.4 to 2.5 % of the eight real samples.
    assert 0.015 < (images == 255).mean() < 0.026


def test_digits_are_as_large(dataset):
    plan = dataset.compose.draw(
        np.arange(2_000, dtype=np.int32), seed=0, stream="test", epoch=0, first=0
    )
    alone = plan._replace(tone=np.zeros_like(plan.tone))
    alone = alone._replace(present=np.arange(3) == np.zeros((2_000, 1)))
    images = render_host.render(alone, None, dataset.resident, data=dataset.data)[..., 0]
    boxes = np.array([cv2.boundingRect((image > 127).astype(np.uint8)) for image in images])
    # Known: heights of 12 to 26 pixels, median 20; widths of 7 to 24, median 15.
    widths, heights = boxes[:, 2], boxes[:, 3]
    assert abs(np.median(heights) - 20) <= 1
    assert abs(np.median(widths) - 15) <= 1.5
    assert ((heights >= 12) & (heights <= 26)).mean() > 0.95
    assert ((widths >= 7) & (widths <= 24)).mean() > 0.93
