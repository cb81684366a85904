"""The section `data`: which images, composed and finished how, rendered where."""

import dataclasses
import math
from typing import Literal

from jaxres.config.checks import named_number, require, require_finite, require_seed
from jaxres.runtime.paths import require_path

MIN_DIGIT_SIDE = 8
MIN_CANVAS, MAX_CANVAS = 28, 4096
MAX_DIGIT_SCALE = MAX_CANVAS / MIN_DIGIT_SIDE
MAX_DIGITS = 16
MAX_TEXTURES = 16_384
MAX_ROTATION = 60.0  # degrees
# A setting that is ignored when another one is set.
INSTEAD = {"data.digit_side": "data.digit_side_range"}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images: which digits, over which backgrounds, composed how, rendered where."""

    dataset: str = "digits"
    """A name from `jaxres data list` such as `digits` (embedded) or `mnist`, the name of a dataset
    you prepared, `folder:DIR` (a folder of images per class), `csv:FILE` or
    `tfds:NAME[/CONFIG][:VERSION]`."""
    composition: Literal["scale_blend", "scatter_digits", "plain"] = "scale_blend"
    """`scale_blend`: a scaled digit over a photograph; `scatter_digits`: several turned digits over
    a noisy background; `plain`: the dataset's own image."""
    backgrounds: str = "embedded"
    """Photographs: `embedded` (two, from scikit-learn), `photos` (prepared), `black` (none)."""
    data_dir: str = ""
    """Folder of prepared datasets; default: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    render: Literal["device", "host"] = "device"
    """Where plans become pixels: in the compiled step, or with OpenCV in the input pipeline."""
    batch_size: int = 64
    """Images per step over all devices and processes."""
    canvas: int = 224
    """Side of an image in pixels."""
    digit_side: tuple[int, ...] = (112,)
    """Side of the digit in pixels; if several are given, each image draws one of them."""
    digit_side_range: tuple[int, int] | None = None
    """Draw the side uniformly from LOW to HIGH pixels instead of from digit_side."""
    placement: Literal["center", "random"] = "center"
    """Where the digit lies on the canvas."""
    opacity: float = 0.5
    """Opacity of the digit's square over the photograph, 0 to 1."""
    digits: tuple[int, ...] = (3,)
    """Number of digits on an image; if several are given, each image draws one of them."""
    target: Literal["largest_value", "count", "sum"] = "largest_value"
    """The label of scattered digits."""
    digit_scale: tuple[float, float] = (0.75, 1.25)
    """Range of a scattered digit's scale, drawn apart for width and height; at 1 its square has 28
    pixels."""
    digit_rotation: float = 35.0
    """Largest rotation of a scattered digit, in degrees, in either direction."""
    textures: tuple[str, ...] = ()
    """Backgrounds of scattered digits, each as `KIND:WEIGHT`: a kind of procedural texture, or
    `photos` (grey crops of data.backgrounds); default: a mixture like the contest's."""
    texture_count: int = 256
    """Squares in the bank of those backgrounds, each twice the canvas wide."""
    fresh_pictures: bool = True
    """Compose new training images in every epoch; false: repeat the same ones, as if stored."""
    progressive: tuple[str, ...] = ()
    """Train on smaller images at first: each `EPOCH:SIDE` sets the side from that epoch on, such as
    `0:128 6:160 12:224`; evaluation is at data.canvas (needs data.render host and composition
    plain)."""
    short_side: int | None = None
    """In evaluation, resize photographs to this short side, in pixels, and cut out their middle
    (needs data.render host); default: the largest square in the middle, resized."""
    photo_side: int | None = None
    """Shrink photographs to this short side (pixels) before cropping; default: as prepared."""
    resize: int | None = None
    """Resize the finished image to this side, in pixels, bicubically."""
    threshold: float | None = None
    """Then make pixels whose value (grey level / divisor) is below this black."""
    center: bool = False
    """Then move the bounding box of what is not black to the middle."""
    pad: int | None = None
    """Then pad with black on all four sides until the image's side has this many pixels."""
    divisor: Literal[255, 256] = 255
    """Grey levels are divided by this."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from red, green and blue after that division; default: that of model.init_from, or
    0."""
    std: tuple[float, float, float] | None = None
    """The values are then divided by this; default: that of model.init_from, or 1."""
    validation_examples: int | None = None
    """Training examples held out for validation (no effect on digits); default: 10,000, or a tenth
    if there are no more than that; for a dataset of your own a tenth, at most 10,000."""
    train_split: str = ""
    """Split of your own dataset to train on, in TFDS's syntax, such as `train[:90%]`."""
    validation_split: str = ""
    """Its split for validation; default: `validation`, or held-out training examples."""
    test_split: str = ""
    """Its split for testing; default: `test`, `validation`, or a tenth of each class."""
    split_seed: int = 0
    """Seed of the split into training and validation."""
    eval_seed: int = 0
    """Seed of the composed validation and test images: all runs of a study, whatever their
    train.seed, are tested on the same ones."""
    workers: int = 0
    """Worker processes of the host renderer; 0: one thread in this process."""
    prefetch: int = 2
    """Batches put on the devices ahead of the step."""

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        require_finite("data", self)
        require_path("data.data_dir", self.data_dir)
        require(self.batch_size >= 1, f"data.batch_size is {self.batch_size}; allowed: 1 or more")
        require(
            MIN_CANVAS <= self.canvas <= MAX_CANVAS,
            f"data.canvas is {self.canvas}; allowed: {MIN_CANVAS} to {MAX_CANVAS}",
        )
        allowed = f"allowed: {MIN_DIGIT_SIDE} to data.canvas ({self.canvas})"
        require(len(self.digit_side) > 0, f"data.digit_side is empty; {allowed}, one or several")
        key = "digit_side" if self.digit_side_range is None else "digit_side_range"
        for side in getattr(self, key):
            fits = MIN_DIGIT_SIDE <= side <= self.canvas or self.composition != "scale_blend"
            require(fits, f"data.{key} has {side}; {allowed}")
        if self.digit_side_range is not None:
            low, high = self.digit_side_range
            require(low <= high, f"data.digit_side_range is {low} {high}; the low end comes first")
        require(0.0 <= self.opacity <= 1.0, f"data.opacity is {self.opacity}; allowed: 0 to 1")
        require(
            len(self.digits) > 0 and all(1 <= digits <= MAX_DIGITS for digits in self.digits),
            f"data.digits is {self.digits}; allowed: 1 to {MAX_DIGITS}, one or several",
        )
        low, high = self.digit_scale
        require(
            0.1 <= low <= high <= MAX_DIGIT_SCALE,
            f"data.digit_scale is {low} {high}; allowed: 0.1 to {MAX_DIGIT_SCALE}",
        )
        require(
            0 <= self.digit_rotation <= MAX_ROTATION,
            f"data.digit_rotation is {self.digit_rotation}; allowed: 0 to {MAX_ROTATION:g}, "
            "beyond which a 6 looks like a 9",
        )
        self.texture_weights()
        require(
            1 <= self.texture_count <= MAX_TEXTURES,
            f"data.texture_count is {self.texture_count}; allowed: 1 to {MAX_TEXTURES}",
        )
        require(
            self.resize is None or MIN_CANVAS <= self.resize <= MAX_CANVAS,
            f"data.resize is {self.resize}; allowed: {MIN_CANVAS} to {MAX_CANVAS}",
        )
        require(
            self.threshold is None or 0.0 <= self.threshold <= 1.0,
            f"data.threshold is {self.threshold}; allowed: 0 to 1",
        )
        require(
            self.threshold_level <= 255,
            f"data.threshold is {self.threshold} with data.divisor {self.divisor}, which no grey "
            f"level reaches; allowed: 0 to {255 / self.divisor:.4f}",
        )
        drawn = self.resize or self.canvas
        require(
            self.pad is None or drawn <= self.pad <= MAX_CANVAS,
            f"data.pad is {self.pad}; allowed: the image's side ({drawn}) to {MAX_CANVAS}",
        )
        require(
            self.photo_side is None or self.photo_side >= self.canvas,
            f"data.photo_side is {self.photo_side}; allowed: data.canvas ({self.canvas}) or more",
        )
        self.sides_by_epoch()
        require(
            not self.progressive or (self.render == "host" and self.composition == "plain"),
            f"data.progressive is given with data.render {self.render} and data.composition "
            f"{self.composition}; allowed with it: host and plain",
        )
        require(
            self.short_side is None or self.canvas <= self.short_side <= MAX_CANVAS,
            f"data.short_side is {self.short_side}; allowed: data.canvas ({self.canvas}) to "
            f"{MAX_CANVAS}",
        )
        require(
            self.std is None or min(self.std) > 0,
            f"data.std is {self.std}; allowed: values above 0",
        )
        require(
            self.validation_examples is None or self.validation_examples >= 1,
            f"data.validation_examples is {self.validation_examples}; allowed: 1 or more",
        )
        require_seed("data.split_seed", self.split_seed)
        require_seed("data.eval_seed", self.eval_seed)
        require(self.workers >= 0, f"data.workers is {self.workers}; allowed: 0 or more")
        require(
            self.workers == 0 or self.render == "host",
            f"data.workers is {self.workers} with data.render {self.render}; "
            "worker processes serve data.render host only",
        )
        require(self.prefetch >= 1, f"data.prefetch is {self.prefetch}; allowed: 1 or more")

    @property
    def image_size(self) -> int:
        """Side of the images that the network sees, in pixels."""
        return self.pad or self.resize or self.canvas

    @property
    def threshold_level(self) -> int:
        """The lowest grey level that `threshold` lets stand."""
        return math.ceil((self.threshold or 0.0) * self.divisor)

    def sides_by_epoch(self) -> dict[int, int]:
        """`progressive` as the side of training images, in pixels, from each epoch on."""
        form = f"EPOCH:SIDE in rising epochs, such as 0:128, sides {MIN_CANVAS} to data.canvas"
        sides: dict[int, int] = {}
        for entry in self.progressive:
            epoch, _, side = entry.partition(":")
            fits = epoch.isdecimal() and side.isdecimal()
            fits = fits and MIN_CANVAS <= int(side) <= self.canvas
            require(
                fits and int(epoch) > max(sides, default=-1),
                f"data.progressive has '{entry}'; allowed: {form} ({self.canvas})",
            )
            sides[int(epoch)] = int(side)
        return sides

    def at_side(self, side: int) -> "DataConfig":
        """The settings of an epoch whose training images have this side, in pixels."""
        return dataclasses.replace(self, canvas=side, progressive=())

    def texture_weights(self) -> dict[str, float]:
        """`textures` as weights by kind."""
        weights: dict[str, float] = {}
        for entry in self.textures:
            form = "KIND:WEIGHT above 0, such as rings:2"
            kind, weight = named_number("data.textures", entry, allowed=form)
            require(kind not in weights, f"data.textures has {kind} twice; allowed: once")
            weights[kind] = weight
        return weights
