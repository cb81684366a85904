"""Predicting: files and arrays get what evaluation would give them, every mistake a sentence."""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxres.checkpoint.manager import Checkpoints
from jaxres.cli.main import main
from jaxres.config import Config, to_dict
from jaxres.data.composed import open_split
from jaxres.data.readers import decoding
from jaxres.data.readers.encoded import EncodedImages
from jaxres.distributed.mesh import make_mesh
from jaxres.evaluation import predict as predicting
from jaxres.evaluation.evaluator import Evaluator
from jaxres.evaluation.predict import write_submission
from jaxres.models.build import network
from jaxres.runtime.errors import InputError
from jaxres.weights.importing import import_weights
from tests.weights import written

PLAIN = ("--data.composition=plain", "--model.head=flatten", "--data.mean", "0.2", "0.3", "0.4")


def predict(run_dir: Path, files: Sequence[Path], **options: Any) -> list[dict[str, Any]]:
    predictions, problems = predicting.predict(run_dir, files, **options)
    assert not problems
    return predictions


def save(folder: Path, config: Config, variables: dict[str, Any]) -> Path:
    checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint)
    progress = {"history": [], "best": None}
    checkpoints.save(0, variables, progress=progress, config=to_dict(config))
    checkpoints.close()
    return folder


def random_weights(config: Config, classes: int) -> dict[str, Any]:
    """Such that images differ in their classes."""
    net = network(config, classes=classes)
    last = net.params["head"]["linear"]
    last["kernel"] = 10 * last["kernel"]
    return {"params": net.params, "stats": net.stats}


@pytest.fixture
def run_of(tiny_config, tmp_path: Path) -> Callable[..., tuple[Path, Config]]:
    """`run_of(*flags, classes=10)`: a run directory of random weights, and its settings."""

    def make(*flags: str, classes: int = 10) -> tuple[Path, Config]:
        config = tiny_config(*PLAIN, *flags)
        return save(tmp_path / "run", config, random_weights(config, classes)), config

    return make


def write_images(folder: Path, dataset: Sequence[np.ndarray], suffix: str = ".png") -> list[Path]:
    """Files of RGB, RGBA or grey images."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, image in enumerate(dataset):
        paths.append(folder / f"{number}{suffix}")
        orders = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
        code = orders[image.shape[2]] if image.ndim == 3 else None
        assert cv2.imwrite(str(paths[-1]), image if code is None else cv2.cvtColor(image, code))
    return paths


def random_images(count: int, side: int = 24) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [
        cv2.resize(random.integers(0, 256, (6, 6, 3), dtype=np.uint8), (side, side))
        for _ in range(count)
    ]


def probabilities(results: list[dict[str, Any]]) -> np.ndarray:
    return np.array([list(result["probabilities"].values()) for result in results])


def logits_of(config: Config, classes: int, images: np.ndarray) -> jax.Array:
    weights = random_weights(config, classes)
    apply = network(config, classes=classes).apply
    inputs = jnp.asarray(images, jnp.float32)
    return apply(weights["params"], weights["stats"], inputs, train=False)[0]


def by_hand(config: Config, dataset: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities without any of the pipeline."""
    side = (config.data.canvas, config.data.canvas)
    resized = np.stack([cv2.resize(p, side, interpolation=cv2.INTER_CUBIC) for p in dataset])
    images = (resized.astype(np.float32) / 255 - np.array(config.data.mean)) / (
        config.data.std or 1
    )
    logits = np.float64(logits_of(config, 10, images))
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


FINISH = ("--data.resize=40", "--data.threshold=0.5", "--data.center=true", "--data.pad=48")


@pytest.mark.parametrize(("render", "finish"), [("device", ()), ("host", FINISH)])
def test_files_get_what_evaluation_gives_the_same_images(
    run_of, tmp_path: Path, render: str, finish: tuple[str, ...]
):
    run_dir, config = run_of(f"--data.render={render}", *finish)
    dataset = open_split(config, "test")
    evaluator = Evaluator(network(config, classes=10), config, make_mesh(1)).on(dataset)
    wanted = evaluator.predict(random_weights(config, 10))
    files = write_images(tmp_path / "files", list(np.asarray(dataset.source.images)))
    results = predict(run_dir, files)
    assert [result["label"] for result in results] == wanted["predicted"].tolist()
    found = probabilities(results)[np.arange(50), dataset.source.labels]
    # A level of grey between the renderers.
    np.testing.assert_allclose(
        -np.log(found), wanted["loss"], atol=1e-5 if render == "host" else 0.01
    )
    assert len({result["label"] for result in results}) > 1


def test_probabilities_are_those_of_the_network(run_of, tmp_path: Path):
    run_dir, config = run_of("--data.batch-size=8", "--data.std", "0.2", "0.3", "0.4")
    dataset = [*random_images(17), *random_images(2, side=32), *random_images(2, side=77)]
    files = write_images(tmp_path / "files", dataset)
    results = predict(run_dir, files)
    assert [result["file"] for result in results] == [str(file) for file in files]
    np.testing.assert_allclose(probabilities(results), by_hand(config, dataset), atol=1e-5)
    for result in results:
        assert [*result] == ["file", "label", "class", "probability", "probabilities"]
        assert result["class"] == str(result["label"])
        assert result["probability"] == max(result["probabilities"].values())
        assert result["probability"] == result["probabilities"][result["class"]]
    # Neither the batch nor its padding plays a part.
    np.testing.assert_allclose(
        probabilities(predict(run_dir, files[::-1])), probabilities(results)[::-1], atol=1e-6
    )


def test_a_file_is_decoded_once_though_it_fills_up_the_batch(
    run_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_dir, _ = run_of("--data.batch-size=8")
    files = write_images(tmp_path / "files", random_images(9))
    decoded = []
    decode = decoding.decode_file

    def count(encoded: bytes, path: Path) -> np.ndarray:
        decoded.append(path)
        return decode(encoded, path)

    monkeypatch.setattr(decoding, "decode_file", count)
    assert len(predict(run_dir, files)) == 9
    assert decoded == files


def test_files_are_finished_images_whatever_the_recipe_composes(run_of, tmp_path: Path):
    run_dir, config = run_of("--data.composition=scale_blend", "--data.render=host")
    dataset = random_images(3, side=32)
    files = write_images(tmp_path / "files", dataset)
    found = probabilities(predict(run_dir, files))
    np.testing.assert_allclose(found, by_hand(config, dataset), atol=1e-5)


def test_grey_colour_and_transparency(run_of, tmp_path: Path):
    run_dir, config = run_of()
    grey = random_images(1)[0][..., 0]
    rgb = np.dstack([grey] * 3)
    alpha = np.full_like(grey, 255)
    half = np.where(np.arange(24) < 12, 0, 255).astype(np.uint8) * np.ones((24, 1), np.uint8)
    shown = [grey, rgb, np.dstack([rgb, alpha]), np.dstack([rgb, half])]
    found = probabilities(predict(run_dir, write_images(tmp_path / "files", shown)))
    np.testing.assert_array_equal(found[:3], found[[0, 0, 0]])
    over_black = rgb * (half[..., None] > 0)
    np.testing.assert_allclose(found, by_hand(config, [rgb, rgb, rgb, over_black]), atol=1e-5)
    deep = [np.dstack([rgb, half]).astype(np.uint16) * 257]
    again = probabilities(predict(run_dir, write_images(tmp_path / "deep", deep)))
    np.testing.assert_allclose(again, found[3:], atol=1e-6)
    jpeg = write_images(tmp_path / "jpeg", [rgb], ".jpg")
    decoded = np.asarray(cv2.imread(str(jpeg[0])))[..., ::-1]
    found = probabilities(predict(run_dir, jpeg))
    np.testing.assert_allclose(found, by_hand(config, [decoded]), atol=1e-5)


def test_photographs_are_cut_to_squares_as_for_training(tiny_config, tmp_path: Path):
    config = tiny_config(*PLAIN, "--data.dataset=flowers", "--data.render=host")
    variables = random_weights(config, 5)
    run_dir = save(tmp_path / "run", config, variables)
    tall, wide = np.zeros((90, 60, 3), np.uint8), random_images(1, side=80)[0][:50]
    files = write_images(tmp_path / "files", [tall + 90, wide], ".jpg")
    results = predict(run_dir, files)
    assert [*results[0]["probabilities"]] == ["dandelion", "daisy", "tulips", "sunflowers", "roses"]
    encoded = EncodedImages([file.read_bytes() for file in files], 32, tmp_path)
    squares = np.asarray(encoded)
    logits = logits_of(config, 5, squares.astype(np.float32) / 255 - np.array(config.data.mean))
    np.testing.assert_allclose(probabilities(results), jax.nn.softmax(logits), atol=1e-5)


def test_no_data_is_needed_and_a_copy_will_do(run_of, tmp_path: Path):
    run_dir, _ = run_of("--data.dataset=fashion_mnist", f"--data.data-dir={tmp_path / 'gone'}")
    files = write_images(tmp_path / "files", random_images(1))
    shutil.move(run_dir, tmp_path / "copy")
    (result,) = predict(tmp_path / "copy", files, which="last")
    assert "Ankle boot" in result["probabilities"]


@pytest.mark.parametrize("flags", [[], ["--data.short-side=40"]])
def test_folders_are_taken_and_one_bad_file_does_not_stop_the_others(
    run_of, tmp_path: Path, capfd, flags: list[str]
):
    run_dir, _ = run_of("--data.batch-size=4", "--data.workers=1", "--data.render=host", *flags)
    folder = tmp_path / "pictures"
    files = write_images(folder, random_images(9))
    (folder / "below").mkdir()
    odd = folder / "below" / os.fsdecode(b"caf\xe9.png")
    shutil.copy(files[0], odd)
    bad = write_images(tmp_path / "bad", random_images(1))[0].rename(folder / "cut.png")
    bad.write_bytes(bad.read_bytes()[:-20])
    gone = tmp_path / "gone.png"
    assert main(["predict", str(run_dir), str(folder), str(gone), "--json"]) == 2
    said = capfd.readouterr()
    found = json.loads(said.out)
    assert {each["file"] for each in found["predictions"]} == {str(file) for file in (*files, odd)}
    assert [each["file"] for each in found["problems"]] == [str(gone), str(bad)]
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert [line.split("'")[1] if "'" in line else line.split()[1] for line in errors] == [
        str(gone),
        str(bad),
    ]
    alone = predict(run_dir, files[:1])[0]["probabilities"]
    one = next(each for each in found["predictions"] if each["file"] == str(odd))
    assert one["probabilities"] == pytest.approx(alone, abs=1e-6)
    assert main(["predict", str(run_dir), str(odd)]) == 0
    assert "caf\\udce9.png" in capfd.readouterr().out


def test_classes_without_names_are_numbered(run_of, tmp_path: Path):
    run_dir, _ = run_of(classes=12)
    (result,) = predict(run_dir, write_images(tmp_path / "files", random_images(1)))
    assert [*result["probabilities"]] == [str(number) for number in range(12)]


def test_the_labels_of_scattered_digits_are_numbers(run_of, tmp_path: Path):
    scattered = ("--data.composition=scatter_digits", "--data.canvas=64", "--data.target=count")
    run_dir, _ = run_of(*scattered, "--data.digits=9", "--data.dataset=fashion_mnist")
    (result,) = predict(run_dir, write_images(tmp_path / "files", random_images(1)))
    assert [*result["probabilities"]] == list("0123456789")


@pytest.mark.slow
def test_imported_weights(tmp_path: Path, capfd):
    ours = {name: 0.1 * abs(a) for name, a in written.random_weights("cifar_resnet20").items()}
    weights = written.save_torch(tmp_path / "w.pth", written.as_torchvision("cifar_resnet20", ours))
    import_weights(weights, "cifar_resnet20", tmp_path / "imported")
    files = write_images(tmp_path / "files", random_images(2, side=32))
    assert main(["predict", str(tmp_path / "imported"), *map(str, files), "--json"]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    printed = json.loads(said.out)
    assert [*printed] == ["predictions"]
    assert len(printed["predictions"]) == 2
    assert "airplane" in printed["predictions"][0]["probabilities"]


def submission(folder: Path, dataset: np.ndarray) -> Path:
    path = folder / "test_max_x"
    path.write_bytes(pickle.dumps(dataset.astype(np.float32)))
    return path


def contest_images(count: int) -> np.ndarray:
    return np.stack(random_images(count, side=128))[..., 0]


def test_a_submission_holds_what_predict_sees(run_of, tmp_path: Path, capfd):
    run_dir, _ = run_of("--data.batch-size=8")
    dataset = contest_images(21)
    files = write_images(tmp_path / "files", list(dataset))
    array, output = submission(tmp_path, dataset), tmp_path / "s.csv"
    output.write_text("an older one")
    assert main(["predict", str(run_dir), "--submission", str(array), "-o", str(output)]) == 0
    said = capfd.readouterr()
    assert said.out == f"written: {output} (21 images)\n"
    assert said.err.splitlines()[-1] == "predict, batches: 3 of 3"
    wanted = [f"{k},{result['label']}\n" for k, result in enumerate(predict(run_dir, files))]
    assert output.read_text() == "Id,Label\n" + "".join(wanted)
    assert len({line.partition(",")[2] for line in wanted}) > 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run", "files", "s.csv", "test_max_x"}


def test_a_submission_that_cannot_be_written_leaves_the_old_one(
    run_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run_dir, _ = run_of()
    array, output = submission(tmp_path, contest_images(1)), tmp_path / "s.csv"
    output.write_text("an older one")

    def fail(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match=rf"cannot write '{output}': No space left on device"):
        write_submission(run_dir, array, output)
    assert output.read_text() == "an older one"
    assert not (tmp_path / "s.csv.tmp").exists()


def test_a_submission_is_of_ten_digits(run_of, tmp_path: Path):
    run_dir, _ = run_of(classes=5)
    array = submission(tmp_path, contest_images(1))
    with pytest.raises(InputError, match="has 5 classes; allowed for a submission: 10"):
        write_submission(run_dir, array, tmp_path / "s.csv")
    assert not (tmp_path / "s.csv").exists()


def test_weights_that_give_no_numbers(tiny_config, tmp_path: Path):
    config = tiny_config(*PLAIN)
    weights = random_weights(config, 10)
    weights["params"]["head"]["linear"]["bias"] = np.full(10, np.nan, np.float32)
    run_dir = save(tmp_path / "run", config, weights)
    with pytest.raises(
        InputError, match=f"checkpoint 0 of '{run_dir}' gives probabilities that are"
    ):
        predict(run_dir, write_images(tmp_path / "files", random_images(1)))


def test_a_table_of_files(run_of, tmp_path: Path, capfd):
    run_dir, _ = run_of()
    files = write_images(tmp_path / "files", random_images(2))
    assert main(["predict", str(run_dir), *map(str, files)]) == 0
    said = capfd.readouterr()
    assert said.err == ""
    (header, *lines) = said.out.splitlines()
    assert header.split() == ["file", "class", "probability"]
    for line, result in zip(lines, predict(run_dir, files), strict=True):
        assert line.split() == [result["file"], result["class"], f"{result['probability']:.4f}"]


def test_mistakes_are_one_line(run_of, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch):
    run_of()
    monkeypatch.chdir(tmp_path)
    whole = write_images(tmp_path, random_images(1))[0].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.png").write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    np.save(tmp_path / "small.npy", np.zeros((2, 28, 28), np.uint8))
    np.save(tmp_path / "good.npy", np.zeros((2, 128, 128), np.uint8))
    before = sorted(path.name for path in tmp_path.iterdir())
    together = "--submission ARRAY and -o FILE.csv belong together: give both, or neither"
    cases = {
        "": "needs PATH: Run directory of `jaxres train`",
        "run": "jaxres predict needs IMAGE files or --submission ARRAY; given: neither",
        "run 0.png --submission good.npy -o s.csv": "or --submission ARRAY; given: both",
        "run --submission good.npy": together,
        "run 0.png -o s.csv": together,
        "run --submission good.npy -o s.csv --json": "--json is given with --submission",
        "run --submission absent.npy -o s.csv": "no file 'absent.npy'; allowed: one array",
        "run --submission small.npy -o s.csv": "has shape (2, 28, 28); allowed: (n, 128, 128)",
        "run --submission good.npy -o no/s.csv": "cannot write 'no/s.csv'; allowed: a file in a",
        "run --submission good.npy -o run": "cannot write 'run'; allowed: a file in a folder",
        "run absent.png": "no image at 'absent.png'; allowed: JPEG, PNG, WebP and BMP files",
        "run run": "no images in run: looked for .jpg",
        "run text.jpg cut.png": "text.jpg is not a whole image: OpenCV cannot decode its content",
        "run flipped.png": "flipped.png is not a whole image: it is cut short or damaged",
        "run text.jpg": "text.jpg is not a whole image: OpenCV cannot decode its content",
        "run empty.png": "empty.png is not a whole image: OpenCV cannot decode its content",
        "nowhere 0.png": "'nowhere' is not a run directory",
        "run 0.png --checkpoint 7": "no checkpoint '7' in",
        "run 0.png --chekpoint best": "did you mean '--checkpoint'",
        "run 0.png --data.canvas 64": "unknown flag '--data.canvas'",
    }
    for words, message in cases.items():
        assert main(["predict", *words.split()]) == 2, words
        said = capfd.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: "), said.err
        assert said.err.count("\n") == 1, said.err
        assert message in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
