"""Where prepared data sets live."""

import os
from pathlib import Path

from jaxres.errors import InputError


def data_dir(given: str = "") -> Path:
    """The folder given, else $TFDS_DATA_DIR, else ~/tensorflow_datasets, as TFDS itself chooses.

    Raises:
        InputError: it begins with a home folder that nobody has.
    """
    chosen = given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise InputError(f"data_dir is '{chosen}': {error}") from None
