"""Plans: the few random numbers that describe a picture before a renderer makes its pixels.

The plan of a picture is a function of (seed, stream, epoch, position in the epoch) alone. It is
read from the counter-based generator Philox4x64-10 (Salmon et al. 2011) at a counter given by
the position, so any slice of an epoch is drawn by itself, whatever the number of processes,
devices or workers. Only raw generator words are used: NumPy keeps those stable across versions,
which it does not promise for its distributions.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt64

WORDS = 8  # per picture: two counter steps of four words
Stream = Literal["train", "validation", "test", "order"]
STREAMS: dict[Stream, int] = {"train": 0, "validation": 1, "test": 2, "order": 3}


# Plans are rows of n pictures. Their fields are NumPy arrays on the host, JAX arrays in a step.


class ScaleBlendPlan(NamedTuple):
    """What `ScaleBlend` draws."""

    digit: Int32[Any, " n"]  # which digit of the source
    photo: Int32[Any, " n"]  # which square of the background bank
    crop: Int32[Any, "n 2"]  # (row, column) of the canvas in that square, pixels
    side: Int32[Any, " n"]  # of the digit's square, pixels
    corner: Int32[Any, "n 2"]  # (row, column) of the digit's square on the canvas, pixels
    opacity: Float32[Any, " n"]  # of the digit's square, 0 to 1


class PlainPlan(NamedTuple):
    """What `Plain` draws."""

    image: Int32[Any, " n"]  # which picture of the source


Plan = ScaleBlendPlan | PlainPlan


@dataclasses.dataclass(frozen=True)
class ScaleBlend:
    """The composition of study S1: one scaled digit blended over a crop of a photograph.

    `sides` are the sides (pixels) a picture draws from, each as likely as the others. `photos`
    and `photo_side` are the number of squares in the background bank and their side (pixels).
    """

    canvas: int
    sides: tuple[int, ...]
    placement: Literal["center", "random"]
    opacity: float
    photos: int
    photo_side: int

    def draw(
        self, digits: Int32[np.ndarray, " n"], *, seed: int, stream: Stream, epoch: int, first: int
    ) -> ScaleBlendPlan:
        """The plans of the pictures at positions first, first + 1, ... of an epoch.

        `digits` says which digit each shows (see `epoch_order`).
        """
        n = len(digits)
        words = raw_words(n, seed=seed, stream=stream, epoch=epoch, first=first)
        side = np.asarray(self.sides, np.int32)[below(words[:, 0], len(self.sides))]
        margin = self.photo_side - self.canvas + 1
        if self.placement == "center":
            offset = (self.canvas - side) // 2
            corner = np.stack([offset, offset], axis=1)
        else:
            room = self.canvas - side + 1
            corner = np.stack([below(words[:, 4], room), below(words[:, 5], room)], axis=1)
        return ScaleBlendPlan(
            digit=digits,
            photo=below(words[:, 1], self.photos),
            crop=np.stack([below(words[:, 2], margin), below(words[:, 3], margin)], axis=1),
            side=side,
            corner=corner,
            opacity=np.full(n, self.opacity, np.float32),
        )


@dataclasses.dataclass(frozen=True)
class Plain:
    """The composition of a data set's own pictures, resized to the canvas."""

    canvas: int

    def draw(
        self, images: Int32[np.ndarray, " n"], *, seed: int, stream: Stream, epoch: int, first: int
    ) -> PlainPlan:
        """The plans of `images`; see `ScaleBlend.draw`."""
        del seed, stream, epoch, first  # nothing is left to chance
        return PlainPlan(images)


Composition = ScaleBlend | Plain


def raw_words(
    n: int, *, seed: int, stream: Stream, epoch: int, first: int = 0
) -> UInt64[np.ndarray, "n words"]:
    """Random words of pictures first ... first + n - 1."""
    key = np.array([seed, STREAMS[stream] << 32 | epoch], np.uint64)
    generator = np.random.Philox(key=key, counter=first * (WORDS // 4))
    return generator.random_raw(n * WORDS).reshape(n, WORDS)


def below(
    words: UInt64[np.ndarray, " n"], bound: int | Int32[np.ndarray, " n"]
) -> Int32[np.ndarray, " n"]:
    """Integers uniform in [0, bound), with a bias of at most bound / 2**32."""
    return ((words >> np.uint64(32)) * np.asarray(bound, np.uint64) >> np.uint64(32)).astype(
        np.int32
    )


@functools.lru_cache(maxsize=2)
def epoch_order(size: int, *, seed: int, epoch: int) -> Int64[np.ndarray, " size"]:
    """The order in which an epoch visits `size` examples: a uniformly drawn permutation."""
    rows = -(-size // WORDS)
    words = raw_words(rows, seed=seed, stream="order", epoch=epoch).reshape(-1)[:size]
    return np.argsort(words, kind="stable")
