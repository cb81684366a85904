"""Make a folder of JPEG files of ImageNet's usual size, 500 x 375, from any photographs.

For `python -m benchmarks.input --recipe configs/imagenet/resnet50.yaml` where ImageNet is not.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from jaxres.data.own.layouts import jpeg
from jaxres.data.readers import decoding, folders
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say, track

WIDTH, HEIGHT = 500, 375
CLASSES = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; 2 for a folder without photographs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, required=True, help="photographs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--count", type=int, default=1000, help="files")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG, 1 to 100")
    args = parser.parse_args(argv)
    try:
        write(args.source, args.output, args.count, args.quality)
    except InputError as error:
        say(f"error: {error}")
        return 2
    return 0


def write(source: Path, output: Path, count: int, quality: int) -> None:
    """Parts of the photographs, each of at least four fifths of its width, in turn of all of them.

    Raises:
        InputError: there are no photographs, or the folder is there.
    """
    if output.exists():
        raise InputError(f"'{output}' exists; allowed: a new folder")
    paths = folders.find_images(source)
    random = np.random.default_rng(0)
    for number in track(range(count), count, "photographs", shown=True):
        image = decoding.read_image(paths[number % len(paths)])
        height, width = image.shape[:2]
        wide = int(min(width, height * WIDTH / HEIGHT) * random.uniform(0.8, 1))
        tall = wide * HEIGHT // WIDTH
        top, left = random.integers(0, (height - tall + 1, width - wide + 1))
        part = image[top : top + tall, left : left + wide]
        part = cv2.resize(part, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        path = output / f"class{number % CLASSES}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(part, quality))  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    sys.exit(main())
