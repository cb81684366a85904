"""Preparing datasets: original files in, a TFDS dataset of ArrayRecord files out."""

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from jaxres.data import writing
from jaxres.data.datasets import photos
from jaxres.data.datasets.bad import Bad
from jaxres.data.datasets.dataset import Content, Dataset, Items, Request
from jaxres.data.datasets.registry import DATASETS, PREPARABLE, calling
from jaxres.data.own import layouts
from jaxres.data.readers import tfds_records
from jaxres.data.readers.folders import require_folder
from jaxres.runtime.errors import InputError, os_reason, unknown_name
from jaxres.runtime.files import lock
from jaxres.runtime.screen import say

STAGING_PREFIX = ".preparing-"
ITEMS = "items"  # of a preparation that can be continued, a hash of what it is made from
# No preparation takes a day: an older staging folder is what a killed run left behind.
STALE_AFTER_S = 24 * 3600
MOST_QUALITY = 100


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
    layout: str | None = None,
    short_side: int | None = None,
    quality: int = 90,
) -> Path:
    """Write a dataset to DATA_DIR/NAME/VERSION and return that folder.

    It appears there whole or not at all. One that is there already is left as it is. With a layout,
    what was done when it is interrupted is kept, and the next preparation continues from there.

    Args:
        name: A key of `PREPARABLE`, or with a layout a name of the user's own.
        from_dir: Folder (or archive) of the original files; None downloads them through TFDS.
        data_dir: Where prepared datasets live.
        progress: Report on standard error: a bar on a terminal, plain lines elsewhere.
        photo_side: Photographs with a longer short side are shrunk to this one, in pixels.
        partial: Take what is there of an incomplete dataset; its metadata then says so.
        skip_bad: Leave out images that cannot be used, and say which, instead of refusing all.
        overwrite: Replace a dataset that is there, once the new one is whole.
        layout: How images of the user's own lie there, a key of `layouts.LAYOUTS`.
        short_side: With a layout, shrink larger images to this short side, in pixels.
        quality: Of the JPEG that such images become, 1 to 100.
    """
    dataset = _dataset(name, layout)
    if short_side is not None and (layout is None or short_side < photos.MIN_SIDE):
        allowed = f"{photos.MIN_SIDE} pixels or more, with --layout"
        raise InputError(f"short_side is {short_side}; allowed: {allowed}")
    if not 1 <= quality <= MOST_QUALITY:
        raise InputError(f"quality is {quality}; allowed: 1 to {MOST_QUALITY}")
    if photo_side < photos.MIN_SIDE:
        raise InputError(f"photo_side is {photo_side}; allowed: {photos.MIN_SIDE} pixels or more")
    if partial and not dataset.may_be_partial:
        allowed = ", ".join(key for key, other in PREPARABLE.items() if other.may_be_partial)
        raise InputError(f"--partial is given for {name}; allowed for: {allowed}")
    if skip_bad and not dataset.may_skip:
        allowed = ", ".join(key for key, other in PREPARABLE.items() if other.may_skip)
        raise InputError(f"--skip-bad is given for {name}; allowed for: {allowed}")
    bad = Bad(skip=skip_bad)
    request = Request(name, from_dir, data_dir, progress, photo_side, partial, bad)
    if layout is not None:
        request = request._replace(layout=layout, short_side=short_side, quality=quality)
    settings = {key: getattr(request, key) for key in dataset.settings}

    if from_dir is not None and not from_dir.is_file():
        require_folder(from_dir)
    folder = dataset.folder(data_dir)
    if folder.exists() and not overwrite:
        _require_as_asked(dataset.open(data_dir), settings, partial=partial)
        say(f"{name} is already prepared in {folder}; --overwrite replaces it", shown=progress)
        return folder

    assert dataset.prepare is not None
    with calling(dataset):
        content = dataset.prepare(request) if layout is None else None
    with (
        calling(dataset),
        _writing_to(data_dir, name),
        _staging(data_dir, name, kept=layout is not None) as stage,
    ):
        if content is None:
            content = dataset.prepare(request._replace(stage=stage))
        metadata = settings | ({"partial": content.partial} if content.partial else {})
        _forget_others(content, settings, stage)
        try:
            written = writing.write(dataset, content, metadata, stage, shown=progress)
        except Exception:  # as of a split of which no image is left
            bad.finish()
            raise
        bad.finish()
        folder.parent.mkdir(exist_ok=True)
        _put_in_place(written, folder, aside=stage / "replaced")
    return folder


def _dataset(name: str, layout: str | None) -> Dataset:
    """One of JaxRes's own, or with a layout one of the user's."""
    if layout is None:
        if name not in PREPARABLE:
            allowed = f"{', '.join(PREPARABLE)}, or a name of your own with --layout"
            raise unknown_name("dataset to prepare", name, PREPARABLE, shown=allowed)
        return PREPARABLE[name]
    if layout not in layouts.LAYOUTS:
        raise unknown_name("layout", layout, layouts.LAYOUTS)
    if name in DATASETS or name in PREPARABLE:
        raise InputError(f"--layout is given for {name}, which JaxRes has; choose another name")
    return layouts.dataset(name, layout)


def _forget_others(content: Content, settings: dict[str, Any], stage: Path) -> None:
    """Remove what an interrupted preparation wrote, if it was of other images."""
    told = hashlib.sha256(repr(settings).encode())
    for name, split in content.splits.items():
        items = split.examples.items if isinstance(split.examples, Items) else ()
        told.update(repr((name, items)).encode(errors="replace"))
    noted = stage / ITEMS
    if not noted.is_file() or noted.read_text() != told.hexdigest():
        shutil.rmtree(stage / "parts", ignore_errors=True)
        noted.write_text(told.hexdigest())


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


@contextlib.contextmanager
def _staging(data_dir: Path, name: str, *, kept: bool) -> Iterator[Path]:
    """A folder beside the datasets that is gone afterwards, unless it is `kept` by an interrupt."""
    is_new = not data_dir.exists()
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with _kept_stage(data_dir, name) if kept else _new_stage(data_dir, name) as stage:
            yield stage
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # there is something in it
                data_dir.rmdir()


@contextlib.contextmanager
def _new_stage(data_dir: Path, name: str) -> Iterator[Path]:
    for leftover in data_dir.glob(f"{STAGING_PREFIX}*"):
        if (leftover / ITEMS).exists():  # to be continued
            continue
        with contextlib.suppress(FileNotFoundError):  # its own run is removing it
            if time.time() - leftover.stat().st_mtime > STALE_AFTER_S:
                shutil.rmtree(leftover, ignore_errors=True)
    stage = Path(tempfile.mkdtemp(prefix=f"{STAGING_PREFIX}{name}-", dir=data_dir))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


@contextlib.contextmanager
def _kept_stage(data_dir: Path, name: str) -> Iterator[Path]:
    """One of this name that an interrupted preparation may have left, held by this process."""
    stage = data_dir / f"{STAGING_PREFIX}{name}"
    stage.mkdir(exist_ok=True)
    try:
        with lock(stage / "lock", timeout_s=0):
            try:
                yield stage
            except KeyboardInterrupt:
                say(f"interrupted: what is done is kept in {stage}; the same command continues")
                raise
            except BaseException:
                shutil.rmtree(stage, ignore_errors=True)
                raise
            shutil.rmtree(stage, ignore_errors=True)
    except filelock.Timeout:
        raise InputError(f"another process is preparing {name} in {data_dir}") from None


@contextlib.contextmanager
def _writing_to(data_dir: Path, name: str) -> Iterator[None]:
    """Say plainly that a folder cannot be written: full, read-only, not a folder."""
    try:
        yield
    except OSError as error:
        reason = os_reason(error)
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
