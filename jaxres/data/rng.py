"""Random words of an image: a function of (seed, stream, epoch, position in the epoch) alone.

They are read from the counter-based generator Philox4x64-10 (Salmon et al. 2011) at a counter given
by the position, so any slice of an epoch is drawn by itself, whatever the number of processes,
devices or workers. Only raw generator words are used: NumPy keeps those stable across versions,
which it does not promise for its distributions.
"""

import functools
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt64

WORDS = 8  # per image, unless told: two counter steps of four words
Stream = Literal["train", "validation", "test", "order", "augment", "crop"]
STREAMS: dict[Stream, int] = {
    "train": 0,
    "validation": 1,
    "test": 2,
    "order": 3,
    "augment": 4,
    "crop": 5,
}


def raw_words(
    n: int, *, seed: int, stream: Stream, epoch: int, first: int = 0, words: int = WORDS
) -> UInt64[np.ndarray, "n {words}"]:
    """Random words, a multiple of four, of images first ... first + n - 1."""
    key = np.array([seed, STREAMS[stream] << 32 | epoch], np.uint64)
    generator = np.random.Philox(key=key, counter=first * (words // 4))
    return generator.random_raw(n * words).reshape(n, words)


def below(
    words: UInt64[np.ndarray, "*n"], bound: int | Int32[np.ndarray, "*n"]
) -> Int32[np.ndarray, "*n"]:
    """Integers uniform in [0, bound), with a bias of at most bound / 2**32."""
    return ((words >> np.uint64(32)) * np.asarray(bound, np.uint64) >> np.uint64(32)).astype(
        np.int32
    )


def uniform(
    words: UInt64[np.ndarray, "*n"], low: float = 0.0, high: float = 1.0
) -> Float64[np.ndarray, "*n"]:
    """Numbers uniform in [low, high) from the upper half of each word."""
    return low + (high - low) * 2.0**-32 * (words >> np.uint64(32)).astype(np.float64)


def swapped(words: UInt64[np.ndarray, "*n"]) -> UInt64[np.ndarray, "*n"]:
    """The words with their halves exchanged, for a second draw from the lower one."""
    return words << np.uint64(32) | words >> np.uint64(32)


def quarters(words: UInt64[np.ndarray, "*n"]) -> list[UInt64[np.ndarray, "*n"]]:
    """Four draws from each word, of 16 random bits of their own; those that follow are shared."""
    return [words << np.uint64(16 * place) for place in range(4)]


@functools.lru_cache(maxsize=2)
def epoch_order(size: int, *, seed: int, epoch: int) -> Int64[np.ndarray, " size"]:
    """The order in which an epoch visits `size` examples: a uniformly drawn permutation."""
    rows = -(-size // WORDS)
    words = raw_words(rows, seed=seed, stream="order", epoch=epoch).reshape(-1)[:size]
    return np.argsort(words, kind="stable")
