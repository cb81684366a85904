"""MNIST and Fashion-MNIST: published in four IDX files each."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxres.data.datasets.dataset import Content, Dataset, Request, Split, png
from jaxres.data.datasets.download import download
from jaxres.data.datasets.stored import load_published
from jaxres.data.readers import idx


class File(NamedTuple):
    """A published file: its name without `.gz`, the md5 of its decompressed bytes, its address."""

    name: str
    md5: str
    url: str


class Published(NamedTuple):
    """A published dataset in IDX files, keyed `train_images`, `train_labels` and so on."""

    title: str
    class_names: tuple[str, ...]
    files: dict[str, File]
    homepage: str
    citation: str


def _idx_files(base_url: str, md5: dict[str, str]) -> dict[str, File]:
    """The four files that MNIST and its successors consist of."""
    names = {
        "train_images": "train-images-idx3-ubyte",
        "train_labels": "train-labels-idx1-ubyte",
        "test_images": "t10k-images-idx3-ubyte",
        "test_labels": "t10k-labels-idx1-ubyte",
    }
    return {key: File(name, md5[key], f"{base_url}{name}.gz") for key, name in names.items()}


PUBLISHED: dict[str, Published] = {
    "mnist": Published(
        title="MNIST handwritten digits, 28x28",
        class_names=tuple("0123456789"),
        files=_idx_files(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            {
                "train_images": "6bbc9ace898e44ae57da46a324031adb",
                "train_labels": "a25bea736e30d166cdddb491f175f624",
                "test_images": "2646ac647ad5339dbf082846283269ea",
                "test_labels": "27ae3e4e09519cfbb04c329615203637",
            },
        ),
        homepage="http://yann.lecun.com/exdb/mnist/",
        citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to "
        "document recognition. Proceedings of the IEEE 86(11), 1998.",
    ),
    "fashion_mnist": Published(
        title="Fashion-MNIST articles of clothing, 28x28",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        files=_idx_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            {
                "train_images": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "train_labels": "9018921c3c673c538a1fc5bad174d6f9",
                "test_images": "8181f5470baa50b63fa0f6fddb340f0a",
                "test_labels": "15d484375f8d13e6eb1aabb0c3f46965",
            },
        ),
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        citation="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST: a novel image dataset for "
        "benchmarking machine learning algorithms. arXiv:1708.07747, 2017.",
    ),
}


def prepare(request: Request) -> Content:
    """MNIST and its successors, with the features and splits of TFDS's own."""
    import tensorflow_datasets as tfds

    published = PUBLISHED[request.name]
    if request.from_dir is None:
        urls = {key: file.url for key, file in published.files.items()}
        paths = download(request, urls)
    else:
        paths = {
            key: idx.find_idx(request.from_dir, file.name) for key, file in published.files.items()
        }
    arrays = {key: idx.read_idx(path, md5=published.files[key].md5) for key, path in paths.items()}

    def split(images: UInt8[np.ndarray, "n h w"], labels: UInt8[np.ndarray, " n"]) -> Split:
        pairs = zip(images, labels, strict=True)
        return Split(len(images), ({"image": png(i), "label": int(k)} for i, k in pairs))

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


MNIST, FASHION_MNIST = (
    Dataset(
        name=name,
        title=published.title,
        class_names=published.class_names,
        load=load_published,
        prepare=prepare,
        version="3.0.1",
        digits=name == "mnist",
    )
    for name, published in PUBLISHED.items()
)
