"""Fetching published files through TFDS, which keeps them in DATA_DIR/downloads."""

import http.client
import os
import urllib.request
from pathlib import Path
from typing import Any

from jaxres.data.datasets.dataset import Request
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say

CONNECT_TIMEOUT_S = 10


def download(request: Request, urls: dict[str, str]) -> dict[str, Path]:
    """Where the files at `urls` are now, by the same keys.

    Raises:
        InputError: an address cannot be reached, or holds another file than TFDS knows it to hold.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    name, data_dir, progress = request.name, request.data_dir, request.progress
    failures = (
        OSError,
        http.client.HTTPException,
        tfds.download.DownloadError,
        NonMatchingChecksumError,
    )
    try:
        # TFDS retries for minutes; a machine without a network learns it here at once.
        for url in urls.values():
            probe = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(probe, timeout=CONNECT_TIMEOUT_S).close()
        files = f"{len(urls)} files" if len(urls) > 1 else "1 file"
        say(f"downloading {name} ({files})", shown=progress)
        tfds.disable_progress_bar()
        manager = tfds.download.DownloadManager(
            download_dir=os.fspath(data_dir / "downloads"), dataset_name=name
        )
        fetched: Any = manager.download(urls)
        return {key: Path(path) for key, path in fetched.items()}
    except failures as error:
        reason = str(error).split("\n")[0].rstrip(":")
        raise InputError(
            f"{name} could not be downloaded ({reason}): fetch its files yourself and give "
            f"their folder, `jaxres data prepare {name} --from DIR`"
        ) from error
    finally:
        tfds.enable_progress_bar()
