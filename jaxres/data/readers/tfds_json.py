"""The JSON files of a prepared dataset, checked before TFDS believes them.

TFDS imports whatever module `features.json` names, which runs it, and reads shards from wherever a
template in `dataset_info.json` leads.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INFO, FEATURES, METADATA = "dataset_info.json", "features.json", "metadata.json"
MAX_BYTES = 1 << 20  # those of the datasets here have 2 kB

# TFDS's own features, whose modules are there already.
CLASSES = re.compile(r"tensorflow_datasets\.core\.features\.[a-z_]+\.[A-Za-z]+")
TEMPLATES = ("", "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
# JSON names fields in one of two spellings; older TFDS wrote `type`.
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
TEMPLATE_KEYS = ("filepathTemplate", "filepath_template")


def check(folder: Path) -> None:
    """Refuse files that TFDS had better not open.

    Raises:
        ValueError: one is not JSON, too large, not a regular file, or names something else than the
            features and shards of these datasets.
        OSError: one cannot be read.
    """
    for entry in folder.iterdir():
        if not entry.is_file() and not entry.is_dir():
            raise ValueError(f"{entry.name} is not a regular file")
    info, features = (_read(folder / name) for name in (INFO, FEATURES))
    if (folder / METADATA).exists() and not isinstance(_read(folder / METADATA), dict):
        raise ValueError(f"{METADATA} holds no names and values")
    for key, value in _entries(features):
        if key in CLASS_KEYS and not (isinstance(value, str) and CLASSES.fullmatch(value)):
            raise ValueError(f"{FEATURES} names the class {value!r:.100}, which is not opened")
    for key, value in _entries(info):
        if key in TEMPLATE_KEYS and value not in TEMPLATES:
            raise ValueError(f"{INFO} has the template {value!r:.100}; allowed: {TEMPLATES[1]}")


def _read(path: Path) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name} has more than {MAX_BYTES} bytes")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, however deep."""
    if isinstance(value, dict):
        yield from value.items()
        value = [*value.values()]
    if isinstance(value, list):
        for item in value:
            yield from _entries(item)
