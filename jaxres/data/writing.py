"""Writing a dataset as TFDS would, shard by shard: TFDS itself needs TensorFlow beyond 1 GB.

What is written opens with `tfds.builder_from_directory` and `tfds.data_source`. Images reach TFDS
as encoded bytes: raw arrays it would encode with TensorFlow, which is not needed here.
"""

import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxres.data.datasets.dataset import Content, Dataset, Example, Items, Split
from jaxres.data.readers.stated_size import stated
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import write_whole
from jaxres.runtime.screen import track

SHARD_BYTES = 128 << 20  # what an interrupted preparation does again at most
SUFFIX = "array_record"


@dataclasses.dataclass
class Shard:
    """A shard that is written, in `NUMBER.part` of the split's folder, with this beside it."""

    items: int = 0  # from which it was made, the bad ones too
    examples: int = 0
    size: int = 0  # bytes of the examples
    problems: list[str] = dataclasses.field(default_factory=list)  # of the bad ones


def write(
    dataset: Dataset, content: Content, metadata: Mapping[str, Any], stage: Path, *, shown: bool
) -> Path:
    """Write a dataset below `stage`; returns its folder there.

    Shards that are there already, of the same examples, are kept.

    Raises:
        InputError: an example is not as the features declare it, or a split has none.
    """
    from tensorflow_datasets.core import splits as tfds_splits

    builder = _builder(dataset, content, metadata, stage)
    folder = dataset.folder(stage)
    folder.mkdir(parents=True, exist_ok=True)
    features: Any = builder.info.features
    written = {}
    for name, split in content.splits.items():
        shards = _write_split(dataset.name, name, split, features, stage / "parts", shown=shown)
        if not sum(shard.examples for shard in shards):
            raise InputError(f"no image of split '{name}' of {dataset.name} can be used")
        written[name] = shards
    infos = []
    for name, shards in written.items():  # until all splits are written, each can be continued
        template = _template(dataset.name, name, folder)
        for number in range(len(shards)):
            final = template.sharded_filepath(shard_index=number, num_shards=len(shards))
            _part(stage / "parts" / name, number).rename(os.fspath(final))
        infos.append(
            tfds_splits.SplitInfo(
                name=name,
                shard_lengths=[shard.examples for shard in shards],
                num_bytes=sum(shard.size for shard in shards),
                filename_template=template,
            )
        )
    builder.info.set_splits(tfds_splits.SplitDict(infos))
    builder.info.write_to_directory(os.fspath(folder))
    return dataset.open(stage).folder


def _builder(dataset: Dataset, content: Content, metadata: Mapping[str, Any], stage: Path) -> Any:
    """TFDS's description of the dataset."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset.name
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

        def _split_generators(self, dl_manager: Any) -> Any:
            raise NotImplementedError

        def _generate_examples(self) -> Any:
            raise NotImplementedError

    return Builder(data_dir=os.fspath(stage), file_format=SUFFIX)


def _template(name: str, split: str, folder: Path) -> Any:
    from etils import epath
    from tensorflow_datasets.core import naming

    return naming.ShardedFileTemplate(
        data_dir=epath.Path(folder), dataset_name=name, split=split, filetype_suffix=SUFFIX
    )


def _write_split(
    name: str, split_name: str, split: Split, features: Any, folder: Path, *, shown: bool
) -> list[Shard]:
    """The shards of a split below `folder`, those of an interrupted preparation among them."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core import example_serializer

    parts = folder / split_name
    parts.mkdir(parents=True, exist_ok=True)
    serialize = example_serializer.ExampleSerializer(features.get_serialized_info())
    items = split.examples if isinstance(split.examples, Items) else None
    shards = list(_written(parts)) if items else []
    done = sum(shard.items for shard in shards)
    examples: Any = split.examples
    if items:
        examples = items.after(done)
        for problem in (problem for shard in shards for problem in shard.problems):
            items.bad.note(problem)
    tracked = track(examples, split.count - done, f"{name} {split_name}", shown)
    number = sum(shard.examples for shard in shards)
    while True:
        shard, writer = Shard(), None
        before = items.bad.count if items else 0
        for example in tracked:
            shard.items += 1
            if example is None:
                continue
            which = f"image {number} of {name} {split_name}"
            _require_declared(which, example, features)
            encoded = features.encode_example({**example, "image": io.BytesIO(example["image"])})
            record = serialize.serialize_example(encoded)
            if writer is None:
                writer = ArrayRecordWriter(os.fspath(_part(parts, len(shards))), "group_size:1")
            writer.write(record)
            number += 1
            shard.examples += 1
            shard.size += len(record)
            if shard.size >= SHARD_BYTES:
                break
        if writer is None:
            return shards
        writer.close()
        if items:
            shard.problems = items.bad.since(before)
        write_whole(_noted(parts, len(shards)), json.dumps(dataclasses.asdict(shard)))
        shards.append(shard)


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number}.part"


def _noted(parts: Path, number: int) -> Path:
    return parts / f"{number}.json"


def _written(parts: Path) -> Iterator[Shard]:
    """The shards that are whole; what comes after them is written anew."""
    number = 0
    while _noted(parts, number).is_file() and _part(parts, number).is_file():
        yield Shard(**json.loads(_noted(parts, number).read_text()))
        number += 1


def _require_declared(which: str, example: Example, features: Any) -> None:
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
