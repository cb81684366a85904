"""Every setting of a run: frozen dataclasses that hold all defaults and check what is allowed.

`recipe.py` fills them from YAML files and command-line flags.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

MIN_DIGIT_SIDE = 8
MIN_CANVAS, MAX_CANVAS = 28, 4096
MAX_DIGITS = 16
MAX_ROTATION = 60.0  # degrees
MAX_SEED = 2**32 - 1  # what JAX's random keys tell apart

Split = Literal["train", "validation", "test"]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _require_finite(section: str, config: Any) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            finite = not isinstance(number, float) or math.isfinite(number)
            _require(finite, f"{section}.{field.name} has {number}; allowed: finite numbers")


def _number(text: str) -> float:
    """A finite number, or -1."""
    try:
        number = float(text)
    except ValueError:
        return -1.0
    return number if math.isfinite(number) else -1.0


def _require_seed(key: str, seed: int) -> None:
    _require(0 <= seed <= MAX_SEED, f"{key} is {seed}; allowed: 0 to {MAX_SEED}")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Pictures: which digits, over which backgrounds, composed how, rendered where."""

    dataset: str = "digits"
    """`digits` (embedded), `mnist`, `fashion_mnist`, `cifar10`, `flowers` (`jaxres data list`)."""
    composition: Literal["scale_blend", "scatter_digits", "plain"] = "scale_blend"
    """`scale_blend`: a scaled digit over a photograph; `scatter_digits`: several turned digits over
    a noisy background; `plain`: the data set's own picture."""
    backgrounds: str = "embedded"
    """Photographs: `embedded` (two, of scikit-learn), `photos` (prepared), `black` (none)."""
    data_dir: str = ""
    """Folder of prepared data sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    render: Literal["device", "host"] = "device"
    """Where plans become pixels: in the compiled step, or with OpenCV in the input pipeline."""
    batch_size: int = 64
    """Pictures per step over all devices and processes."""
    canvas: int = 224
    """Side of a picture in pixels."""
    digit_side: tuple[int, ...] = (112,)
    """Side of the digit in pixels; of several values each picture draws one."""
    digit_side_range: tuple[int, int] | None = None
    """Draw the side uniformly from [low, high] pixels instead of from digit_side."""
    placement: Literal["center", "random"] = "center"
    """Where the digit lies on the canvas."""
    opacity: float = 0.5
    """Opacity of the digit's square over the photograph, 0 to 1."""
    digits: tuple[int, ...] = (3,)
    """Digits scattered over a picture; of several numbers each picture draws one."""
    target: Literal["largest_value", "count", "sum"] = "largest_value"
    """The label of scattered digits."""
    digit_scale: tuple[float, float] = (0.75, 1.3)
    """Range of a scattered digit's scale, each way by itself; at 1 its square has 28 pixels."""
    digit_rotation: float = 45.0
    """Degrees by which a scattered digit is turned at most, either way."""
    textures: tuple[str, ...] = ()
    """Backgrounds of scattered digits, each `KIND:WEIGHT`, a kind of procedural texture or `photos`
    (grey crops of data.backgrounds); default: a mixture like the contest's."""
    texture_count: int = 256
    """Squares in the bank of those backgrounds, each twice the canvas wide."""
    fresh_pictures: bool = True
    """Compose new training pictures in every epoch; false: the same ones, as if stored."""
    photo_side: int | None = None
    """Shrink photographs to this short side (pixels) before cropping; default: as prepared."""
    resize: int | None = None
    """Resize the finished picture to this side, in pixels, bicubically."""
    threshold: float | None = None
    """Then make values (grey level / divisor) below this one black."""
    center: bool = False
    """Then move the box of what is not black to the middle."""
    pad: int | None = None
    """Then pad with black on all sides to this side, in pixels."""
    divisor: Literal[255, 256] = 255
    """Grey levels are divided by this."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from red, green, blue after that division; default: model.init_from's, or 0."""
    std: tuple[float, float, float] | None = None
    """The values are then divided by this; default: that of model.init_from, or 1."""
    validation_examples: int = 10_000
    """Training examples held out for validation (without effect on digits)."""
    split_seed: int = 0
    """Seed of the split into training and validation."""
    workers: int = 0
    """Worker processes of the host renderer; 0: one thread in this process."""
    prefetch: int = 2
    """Batches put on the devices ahead of the step."""

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        _require_finite("data", self)
        _require(self.batch_size >= 1, f"data.batch_size is {self.batch_size}; allowed: 1 or more")
        _require(
            MIN_CANVAS <= self.canvas <= MAX_CANVAS,
            f"data.canvas is {self.canvas}; allowed: {MIN_CANVAS} to {MAX_CANVAS}",
        )
        allowed = f"allowed: {MIN_DIGIT_SIDE} to data.canvas ({self.canvas})"
        _require(len(self.digit_side) > 0, f"data.digit_side is empty; {allowed}, one or several")
        for side in self.digit_side if self.digit_side_range is None else self.digit_side_range:
            fits = MIN_DIGIT_SIDE <= side <= self.canvas or self.composition != "scale_blend"
            _require(fits, f"data.digit_side has {side}; {allowed}")
        if self.digit_side_range is not None:
            low, high = self.digit_side_range
            _require(low <= high, f"data.digit_side_range is {low} {high}; the low end comes first")
        _require(0.0 <= self.opacity <= 1.0, f"data.opacity is {self.opacity}; allowed: 0 to 1")
        _require(
            len(self.digits) > 0 and all(1 <= digits <= MAX_DIGITS for digits in self.digits),
            f"data.digits is {self.digits}; allowed: 1 to {MAX_DIGITS}, one or several",
        )
        low, high = self.digit_scale
        _require(0.1 <= low <= high, f"data.digit_scale is {low} {high}; allowed: 0.1 or more")
        _require(
            0 <= self.digit_rotation <= MAX_ROTATION,
            f"data.digit_rotation is {self.digit_rotation}; allowed: 0 to {MAX_ROTATION:g}, "
            "beyond which a 6 looks like a 9",
        )
        self.texture_weights()
        _require(
            self.texture_count >= 1,
            f"data.texture_count is {self.texture_count}; allowed: 1 or more",
        )
        _require(
            self.resize is None or MIN_CANVAS <= self.resize <= MAX_CANVAS,
            f"data.resize is {self.resize}; allowed: {MIN_CANVAS} to {MAX_CANVAS}",
        )
        _require(
            self.threshold is None or 0.0 <= self.threshold <= 1.0,
            f"data.threshold is {self.threshold}; allowed: 0 to 1",
        )
        drawn = self.resize or self.canvas
        _require(
            self.pad is None or drawn <= self.pad <= MAX_CANVAS,
            f"data.pad is {self.pad}; allowed: the picture's side ({drawn}) to {MAX_CANVAS}",
        )
        _require(
            self.photo_side is None or self.photo_side >= self.canvas,
            f"data.photo_side is {self.photo_side}; allowed: data.canvas ({self.canvas}) or more",
        )
        _require(
            self.std is None or min(self.std) > 0,
            f"data.std is {self.std}; allowed: values above 0",
        )
        _require(
            self.validation_examples >= 1,
            f"data.validation_examples is {self.validation_examples}; allowed: 1 or more",
        )
        _require_seed("data.split_seed", self.split_seed)
        _require(self.workers >= 0, f"data.workers is {self.workers}; allowed: 0 or more")
        _require(
            self.workers == 0 or self.render == "host",
            f"data.workers is {self.workers} with data.render {self.render}; "
            "worker processes serve data.render host only",
        )
        _require(self.prefetch >= 1, f"data.prefetch is {self.prefetch}; allowed: 1 or more")

    @property
    def picture_side(self) -> int:
        """Side of the pictures that the network sees, in pixels."""
        return self.pad or self.resize or self.canvas

    @property
    def threshold_level(self) -> int:
        """The lowest grey level that `threshold` lets stand."""
        return math.ceil((self.threshold or 0.0) * self.divisor)

    def texture_weights(self) -> dict[str, float]:
        """`textures` as weights by kind."""
        weights: dict[str, float] = {}
        for entry in self.textures:
            kind, _, number = entry.rpartition(":")
            weight = _number(number)
            _require(
                bool(kind) and weight > 0,
                f"data.textures has '{entry}'; allowed: KIND:WEIGHT above 0, as rings:2",
            )
            _require(kind not in weights, f"data.textures has {kind} twice; allowed: once")
            weights[kind] = weight
        return weights


# The most of some keys of `augment`, and the ends that others' ranges may have.
AUGMENT_MOST = {
    "rotate": 180.0,
    "perspective": 0.3,
    "tilt": 0.3,
    "skew": 0.3,
    "crop_padding": 512,
    "jitter": 16.0,
    "lighting": 1.0,
}
AUGMENT_RANGES = {
    "zoom": (0.25, 4.0),
    "squish": (0.25, 4.0),
    "contrast": (0.0, 10.0),
    "erase_area": (0.0, 1.0),
}


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training pictures; what is not given is the policy's."""

    policy: Literal["none", "digits", "natural"] = "none"
    """`none`; `digits`: study S3's list; `natural`: flip, crop and erasing, for photographs."""
    share: float = 1.0
    """Share of the pictures whose pixels are moved, other than by jitter."""
    rotate: float | None = None
    """Degrees, at most, either way."""
    zoom: tuple[float, float] | None = None
    """Range of the factor by which the picture grows about a random point."""
    squish: tuple[float, float] | None = None
    """Range of the factor by which it grows in width alone."""
    perspective: float | None = None
    """How far each corner moves at most, as a share of half a side."""
    tilt: float | None = None
    """How far the ends of two opposite edges move apart at most, as a share of half a side."""
    skew: float | None = None
    """How far one corner moves at most along one edge, as a share of half a side."""
    crop_padding: int | None = None
    """Pixels of mirrored border from which a crop is taken."""
    flip: bool | None = None
    """Mirror every second picture left to right."""
    jitter: float | None = None
    """Pixels by which the place of each pixel is moved at random, at most, both ways."""
    lighting: float | None = None
    """How much lighter or darker, at most, as a share of the range of grey levels."""
    contrast: tuple[float, float] | None = None
    """Range of the factor on the distance from middle grey."""
    erase: float | None = None
    """Share of pictures in which a rectangle of one grey is laid."""
    erase_area: tuple[float, float] | None = None
    """Range of that rectangle's share of the picture."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require_finite("augment", self)
        for key in ("share", "erase"):
            value = getattr(self, key)
            allowed = value is None or 0 <= value <= 1
            _require(allowed, f"augment.{key} is {value}; allowed: 0 to 1")
        for key, most in AUGMENT_MOST.items():
            value = getattr(self, key)
            allowed = value is None or 0 <= value <= most
            _require(allowed, f"augment.{key} is {value}; allowed: 0 to {most:g}")
        for key, (least, most) in AUGMENT_RANGES.items():
            low, high = getattr(self, key) or (least, most)
            _require(
                least <= low <= high <= most,
                f"augment.{key} is {low} {high}; allowed: from {least:g} up to {most:g}",
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
        """Whether anything happens."""
        return self.moves or self.tones or self.jitter > 0 or self.erase > 0


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
    "natural": Augmenting(flip=True, crop_padding=4, erase=0.25),
}
# Data sets whose labels a mirror, or more than a slight turn, would break.
DIGIT_DATASETS = ("digits", "mnist", "modified_mnist")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = "resnet18"
    """Name in the registry (see `jaxres models`)."""
    init_from: str = ""
    """Run or imported checkpoint whose weights to start from; its head only where it fits."""
    new_head: bool = False
    """Start with a fresh head even where that of init_from fits."""
    stem: Literal["imagenet", "small"] | None = None
    """Of ResNets; `imagenet` (default): 7x7 stride 2 and max pooling; `small`: 3x3 stride 1."""
    head: Literal["average", "max", "flatten"] | None = None
    """How the last feature maps become a row of features; default: the network's own."""
    dense: tuple[int, ...] | None = None
    """Outputs of rectified dense layers before the last one; default: the network's own."""
    dense_norm: bool | None = None
    """Batch norm in the dense layers; default: the network's own."""
    dropout: float | None = None
    """Share of features dropped after each dense layer, or without them before the last layer;
    default: the network's own."""
    spatial_dropout: float | None = None
    """Share of feature maps dropped in the body, and of values where it drops those; of networks
    that do so, default: their own."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations; parameters, statistics, logits and loss are float32."""
    sync_batch_norm: bool = False
    """Normalise with the statistics of the whole batch rather than of each device's part."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require_finite("model", self)
        for key in ("dropout", "spatial_dropout"):
            rate = getattr(self, key)
            _require(
                rate is None or 0.0 <= rate < 1.0, f"model.{key} is {rate}; allowed: 0 to below 1"
            )
        for outputs in self.dense or ():
            _require(outputs >= 1, f"model.dense has {outputs}; allowed: 1 or more")
        _require(
            not self.new_head or bool(self.init_from),
            "model.new_head is true but model.init_from is not given: every head is new then",
        )


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimiser, learning-rate schedule and loss."""

    name: str = "adamw"
    """`adadelta`, `adam`, `adamw`, `sgd` or `nesterov`."""
    learning_rate: float = 1e-3
    """The (peak) learning rate."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    """How the learning rate runs from the first step to the last."""
    warmup_fraction: float = 0.0
    """Share of all steps over which the rate rises to its peak."""
    momentum: float = 0.9
    """Of sgd and nesterov."""
    beta1: float = 0.9
    """Decay of the first moment (adam, adamw)."""
    beta2: float = 0.999
    """Decay of the second moment (adam, adamw)."""
    rho: float = 0.95
    """Decay of the squared averages (adadelta)."""
    epsilon: float = 1e-7
    """Added to denominators (adadelta, adam, adamw)."""
    weight_decay: float = 0.0
    """Of kernels only: decoupled for adamw, added to the gradient for the others."""
    l1: float = 0.0
    """Penalty on the absolute values of kernels, added to the gradient."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    clip_norm: float | None = None
    """Largest global norm of the gradient."""
    accumulate_steps: int = 1
    """Parts into which each device's batch is cut, their gradients averaged, to save memory."""
    ema_decay: float = 0.0
    """Evaluate an exponential moving average of the weights; 0: the weights themselves."""

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        _require_finite("optim", self)
        _require(
            self.learning_rate > 0,
            f"optim.learning_rate is {self.learning_rate}; allowed: above 0",
        )
        for key in ("momentum", "beta1", "beta2", "rho", "label_smoothing", "ema_decay"):
            value = getattr(self, key)
            _require(0.0 <= value < 1.0, f"optim.{key} is {value}; allowed: 0 to below 1")
        _require(
            0.0 <= self.warmup_fraction < 1.0,
            f"optim.warmup_fraction is {self.warmup_fraction}; allowed: 0 to below 1",
        )
        _require(
            self.schedule != "one_cycle" or self.warmup_fraction > 0,
            "optim.schedule one_cycle needs optim.warmup_fraction above 0 (usual: 0.3)",
        )
        _require(self.epsilon > 0, f"optim.epsilon is {self.epsilon}; allowed: above 0")
        for key in ("weight_decay", "l1"):
            value = getattr(self, key)
            _require(value >= 0, f"optim.{key} is {value}; allowed: 0 or more")
        _require(
            self.clip_norm is None or self.clip_norm > 0,
            f"optim.clip_norm is {self.clip_norm}; allowed: above 0",
        )
        _require(
            self.accumulate_steps >= 1,
            f"optim.accumulate_steps is {self.accumulate_steps}; allowed: 1 or more",
        )


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Which weights stay as they are, until when, and how fast the others move.

    Patterns are shell patterns over the names of parameters, as `stages.0.*` or `*norm*`.
    """

    freeze_layers: int = 0
    """Freeze the first so many layers: convolutions and dense layers, with the norms after them."""
    freeze: tuple[str, ...] = ()
    """Freeze the parameters that match one of these patterns."""
    unfreeze: tuple[str, ...] = ()
    """Gradual unfreezing, each `EPOCH:PATTERN`: after so many epochs train these as well."""
    rates: tuple[str, ...] = ()
    """Each `PATTERN:FACTOR`: times the learning rate; the first pattern that matches counts."""

    def __post_init__(self) -> None:
        """Check ranges and spellings."""
        _require(
            self.freeze_layers >= 0,
            f"transfer.freeze_layers is {self.freeze_layers}; allowed: 0 or more",
        )
        self.unfreezing()
        self.rate_factors()

    def unfreezing(self) -> tuple[tuple[int, str], ...]:
        """`unfreeze` as (epoch, pattern)."""
        pairs = []
        for entry in self.unfreeze:
            epoch, colon, pattern = entry.partition(":")
            _require(
                bool(epoch.isdecimal() and colon and pattern and int(epoch) >= 1),
                f"transfer.unfreeze has '{entry}'; allowed: EPOCH:PATTERN, as 1:stages.3.*",
            )
            pairs.append((int(epoch), pattern))
        _require(
            not pairs or bool(self.freeze or self.freeze_layers),
            "transfer.unfreeze is given but nothing is frozen: give transfer.freeze too",
        )
        return tuple(pairs)

    def rate_factors(self) -> tuple[tuple[str, float], ...]:
        """`rates` as (pattern, factor)."""
        pairs = []
        for entry in self.rates:
            pattern, _, number = entry.rpartition(":")
            factor = _number(number)
            _require(
                bool(pattern) and factor > 0,
                f"transfer.rates has '{entry}'; allowed: PATTERN:FACTOR above 0, as stages.*:0.1",
            )
            pairs.append((pattern, factor))
        return tuple(pairs)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of the run, devices, logging and limits."""

    epochs: int = 1
    """Passes over the training examples (an incomplete last batch is left out)."""
    seed: int = 0
    """Seed of the initial weights, the plans and dropout."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How the step is compiled for the devices: jit of shard_map, or pmap."""
    devices: int | None = None
    """Use only the first so many devices; default: all."""
    steps_per_call: int = 1
    """Steps run in one dispatch (`lax.scan`)."""
    log_every_steps: int = 50
    """Length of a log window; metrics are fetched from the devices once per window."""
    evaluate_every_epochs: int = 1
    """Epochs between evaluations on the validation split."""
    limit_train_examples: int | None = None
    """Use only the first so many training examples."""
    limit_eval_examples: int | None = None
    """Use only the first so many validation and test examples."""
    compile_cache: str = "default"
    """Where compiled programs wait for the next run: `default`, a folder, or `off`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(
            self.compile_cache.isprintable(),
            f"train.compile_cache is {self.compile_cache!r}; allowed: default, off or a folder",
        )
        _require_seed("train.seed", self.seed)
        for key in (
            "epochs",
            "devices",
            "steps_per_call",
            "log_every_steps",
            "evaluate_every_epochs",
            "limit_train_examples",
            "limit_eval_examples",
        ):
            value = getattr(self, key)
            _require(value is None or value >= 1, f"train.{key} is {value}; allowed: 1 or more")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    every_steps: int | None = None
    """Steps between checkpoints; default: only at each evaluation."""
    keep_last: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 1
    """Checkpoints kept for their validation accuracy."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for key in ("every_steps", "keep_last", "keep_best"):
            value = getattr(self, key)
            _require(
                value is None or value >= 1, f"checkpoint.{key} is {value}; allowed: 1 or more"
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    transfer: TransferConfig = TransferConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        """Check combinations of sections."""
        augment = self.augment.resolved()
        if self.data.dataset in DIGIT_DATASETS:
            _require(
                not augment.flip,
                f"augment.flip is true for {self.data.dataset}; allowed: false, since mirrored "
                "digits are no digits",
            )
            turned = self.data.digit_rotation if self.data.composition == "scatter_digits" else 0
            _require(
                turned + augment.rotate <= MAX_ROTATION,
                f"augment.rotate is {augment.rotate:g} for {self.data.dataset}; allowed: 0 to "
                f"{MAX_ROTATION - turned:g}, beyond which a 6 looks like a 9",
            )
        for epoch, pattern in self.transfer.unfreezing():
            _require(
                epoch < self.train.epochs,
                f"transfer.unfreeze has '{epoch}:{pattern}', but train.epochs is "
                f"{self.train.epochs}; allowed: epochs 1 to {self.train.epochs - 1}",
            )


# Keys that do not change what is computed: a resumed run may differ in them.
FREE_KEYS = frozenset(
    {
        "data.data_dir",
        "data.workers",
        "data.prefetch",
        "train.parallel",
        "train.devices",
        "train.log_every_steps",
        "train.compile_cache",
        "checkpoint.every_steps",
        "checkpoint.keep_last",
        "checkpoint.keep_best",
    }
)


def with_normalisation(config: Config, theirs: dict[str, Any]) -> Config:
    """The settings with `data.mean` and `data.std` as in other `data` settings, unless given."""
    missing = {
        key: tuple(theirs[key])
        for key in ("mean", "std")
        if getattr(config.data, key) is None and theirs[key] is not None
    }
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **missing))


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as nested plain values that YAML and JSON can hold."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return plain(dataclasses.asdict(config))


def flatten(nested: dict[str, Any]) -> dict[str, Any]:
    """`{"data": {"canvas": 64}}` as `{"data.canvas": 64}`."""
    return {
        f"{section}.{key}": value for section, keys in nested.items() for key, value in keys.items()
    }


def differing_keys(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose difference changes the run, each with its two values.

    FREE_KEYS are ignored, and a normalisation that ours leave to model.init_from.
    """
    given = ("mean", "std") if ours["model"]["init_from"] else ()
    left_open = {f"data.{key}" for key in given if ours["data"][key] is None}
    flat_ours, flat_theirs = flatten(ours), flatten(theirs)
    return {
        key: (flat_ours.get(key), flat_theirs.get(key))
        for key in sorted(flat_ours.keys() | flat_theirs.keys())
        if key not in FREE_KEYS | left_open and flat_ours.get(key) != flat_theirs.get(key)
    }
