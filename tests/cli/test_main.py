"""What a user meets: one clear line and status 2 for every mistake, clean JSON, help."""

import contextlib
import errno
import io
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from jaxres import __version__
from jaxres.cli.main import COMMANDS, main
from jaxres.cli.train import default_run_dir
from jaxres.config.recipe import split_settings
from jaxres.runtime import compilation
from tests import tiny
from tests.conftest import TINY_FLAGS
from tests.marked import slow

assert tiny.Tiny
ROOT = pathlib.Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.yaml")


def fails(capfd: pytest.CaptureFixture, words: list[str]) -> str:
    """The one line that a wrong command says; checks status 2 and silence otherwise."""
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["data"], "jaxres data needs a command; allowed: list, prepare, preview"),
        (["data", "perpare"], "did you mean 'prepare'"),
        (["train"], "jaxres train needs PATH: YAML file"),
        (["train", "nowhere.yaml"], "no recipe at 'nowhere.yaml'"),
        (["train", QUICKSTART, "--data.batch-size", "-64"], "data.batch_size is -64; allowed"),
        (["train", QUICKSTART, "--data.batch-szie", "64"], "did you mean '--data.batch-size'"),
        (["train", QUICKSTART, "--outptu-dir", "x"], "did you mean '--output-dir'"),
        (["train", QUICKSTART, "--model.name", "resnet81"], "did you mean 'resnet18'"),
        (
            ["train", QUICKSTART, "--stopped-status", "256"],
            "--stopped-status is 256; allowed",
        ),
        (["train", QUICKSTART, "--data.dataset", "mnits"], "did you mean 'mnist'"),
        (["train", QUICKSTART, "--data.backgrounds", "photo"], "did you mean 'photos'"),
        (["train", QUICKSTART, "--optim.name", "adan"], "did you mean 'adam"),
        (["train", QUICKSTART, "--data.batch-size", "63"], "nearest allowed: 60 or 64"),
        (["train", QUICKSTART, "--data.batch-size", "2000"], "allowed: 1 to 1197"),
        (["train", QUICKSTART, "--train.devices", "64"], "allowed: 1 to 4"),
        (["train", QUICKSTART, "--data.dataset", "mnist", "--data.data-dir", "no"], "data prepare"),
        (["evaluate", "nowhere"], "'nowhere' is not a run directory"),
        (["evaluate", "nowhere", "--split", "tset"], "'test'"),
        (["models", "resent*"], "did you mean 'resnet"),
        (["models", "--image-size", "8"], "32"),
        (["models", "--classes", "0"], "--classes is 0"),
        (["models", "--image-size", "9" * 20], "allowed: 1 to 1000000000"),
        (["evaluate", "x" * 300], "run_dir is 'xxx"),
        (["predict", "no\nwhere", "a.png"], "'no where' is not a run directory"),
        (["data", "list", "--data-dir", "/y" * 4000], "data_dir is '/y/y"),
        (["data", "list", "--data-dir", "~nobody-there/x"], "data_dir is '~nobody-there/x': "),
        (["data", "a\nb"], "unknown command after 'data' 'a b'"),
        (["data", "prepare", "mnits"], "did you mean 'mnist'"),
        (["data", "preview", QUICKSTART, "-o", "sheet.gif"], "allowed: a name ending in .png"),
        (["data", "preview", QUICKSTART, "-o", "no/such/sheet.png"], "cannot write"),
        (["data", "preview", QUICKSTART, "--count", "0"], "--count is 0"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    capfd: pytest.CaptureFixture,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(capfd, words)
    assert list(tmp_path.iterdir()) == []  # nothing half-written


@pytest.mark.parametrize(
    "words",
    [
        ["train", "{recipe}", "--output-dir", "s3://bucket/run"],
        ["train", "gs://bucket/recipe.yaml"],
        ["train", "{recipe}", "--output-dir", "run", "--data.data-dir", "gs://bucket/data"],
        ["train", "{recipe}", "--output-dir", "run", "--model.init-from", "s3://bucket/run"],
        ["train", "{recipe}", "--output-dir", "run", "--train.compile-cache", "gs://bucket/c"],
        ["evaluate", "s3://bucket/run"],
        ["evaluate", "{run}", "-o", "s3://bucket/out.json"],
        ["predict", "{run}", "https://host/picture.png"],
        ["predict", "{run}", "x.npy", "--submission", "s3://bucket/x.csv"],
        ["show", "mistakes", "{run}", "-o", "s3://bucket/x.png"],
        ["report", "{run}", "-o", "abfss://host/page.html"],
        ["reproduce", "s1", "--runs", "s3://bucket/runs"],
        ["reproduce", "s1", "--results", "s3://bucket/results"],
        ["import-weights", "https://host/model.pth", "-o", "{run}", "--model", "resnet18"],
        ["import-weights", "{recipe}", "-o", "s3://bucket/run", "--model", "resnet18"],
        ["data", "list", "--data-dir", "gs://bucket/data"],
        ["data", "prepare", "mnist", "--from", "https://host/mnist"],
        ["data", "preview", "{recipe}", "-o", "s3://bucket/x.png"],
    ],
    ids=" ".join,
)
def test_addresses_do_not_become_folders(
    words: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{}")
    told = {"{recipe}": str(recipe), "{run}": str(tmp_path)}
    assert main([told.get(word, word) for word in words]) == 2
    (address,) = [word for word in words if "://" in word]
    said = capfd.readouterr().err
    assert f"is '{address}', an address; allowed: a path" in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


HOMELESS = """
import os, pwd, sys
def getpwuid(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = getpwuid
from jaxres.cli.main import main
os.chdir(sys.argv[1])
status = [main(words) for words in (
    ["data", "list"],
    ["data", "preview", sys.argv[2], "-o", "sheet.png"],
    ["data", "prepare", "mnist"],
)]
from jaxres.runtime import compilation
compilation.use_cache("default")
print(status, compilation.folder_in_use())
"""


@pytest.mark.slow
def test_a_user_without_a_home_has_the_embedded_data_and_a_cache(tmp_path: pathlib.Path) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "JAX_PLATFORMS")}
    environment["TMPDIR"] = str(tmp_path)
    code = [sys.executable, "-c", HOMELESS, str(tmp_path), str(ROOT / "configs/quickstart.yaml")]
    done = subprocess.run(code, env=environment, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1:]
    assert last == [f"[0, 0, 2] {tmp_path}/cache-{os.getuid()}/jaxres"], done.stdout + done.stderr
    assert "~/tensorflow_datasets" in done.stdout
    said = done.stderr.splitlines()
    assert said == ["error: there is no home folder to prepare data in: give --data-dir"], said
    assert (tmp_path / "sheet.png").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("platform", ["cuda", slow("tpu")])
def test_devices_that_are_not_there_are_one_line(platform: str, tmp_path: pathlib.Path) -> None:
    environment = os.environ | {"JAX_PLATFORMS": platform}
    command = [sys.executable, "-m", "jaxres", "train", QUICKSTART, "--output-dir"]
    done = subprocess.run(
        [*command, str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("WARNING", "E0"))]
    assert line.startswith(f"error: JAX_PLATFORMS is '{platform}', of which JAX finds no device")
    assert line.endswith("without it JAX finds cpu x 4 here")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_output_that_is_closed_is_said(tmp_path: pathlib.Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m jaxres models --json"
    done = subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: standard output is closed; allowed: open, or > /dev/null\n"
    done = subprocess.run(
        f"{command} 2>&-", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["models"]


def test_names_of_folders_are_utf_8(tmp_path: pathlib.Path, capfd) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{}")
    folder = os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9")
    said = fails(capfd, ["train", str(recipe), "--output-dir", folder])
    assert f"output_dir is '{tmp_path}/caf\\xe9'; allowed: a path whose names are UTF-8" in said
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_addresses_in_the_environment_do_not_either(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket/data")
    assert main(["data", "list"]) == 2
    assert "$TFDS_DATA_DIR is 'gs://bucket/data', an address" in capfd.readouterr().err
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/cache")
    compilation.use_cache("default")
    said = capfd.readouterr().err
    assert "warning: compiling without a cache, whose folder cannot be written" in said
    assert "is 'gs://bucket/cache', an address" in said
    assert not list(tmp_path.iterdir())


def test_help_and_version(capfd: pytest.CaptureFixture) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    said = capfd.readouterr().out
    assert all(name in said for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"jaxres {__version__}\n"


@pytest.mark.parametrize("group", ["data", "show"])
def test_a_group_of_commands_has_help(group: str, capfd: pytest.CaptureFixture) -> None:
    assert main([group, "--help"]) == 0
    named = [line.split()[0] for line in capfd.readouterr().out.splitlines()[2:]]
    assert named == [name.split()[1] for name in COMMANDS if name.startswith(f"{group} ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capfd: pytest.CaptureFixture) -> None:
    assert main([*name.split(), "--help"]) == 0
    said = capfd.readouterr().out
    assert f"usage: jaxres {name}" in said
    if name == "train":
        assert "--data.digit-side" in said
        assert "Side of an image in pixels" in said


def test_settings_are_told_from_a_commands_own_words() -> None:
    words = ["r.yaml", "--output-dir", "a.b", "--data.digit-side", "8", "9", "--profile"]
    own, settings = split_settings([*words, "--optim.learning-rate=-1"])
    assert own == ["r.yaml", "--output-dir", "a.b", "--profile"]
    assert settings == ["--data.digit-side", "8", "9", "--optim.learning-rate=-1"]


def test_run_directories_follow_the_recipes() -> None:
    assert default_run_dir(pathlib.Path("configs/quickstart.yaml")) == pathlib.Path(
        "runs/quickstart"
    )
    mini = pathlib.Path("configs/scaled_mnist/mini_100pct.yaml")
    assert default_run_dir(mini) == pathlib.Path("runs/scaled_mnist/mini_100pct")


def test_models_as_json_and_table(capfd: pytest.CaptureFixture) -> None:
    assert main(["models", "resnet50", "--json"]) == 0
    listed = json.loads(capfd.readouterr().out)
    (model,) = listed["models"]
    assert model["name"] == "resnet50"
    assert model["parameters"] == 25_557_032
    assert model["gflop"] == pytest.approx(8.18, abs=0.01)
    assert set(model) == {"name", "parameters", "parameters_with_stats", "gflop", "activations"}
    assert main(["models", "resnet[15]*", "--classes", "10"]) == 0
    assert "42,520,650" in capfd.readouterr().out


def test_models_says_which_networks_an_image_is_too_small_for(capfd) -> None:
    assert main(["models", "*cnn*", "--image-size", "28", "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)["models"]) == 5
    assert main(["models", "*net18", "--image-size", "28"]) == 2
    assert "allowed for resnet18: 32 pixels" in capfd.readouterr().err
    assert main(["models", "[hr]*[8n]", "--image-size", "28"]) == 0
    said = capfd.readouterr()
    assert "left out, for larger images only: resnet18\n" in said.err
    assert said.out.splitlines()[1].startswith("handbook_cnn")


def test_data_list_as_json_and_table(capfd, tmp_path: pathlib.Path) -> None:
    assert main(["data", "list", "--json", "--data-dir", str(tmp_path)]) == 0
    listed = json.loads(capfd.readouterr().out)
    ready = {row["name"]: row["ready"] for row in listed["datasets"]}
    assert ready["digits"]
    assert ready["embedded"]
    assert not ready["mnist"]
    assert main(["data", "list", "--data-dir", str(tmp_path)]) == 0
    assert "digits" in capfd.readouterr().out


@pytest.mark.parametrize("render", ["device", "host"])
def test_preview_writes_a_sheet(render: str, tmp_path: pathlib.Path, capfd) -> None:
    sheet = tmp_path / "sheet.png"
    flags = ["--count", "9", f"--data.render={render}", "--split", "test"]
    assert main(["data", "preview", QUICKSTART, "-o", str(sheet), *flags]) == 0
    image = cv2.imread(str(sheet))
    assert image is not None
    assert image.shape == (3 * (64 + 16 + 4) + 4, 3 * (64 + 4) + 4, 3)
    assert image[4:68, 4:68].std() > 10  # a photograph, not an empty cell


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder to be copied: a recipe, its finished run, and what that printed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "configs").mkdir()
    (folder / "configs" / "mine.yaml").write_text("{}")
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        assert main(["train", "configs/mine.yaml", *TINY_FLAGS]) == 0
    (folder / "printed").write_text(printed.getvalue())
    return folder


def test_train_evaluate_and_override(
    trained: pathlib.Path, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    out = pathlib.Path("printed").read_text().splitlines()
    assert out[0].startswith("test accuracy 0.")
    assert out[1] == f"run directory: {pathlib.Path('runs/mine')}"
    summary = json.loads(pathlib.Path("runs/mine/summary.json").read_text())

    assert main(["evaluate", "runs/mine", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["accuracy"] == summary["test"]["accuracy"]
    assert np.array(result["confusion"]).sum() == result["examples"] == 50
    assert main(["evaluate", "runs/mine", "--checkpoint", "last", "--split", "validation"]) == 0
    assert "precision" in capfd.readouterr().out
    override = ["--train.limit-eval-examples", "33", "--data.digit-side", "16"]
    assert main(["evaluate", "runs/mine", "--json", *override]) == 0
    assert json.loads(capfd.readouterr().out)["examples"] == 33
    assert "allowed: best, last, 10, 20" in fails(
        capfd, ["evaluate", "runs/mine", "--checkpoint", "7"]
    )
    assert "dropuot" in fails(capfd, ["evaluate", "runs/mine", "--model.dropuot", "0"])
    assert "other settings" in fails(
        capfd, ["train", "configs/mine.yaml", *TINY_FLAGS, "--train.seed", "9"]
    )


def damage(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "what",
    [
        "flipped bytes",
        *map(slow, ("edited config", "arrays", "missing item", "progress", "metadata")),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_other_one_offered(
    what: str, trained: pathlib.Path, tmp_path: pathlib.Path, capfd
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    run_dir = tmp_path / "runs" / "mine"
    train = ["train", str(tmp_path / "configs" / "mine.yaml"), "--output-dir", str(run_dir)]
    train += TINY_FLAGS
    newest = run_dir / "checkpoints" / "20"
    if what == "arrays":
        for path in (newest / "variables").rglob("d/*"):
            damage(path)
    elif what == "flipped bytes":
        for path in (newest / "variables").rglob("d/*"):
            content = bytearray(path.read_bytes())
            # Some bytes of a file are of no consequence, but not these all.
            for place in range(len(content) // 8, len(content), len(content) // 8):
                content[place] ^= 0x10
            path.write_bytes(content)
    elif what == "edited config":
        path = newest / "config" / "metadata"
        path.write_text(path.read_text().replace('"opacity": 0.5', '"opacity": 0.6'))
    elif what == "missing item":
        shutil.rmtree(newest / "variables")
    elif what == "progress":
        damage(newest / "progress" / "metadata")
    else:
        damage(newest / "variables" / "_METADATA")
    capfd.readouterr()
    for words in (train, ["evaluate", str(run_dir), "--checkpoint", "last"]):
        if what == "progress" and words[0] == "evaluate":
            continue  # evaluation does not read it
        assert main(words) == 2
        said = capfd.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("error: checkpoint '")
        assert "is damaged (" in said
        assert "step 10" in said
    shutil.rmtree(newest)
    assert main(train) == 0  # the remedy named works


def test_a_checkpoint_of_another_network_is_refused(trained: pathlib.Path, capfd) -> None:
    capfd.readouterr()
    said = fails(capfd, ["evaluate", str(trained / "runs" / "mine"), "--model.head", "flatten"])
    assert (
        "params.head.linear.kernel has shape (16, 10), but the settings ask for (1024, 10)" in said
    )


def test_the_installed_program_and_the_module_run() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-m", "jaxres", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert said.stdout == f"jaxres {__version__}\n"


@pytest.mark.parametrize(("output", "status"), [("closed", 1), ("/dev/full", 2)])
def test_output_that_nobody_takes(output: str, status: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe, open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "jaxres", "--version"],
            stdout=pipe if output == "closed" else full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    told = {1: "", 2: "error: cannot write the output: No space left on device\n"}
    assert (ended.returncode, ended.stderr) == (status, told[status])


def test_what_may_not_be_entered_is_one_line(capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: pathlib.Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "is_file", refuse)
    assert "cannot use 'a/r.yaml': Permission denied" in fails(capfd, ["train", "a/r.yaml"])


def test_help_does_not_wait_for_what_a_command_needs() -> None:
    code = (
        "import contextlib, os, sys; from jaxres.cli.main import COMMANDS, main\n"
        "with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):\n"
        "    assert not any(main([*name.split(), '--help']) for name in COMMANDS)\n"
        "print({'jax', 'tensorflow_datasets', 'grain', 'matplotlib', 'cv2'} & {*sys.modules})"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert said.stdout == "set()\n"
