"""A small dataset of a user's own, in the forms in which it can be given."""

from collections.abc import Callable
from pathlib import Path

from jaxres.data import prepare
from tests.data.conftest import write_photo

CLASSES = {"cat": 14, "dog": 11, "owl": 12}
Form = Callable[[Path], str]  # from the folder to what data.dataset is


def write_pets(root: Path) -> Path:
    """A folder of three classes of photographs of one size, in files of several formats."""
    for place, (name, count) in enumerate(CLASSES.items()):
        for number in range(count):
            suffix = (".jpg", ".png", ".webp", ".JPEG")[number % 4]
            write_photo(root / name / f"{number}{suffix}", 100 * place + number, width=70)
    return root


def folder(root: Path) -> str:
    return f"folder:{root}"


def csv(root: Path) -> str:
    table = root.parent / "labels.csv"
    files = sorted(root.rglob("*.*"))
    rows = [f"{file.relative_to(root.parent)},{file.parent.name}" for file in files]
    table.write_text("\n".join(["file,label", *rows]))
    return f"csv:{table}"


def prepared(root: Path) -> str:
    """As `jaxres data prepare` stores it, in the folder `data` beside."""
    prepare.prepare(
        "pets",
        from_dir=root,
        data_dir=root.parent / "data",
        layout="image-folder",
        progress=False,
    )
    return "pets"


def tfds(root: Path) -> str:
    """The same as any dataset of TFDS."""
    return f"tfds:{prepared(root)}"


FORMS = (folder, csv, prepared, tfds)
