"""Where prepared data sets live."""

import os
from pathlib import Path

from jaxres.config.checks import require_path
from jaxres.errors import InputError


def data_dir(given: str = "") -> Path:
    """The folder given, else $TFDS_DATA_DIR, else ~/tensorflow_datasets, as TFDS itself chooses.

    Raises:
        InputError: it begins with a home folder that nobody has, or is an address.
    """
    chosen = given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        require_path("data_dir" if given else "$TFDS_DATA_DIR", chosen)
    except ValueError as error:
        raise InputError(str(error)) from None
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        raise InputError(f"data_dir is '{chosen}': {error}") from None
