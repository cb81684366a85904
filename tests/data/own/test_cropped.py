from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from jaxres.data.compose import cropped
from jaxres.data.compose.composition import Resident
from jaxres.data.compose.cropped import Box, Cropped
from jaxres.data.composed import open_split
from jaxres.data.readers import decoding
from jaxres.data.readers.encoded import ImageArrays, ImageFiles
from jaxres.runtime.errors import InputError
from tests.data.conftest import write_photo
from tests.data.own.conftest import Settings

TRAINING = Cropped(64, 72, area=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=True)
NOTHING = np.empty((0, 64, 64, 3), np.uint8)


def draw(n: int, first: int = 0, composition: Cropped = TRAINING) -> cropped.CropPlan:
    examples = np.zeros(n, np.int32)
    return composition.draw(examples, seed=3, stream="train", epoch=1, first=first)


def test_a_plan_depends_on_its_position_alone() -> None:
    whole, rest = draw(20), draw(8, first=12)
    for name, field in whole._asdict().items():
        np.testing.assert_array_equal(field[12:], getattr(rest, name))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (64, 64), (1000, 400)])
def test_parts_are_as_the_ranges_say(height: int, width: int) -> None:
    plan = draw(2000)
    assert plan.tries is not None
    assert plan.ranges is not None
    ranges = plan.ranges[0]
    boxes = [cropped.part(tries, ranges, height, width) for tries in plan.tries]
    top, left, tall, wide = np.array(boxes).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + tall <= height).all()
    assert (left + wide <= width).all()
    share, ratio = tall * wide / (height * width), wide / tall
    assert share.min() == pytest.approx(0.08, abs=0.03)
    assert ratio.min() == pytest.approx(3 / 4, abs=0.05)
    assert ratio.max() == pytest.approx(4 / 3, abs=0.1)
    # The place is uniform where there is room: on average the part is in the middle.
    assert np.mean(top + tall / 2) == pytest.approx(height / 2, rel=0.03)
    assert np.mean(left + wide / 2) == pytest.approx(width / 2, rel=0.03)
    assert plan.mirrored is not None
    assert plan.mirrored.mean() == pytest.approx(0.5, abs=0.04)


def test_a_strip_gives_the_largest_part_in_its_middle() -> None:
    plan = draw(1)
    assert plan.tries is not None
    assert plan.ranges is not None
    assert cropped.part(np.ones_like(plan.tries[0]), plan.ranges[0], 20, 900) == Box(0, 436, 20, 27)
    assert cropped.part(np.ones_like(plan.tries[0]), plan.ranges[0], 900, 20) == Box(436, 0, 27, 20)


def shown(plan: cropped.CropPlan, images: object, canvas: int = 64) -> np.ndarray:
    resident = Resident(images, NOTHING)
    return np.stack(
        [plan.on_host(k, resident, None, None, canvas=canvas) for k in range(len(plan.image))]
    )


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photo(tmp_path / "a.jpg", 0, height=900, width=1200)
    files, plan = ImageFiles([str(tmp_path / "a.jpg")], 64), draw(24)
    flags: list[int] = []
    real = cropped.decoding.decode_jpeg
    monkeypatch.setattr(
        cropped.decoding,
        "decode_jpeg",
        lambda content, path, flag: (flags.append(flag), real(content, path, flag))[1],
    )
    reduced = shown(plan, files)
    assert set(flags) == {cropped.REDUCED[4], cropped.REDUCED[8]}
    monkeypatch.setattr(cropped, "REDUCED", {})
    whole = shown(plan, files).astype(int)
    # Its edges are rounded to pixels of the smaller image: less than a shift by one of its pixels.
    shift = np.abs(np.diff(whole, axis=1)).mean() + np.abs(np.diff(whole, axis=2)).mean()
    assert np.abs(reduced - whole).mean() < shift / 2


def test_images_in_memory_and_in_files_give_the_same(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "a.png", 0, height=90, width=120)
    image = decoding.read_image(path)
    for composition in (TRAINING, Cropped(64, 72)):
        plan = draw(6, composition=composition)
        expected = shown(plan, ImageArrays([image], 64))
        np.testing.assert_array_equal(shown(plan, ImageFiles([str(path)], 64)), expected)
        np.testing.assert_array_equal(shown(plan, image[None]), expected)


def test_the_middle_is_torchvisions(original: Callable[[str], Path], torchvision_package) -> None:
    import torch  # pyright: ignore[reportMissingImports]

    transforms = torchvision_package.transforms
    theirs = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()]
    )
    files = sorted(original("scenes").rglob("*.jpg"))[:40]
    plan = draw(len(files), composition=Cropped(224, 256))
    plan = plan._replace(image=np.arange(len(files), dtype=np.int32))
    ours = shown(plan, ImageFiles([str(file) for file in files], None), canvas=224)
    for file, image in zip(files, ours, strict=True):
        expected = theirs(Pillow.open(file).convert("RGB")).permute(1, 2, 0).numpy()
        assert np.abs(image.astype(int) - expected).max() <= 1
    assert torch


def test_settings_choose_it(tmp_path: Path, settings: Settings) -> None:
    for place in range(40):
        write_photo(tmp_path / "set" / "ab"[place % 2] / f"{place}.jpg", place, height=70, width=90)
    flags = ["--augment.policy=imagenet", "--data.short-side=36", "--data.render=host"]
    config = settings(f"folder:{tmp_path / 'set'}", *flags)
    train, test = (open_split(config, split) for split in ("train", "test"))
    assert train.compose == Cropped(32, 36, (0.08, 1.0), (3 / 4, 4 / 3), flip=True)
    assert test.compose == Cropped(32, 36)
    numbers = np.arange(4, dtype=np.int32)
    first = train.batch(numbers, epoch=0, first=0)["image"]
    assert first.shape == (4, 32, 32, 3)
    assert (first != train.batch(numbers, epoch=1, first=0)["image"]).any()
    again = test.batch(numbers, epoch=0, first=0)["image"]
    np.testing.assert_array_equal(again, test.batch(numbers, epoch=5, first=9)["image"])


def test_images_that_stay_the_same_are_cut_as_they_were(tmp_path: Path, settings: Settings) -> None:
    for place in range(40):
        write_photo(tmp_path / "set" / "ab"[place % 2] / f"{place}.jpg", place, height=70, width=90)
    flags = ["--augment.policy=imagenet", "--data.short-side=36", "--data.render=host"]
    config = settings(f"folder:{tmp_path / 'set'}", *flags, "--data.fresh-pictures=False")
    numbers = np.arange(4, dtype=np.int32)
    for split in ("train", "test"):
        dataset = open_split(config, split)
        first, later = (dataset.batch(numbers, epoch=epoch, first=0)["image"] for epoch in (0, 3))
        np.testing.assert_array_equal(first, later)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--augment.crop-area", "0.5", "1"], "augment.crop_area is given with data.render dev"),
        (["--data.short-side=40"], "data.short_side is given with data.render device"),
        (
            ["--augment.crop-area", "0.5", "1", "--data.composition=scale_blend"],
            "crop_area is given with data.composition scale_blend; allowed: plain",
        ),
        (["--data.short-side=31"], "data.short_side is 31; allowed: data.canvas"),
        (["--augment.crop-area", "0", "1"], "augment.crop_area is 0.0 1.0; allowed: above 0"),
        (["--augment.policy=imagenet", "--data.render=host"], "mirrored digits are not digits"),
    ],
)
def test_settings_that_do_not_fit(settings: Settings, flags: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        open_split(settings("digits", *flags), "train")
