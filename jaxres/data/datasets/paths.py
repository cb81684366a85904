"""Where prepared datasets live."""

import os
from pathlib import Path

from jaxres.runtime.errors import InputError
from jaxres.runtime.paths import require_path

DEFAULT = "~/tensorflow_datasets"


def data_dir(given: str = "") -> Path:
    """The folder given, else $TFDS_DATA_DIR, else ~/tensorflow_datasets, as TFDS itself chooses.

    The last stays as it is, where nothing is, for a user who has no home.

    Raises:
        InputError: it begins with a home folder that nobody has, or is an address.
    """
    chosen = given or os.environ.get("TFDS_DATA_DIR") or DEFAULT
    require_path("data_dir" if given else "$TFDS_DATA_DIR", chosen)
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:
        if chosen == DEFAULT:
            return Path(chosen)
        raise InputError(f"data_dir is '{chosen}': {error}") from None
