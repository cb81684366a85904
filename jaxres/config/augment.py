"""The section `augment`: random changes to training images."""

import dataclasses
from typing import Literal, NamedTuple

from jaxres.config.checks import require, require_finite

# The most of some keys of `augment`, and the ends that others' ranges may have.
AUGMENT_MOST = {
    "rotate": 180.0,
    "perspective": 0.3,
    "tilt": 0.3,
    "skew": 0.3,
    "crop_padding": 512,
    "jitter": 16.0,
    "lighting": 1.0,
    "mixup": 10.0,
    "cutmix": 10.0,
}
AUGMENT_RANGES = {
    "zoom": (0.25, 4.0),
    "squish": (0.25, 4.0),
    "contrast": (0.0, 10.0),
    "saturation": (0.0, 10.0),
    "crop_area": (0.0, 1.0),
    "crop_ratio": (0.1, 10.0),
    "erase_area": (0.0, 1.0),
}


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training images; keys that are not given are the policy's."""

    policy: Literal["none", "digits", "natural", "imagenet"] = "none"
    """`none`; `digits`: study S3's list; `natural`: flip, crop and erasing, for photographs;
    `imagenet`: a random part of the image, resized to the canvas, and flip."""
    share: float = 1.0
    """Fraction of images that the changes of geometry, other than jitter, are applied to."""
    rotate: float | None = None
    """Largest rotation in degrees, in either direction."""
    zoom: tuple[float, float] | None = None
    """Range of the factor by which the image grows about a random point."""
    squish: tuple[float, float] | None = None
    """Range of the factor by which only its width grows."""
    perspective: float | None = None
    """How far each corner moves at most, as a fraction of half a side."""
    tilt: float | None = None
    """How far the ends of two opposite edges move apart at most, as a fraction of half a side."""
    skew: float | None = None
    """How far one corner moves at most along one edge, as a fraction of half a side."""
    crop_padding: int | None = None
    """Width in pixels of a mirrored border; a crop of the original size is then taken."""
    flip: bool | None = None
    """Mirror each image left to right with probability one half."""
    jitter: float | None = None
    """Largest distance in pixels by which each pixel is moved at random, across and down."""
    lighting: float | None = None
    """Largest change of brightness, as a fraction of the range of grey levels."""
    contrast: tuple[float, float] | None = None
    """Range of the factor on the distance from middle grey."""
    crop_area: tuple[float, float] | None = None
    """Cut a random part out of each photograph, with this fraction of its area, and resize it to
    the canvas (needs data.render host)."""
    crop_ratio: tuple[float, float] | None = None
    """Range of that part's aspect ratio, width over height."""
    saturation: tuple[float, float] | None = None
    """Range of the factor on the distance of colours from grey."""
    mixup: float | None = None
    """Blend each image and its label with another's, in proportions from Beta(mixup, mixup)."""
    cutmix: float | None = None
    """Paste a part of another image over each, with an area drawn likewise; if both are given, each
    batch draws mixup or cutmix."""
    erase: float | None = None
    """Fraction of images in which a rectangle is painted over in one grey."""
    erase_area: tuple[float, float] | None = None
    """Range of that rectangle's area, as a fraction of the image's."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_finite("augment", self)
        for key in ("share", "erase"):
            value = getattr(self, key)
            allowed = value is None or 0 <= value <= 1
            require(allowed, f"augment.{key} is {value}; allowed: 0 to 1")
        for key, most in AUGMENT_MOST.items():
            value = getattr(self, key)
            allowed = value is None or 0 <= value <= most
            require(allowed, f"augment.{key} is {value}; allowed: 0 to {most:g}")
        for key, (least, most) in AUGMENT_RANGES.items():
            low, high = getattr(self, key) or (least, most)
            require(
                least <= low <= high <= most,
                f"augment.{key} is {low} {high}; allowed: from {least:g} up to {most:g}",
            )

        area = self.crop_area
        require(
            area is None or area[0] > 0,
            f"augment.crop_area is {area and area[0]} {area and area[1]}; allowed: above 0",
        )

    def resolved(self) -> "Augmenting":
        """With the policy's values in the place of None."""
        given = {key: getattr(self, key) for key in Augmenting._fields}
        given = {key: value for key, value in given.items() if value is not None}
        return AUGMENT_POLICIES[self.policy]._replace(**given)


class Augmenting(NamedTuple):
    """The ranges of `AugmentConfig`, none left open; the defaults change nothing."""

    rotate: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    squish: tuple[float, float] = (1.0, 1.0)
    perspective: float = 0.0
    tilt: float = 0.0
    skew: float = 0.0
    crop_padding: int = 0
    flip: bool = False
    jitter: float = 0.0
    lighting: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.2)
    share: float = 1.0
    crop_area: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    saturation: tuple[float, float] = (1.0, 1.0)
    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether pixels are moved by a homography."""
        return self.share > 0 and self[:8] != Augmenting()[:8]

    @property
    def tones(self) -> bool:
        """Whether grey levels change."""
        return (self.lighting, self.contrast) != (0.0, (1.0, 1.0))

    @property
    def active(self) -> bool:
        """Whether anything happens to an image by itself, once it is on its canvas."""
        return self.moves or self.tones or self.colours or self.jitter > 0 or self.erase > 0

    @property
    def colours(self) -> bool:
        """Whether colours come nearer to grey or go further from it."""
        return self.saturation != (1.0, 1.0)

    @property
    def on_canvas(self) -> "Augmenting":
        """What is left to do after a random part was taken, which may have been mirrored."""
        return self if self.crop_area is None else self._replace(flip=False, crop_area=None)


AUGMENT_POLICIES = {
    "none": Augmenting(),
    # Study S3 names the list, not the amounts: here they are mild, since they add up.
    "digits": Augmenting(
        rotate=10.0,
        zoom=(0.9, 1.1),
        squish=(0.9, 1.1),
        perspective=0.05,
        tilt=0.05,
        skew=0.05,
        jitter=0.5,
        lighting=0.1,
        contrast=(0.8, 1.25),
    ),
    # Szegedy et al. 2015, section 6, as torchvision has it.
    "imagenet": Augmenting(flip=True, crop_area=(0.08, 1.0)),
    "natural": Augmenting(flip=True, crop_padding=4, erase=0.25),
}
