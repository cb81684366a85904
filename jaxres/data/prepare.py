"""Preparing data sets: original files in, a TFDS data set of ArrayRecord files out.

What is written opens with `tfds.builder_from_directory` and `tfds.data_source`. Pictures reach
TFDS as PNG bytes: raw arrays it would encode with TensorFlow, which is not needed here.
"""

import contextlib
import http.client
import io
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxres.data import originals, photos, records
from jaxres.data.progress import say, track
from jaxres.errors import InputError, unknown_name

Example = dict[str, Any]  # "image" holds encoded bytes

STAGING_PREFIX = ".preparing-"
# No preparation takes a day: an older staging folder is what a killed run left behind.
STALE_AFTER_S = 24 * 3600
# TFDS gathers a split in memory up to this size and beyond it reaches for TensorFlow.
MAX_SPLIT_BYTES = 1000 << 20
CONNECT_TIMEOUT_S = 10


class Request(NamedTuple):
    """What was asked for."""

    name: str
    from_dir: Path | None
    data_dir: Path
    progress: bool
    photo_side: int


class Split(NamedTuple):
    """The examples of one split, made as they are written."""

    count: int
    examples: Iterable[Example]


class Content(NamedTuple):
    """A data set about to be written."""

    description: str
    features: dict[str, Any]  # TFDS feature connectors
    splits: dict[str, Split]
    supervised_keys: tuple[str, str] | None = None
    homepage: str | None = None
    citation: str | None = None


class Recipe(NamedTuple):
    """How a data set is made from its originals."""

    read: Callable[[Request], Content]
    # Fields of the request that change what is written; noted in the data set's metadata.
    settings: tuple[str, ...] = ()


def prepare(
    name: str,
    *,
    from_dir: Path | None,
    data_dir: Path,
    progress: bool = True,
    photo_side: int = 256,
    overwrite: bool = False,
) -> Path:
    """Write a data set to DATA_DIR/NAME/VERSION and return that folder.

    It appears there whole or not at all. One that is there already is left as it is.

    Args:
        name: A key of `RECIPES`.
        from_dir: Folder of the original files; None downloads them through TFDS.
        data_dir: Where prepared data sets live.
        progress: Report on standard error: a bar on a terminal, plain lines elsewhere.
        photo_side: Photographs with a longer short side are shrunk to this one, in pixels.
        overwrite: Replace a data set that is there, once the new one is whole.
    """
    if name not in RECIPES:
        raise unknown_name("data set to prepare", name, RECIPES)
    if photo_side < photos.MIN_SIDE:
        raise InputError(f"photo_side is {photo_side}; allowed: {photos.MIN_SIDE} pixels or more")
    request = Request(name, from_dir, data_dir, progress, photo_side)
    recipe = RECIPES[name]
    settings = {key: getattr(request, key) for key in recipe.settings}

    if from_dir is not None:
        originals.require_folder(from_dir)
    folder = records.folder_of(name, data_dir)
    if folder.exists() and not overwrite:
        _require_same_settings(records.open_prepared(name, data_dir), settings)
        say(f"{name} is already prepared in {folder}; --overwrite makes it again", progress)
        return folder

    content = recipe.read(request)
    with _writing_to(data_dir, name), _staging(data_dir, name) as stage:
        written = _write(request, content, settings, stage)
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


def _require_same_settings(prepared: records.Prepared, settings: dict[str, Any]) -> None:
    for key, wanted in settings.items():
        found = prepared.metadata.get(key)
        if found != wanted:
            raise InputError(
                f"{prepared.name} is already prepared in {prepared.folder} with {key} {found}, "
                f"asked for {wanted}: pass --overwrite to prepare it again"
            )


def _write(request: Request, content: Content, settings: dict[str, Any], stage: Path) -> Path:
    """Have TFDS write the data set below `stage`; returns its folder there."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = request.name
        VERSION = tfds.core.Version(records.VERSIONS[request.name])
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
                metadata=tfds.core.MetadataDict(settings) if settings else None,
                # Example i is then picture i of the originals.
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Example]]]:
            return {split: self._generate_examples(split) for split in content.splits}

        def _generate_examples(self, split: str) -> Iterator[tuple[int, Example]]:
            count, examples = content.splits[split]
            size = 0
            tracked = track(examples, count, f"{request.name} {split}", request.progress)
            for key, example in enumerate(tracked):
                size += len(example["image"])
                if size > MAX_SPLIT_BYTES:
                    raise InputError(
                        f"the pictures of split '{split}' of {request.name} are larger than "
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
    written = Path(builder.data_dir)
    records.Prepared(request.name, written).check()
    return written


@contextlib.contextmanager
def _staging(data_dir: Path, name: str) -> Iterator[Path]:
    """A folder beside the data sets that is gone afterwards, whatever happens."""
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


def _png(picture: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A grey or RGB picture as PNG."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)  # pyright: ignore[reportAssignmentType]
    return cv2.imencode(".png", picture)[1].tobytes()


def _digits(request: Request) -> Content:
    """MNIST and its successors, with the features and splits of TFDS's own."""
    import tensorflow_datasets as tfds

    published = originals.PUBLISHED[request.name]
    if request.from_dir is None:
        paths = _download(request, published)
    else:
        paths = {
            key: originals.find_idx(request.from_dir, file.name)
            for key, file in published.files.items()
        }
    arrays = {
        key: originals.read_idx(path, md5=published.files[key].md5) for key, path in paths.items()
    }

    def split(images: UInt8[np.ndarray, "n h w"], labels: UInt8[np.ndarray, " n"]) -> Split:
        pairs = zip(images, labels, strict=True)
        return Split(len(images), ({"image": _png(i), "label": int(k)} for i, k in pairs))

    return Content(
        description=published.title,
        features={
            "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=published.class_names),
        },
        splits={
            name: split(arrays[f"{name}_images"], arrays[f"{name}_labels"])
            for name in ("train", "test")
        },
        supervised_keys=("image", "label"),
        homepage=published.homepage,
        citation=published.citation,
    )


def _download(request: Request, published: originals.Published) -> dict[str, Path]:
    """Fetch the published files through TFDS, which keeps them in DATA_DIR/downloads."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    failures = (
        OSError,
        http.client.HTTPException,
        tfds.download.DownloadError,
        NonMatchingChecksumError,
    )
    urls = {key: file.url for key, file in published.files.items()}
    try:
        # TFDS retries for minutes; a machine without a network learns it here at once.
        for url in urls.values():
            probe = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(probe, timeout=CONNECT_TIMEOUT_S).close()
        say(f"downloading {request.name} ({len(urls)} files)", request.progress)
        tfds.disable_progress_bar()
        manager = tfds.download.DownloadManager(
            download_dir=os.fspath(request.data_dir / "downloads"), dataset_name=request.name
        )
        fetched: Any = manager.download(urls)
        return {key: Path(path) for key, path in fetched.items()}
    except failures as error:
        reason = str(error).split("\n")[0].rstrip(":")
        raise InputError(
            f"{request.name} could not be downloaded ({reason}): fetch its files yourself and give "
            f"their folder, `jaxres data prepare {request.name} --from DIR`"
        ) from error
    finally:
        tfds.enable_progress_bar()


def _photos(request: Request) -> Content:
    """Any folder tree of pictures, as backgrounds.

    Stored as PNG, four times the size of a good JPEG (95 MB for 500 photographs of 256x384): its
    pixels are the same with every version of every decoder, and so are the training pictures.
    """
    import tensorflow_datasets as tfds

    if request.from_dir is None:
        raise InputError(
            "photos are not published anywhere: give a folder of pictures, "
            "`jaxres data prepare photos --from DIR`"
        )
    root, photo_side = request.from_dir, request.photo_side

    def example(photo: photos.Photo) -> Example:
        return {
            "image": _png(photos.read_shrunk(photo.path, photo_side)),
            "file_name": os.fsencode(photo.path.relative_to(root)).decode(errors="replace"),
            "sha256": photo.sha256,
        }

    return Content(
        description=f"Photographs, shrunk to a short side of at most {photo_side} pixels.",
        features={
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "file_name": tfds.features.Text(),
            "sha256": tfds.features.Text(),
        },
        splits={
            split: Split(len(members), map(example, members))
            for split, members in photos.split_photos(root, shown=request.progress).items()
        },
    )


RECIPES: dict[str, Recipe] = {
    "mnist": Recipe(_digits),
    "fashion_mnist": Recipe(_digits),
    "photos": Recipe(_photos, settings=("photo_side",)),
}
