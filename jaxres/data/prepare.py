"""Preparing datasets: original files in, a TFDS dataset of ArrayRecord files out.

What is written opens with `tfds.builder_from_directory` and `tfds.data_source`. Images reach
TFDS as PNG bytes: raw arrays it would encode with TensorFlow, which is not needed here.
"""

import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxres.data.datasets import photos
from jaxres.data.datasets.bad import Bad
from jaxres.data.datasets.dataset import Content, Example, Request
from jaxres.data.datasets.registry import PREPARABLE
from jaxres.data.readers import tfds_records
from jaxres.data.readers.folders import require_folder
from jaxres.data.readers.stated_size import stated
from jaxres.runtime.errors import InputError, unknown_name
from jaxres.runtime.screen import say, track

STAGING_PREFIX = ".preparing-"
# No preparation takes a day: an older staging folder is what a killed run left behind.
STALE_AFTER_S = 24 * 3600
# TFDS gathers a split in memory up to this size and beyond it needs TensorFlow.
MAX_SPLIT_BYTES = 1000 << 20


def prepare(
    name: str,
    *,
    from_dir: Path | None,
    data_dir: Path,
    progress: bool = True,
    photo_side: int = 256,
    partial: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a dataset to DATA_DIR/NAME/VERSION and return that folder.

    It appears there whole or not at all. One that is there already is left as it is.

    Args:
        name: A key of `PREPARABLE`.
        from_dir: Folder (or archive) of the original files; None downloads them through TFDS.
        data_dir: Where prepared datasets live.
        progress: Report on standard error: a bar on a terminal, plain lines elsewhere.
        photo_side: Photographs with a longer short side are shrunk to this one, in pixels.
        partial: Take what is there of an incomplete dataset; its metadata then says so.
        skip_bad: Leave out images that cannot be used, and say which, instead of refusing all.
        overwrite: Replace a dataset that is there, once the new one is whole.
    """
    if name not in PREPARABLE:
        raise unknown_name("dataset to prepare", name, PREPARABLE)
    if photo_side < photos.MIN_SIDE:
        raise InputError(f"photo_side is {photo_side}; allowed: {photos.MIN_SIDE} pixels or more")
    dataset = PREPARABLE[name]
    if partial and not dataset.may_be_partial:
        allowed = ", ".join(key for key, other in PREPARABLE.items() if other.may_be_partial)
        raise InputError(f"--partial is given for {name}; allowed for: {allowed}")
    if skip_bad and not dataset.may_skip:
        allowed = ", ".join(key for key, other in PREPARABLE.items() if other.may_skip)
        raise InputError(f"--skip-bad is given for {name}; allowed for: {allowed}")
    bad = Bad(skip=skip_bad)
    request = Request(name, from_dir, data_dir, progress, photo_side, partial, bad)
    settings = {key: getattr(request, key) for key in dataset.settings}

    if from_dir is not None and not from_dir.is_file():
        require_folder(from_dir)
    folder = dataset.folder(data_dir)
    if folder.exists() and not overwrite:
        _require_as_asked(dataset.open(data_dir), settings, partial=partial)
        say(f"{name} is already prepared in {folder}; --overwrite replaces it", shown=progress)
        return folder

    assert dataset.prepare is not None
    content = dataset.prepare(request)
    with _writing_to(data_dir, name), _staging(data_dir, name) as stage:
        try:
            written = _write(request, content, settings, stage)
        except Exception:  # as of a split of which no image is left
            bad.finish()
            raise
        bad.finish()
        folder.parent.mkdir(exist_ok=True)
        _put_in_place(written, folder, aside=stage / "replaced")
    return folder


def _put_in_place(written: Path, folder: Path, *, aside: Path) -> None:
    """Rename `written` to `folder`; what was there goes aside, and back if that fails."""
    if folder.exists():
        folder.rename(aside)
    try:
        written.rename(folder)
    except BaseException:
        if aside.exists():
            aside.rename(folder)
        raise


def _require_as_asked(
    prepared: tfds_records.Prepared, settings: dict[str, Any], *, partial: bool
) -> None:
    if prepared.partial and not partial:
        raise InputError(
            f"{prepared.name} is already prepared in {prepared.folder}, but partial "
            f"({prepared.partial}): pass --overwrite to prepare it again, or --partial to keep it"
        )
    for key, wanted in settings.items():
        found = prepared.metadata.get(key)
        if found != wanted:
            raise InputError(
                f"{prepared.name} is already prepared in {prepared.folder} with {key} {found}, "
                f"asked for {wanted}: pass --overwrite to prepare it again"
            )


def _write(request: Request, content: Content, settings: dict[str, Any], stage: Path) -> Path:
    """Have TFDS write the dataset below `stage`; returns its folder there."""
    import tensorflow_datasets as tfds

    dataset = PREPARABLE[request.name]
    metadata = settings | ({"partial": content.partial} if content.partial else {})

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = request.name
        VERSION = tfds.core.Version(dataset.version)
        # TFDS would search this package for a checksum file, with a module (importlib_resources)
        # that it does not require. Checksums are checked on reading the originals.
        url_infos = None

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                description=content.description,
                features=tfds.features.FeaturesDict(content.features),
                supervised_keys=content.supervised_keys,
                homepage=content.homepage,
                citation=content.citation,
                metadata=tfds.core.MetadataDict(metadata) if metadata else None,
                # Example i is then image i of the originals.
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Example]]]:
            return {split: self._generate_examples(split) for split in content.splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, Example]]:
            count, examples = content.splits[split]
            size = 0
            tracked = track(examples, count, f"{request.name} {split}", request.progress)
            for key, example in enumerate(tracked):
                which = f"image {key} of {request.name} {split}"
                _require_declared(which, example, content.features)
                size += len(example["image"])
                if size > MAX_SPLIT_BYTES:
                    raise InputError(
                        f"the images of split '{split}' of {request.name} are larger than "
                        f"{MAX_SPLIT_BYTES >> 20} MiB: give fewer, or choose a smaller photo_side"
                    )
                yield key, {**example, "image": io.BytesIO(example["image"])}

    builder = Builder(data_dir=os.fspath(stage), file_format="array_record")
    # TFDS prints to standard output, which belongs to the caller, and draws bars of its own.
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    finally:
        tfds.enable_progress_bar()
    return dataset.open(stage).folder


def _require_declared(which: str, example: Example, features: Mapping[str, Any]) -> None:
    """Refuse what TFDS would write, and loading would refuse: another size, a label too high."""
    height, width = features["image"].shape[:2]
    size = stated(example["image"])
    if height and size and size != (width, height):
        raise InputError(
            f"{which} is {size.width} x {size.height} pixels; allowed: {width} x {height}"
        )
    if isinstance(label := example.get("label"), int):
        last = features["label"].num_classes - 1
        if not 0 <= label <= last:
            raise InputError(f"{which} has the label {label}; allowed: 0 to {last}")


@contextlib.contextmanager
def _staging(data_dir: Path, name: str) -> Iterator[Path]:
    """A folder beside the datasets that is gone afterwards, whatever happens."""
    data_dir.mkdir(parents=True, exist_ok=True)
    for leftover in data_dir.glob(f"{STAGING_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # its own run is removing it
            if time.time() - leftover.stat().st_mtime > STALE_AFTER_S:
                shutil.rmtree(leftover, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=f"{STAGING_PREFIX}{name}-", dir=data_dir))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextlib.contextmanager
def _writing_to(data_dir: Path, name: str) -> Iterator[None]:
    """Say plainly that a folder cannot be written: full, read-only, not a folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
    except RuntimeError as error:
        # ArrayRecord passes on what the system said: "... write() failed: REASON; writing PATH".
        failure, writing, _ = str(error).partition("; writing ")
        if not writing:
            raise
        reason = failure.split("failed: ")[-1]
    else:
        return
    raise InputError(
        f"cannot write {name} to {data_dir} ({reason}): free space there or choose another folder"
    )
