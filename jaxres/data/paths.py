"""Where prepared data sets live."""

import os
from pathlib import Path


def data_dir(given: str = "") -> Path:
    """The folder given, else $TFDS_DATA_DIR, else ~/tensorflow_datasets, as TFDS itself chooses."""
    chosen = given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(chosen).expanduser()
