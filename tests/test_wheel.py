"""JaxRes installed from its wheel, used in a folder that holds nothing."""

import pathlib
import subprocess
import sys
import sysconfig
import venv

import pytest

from jaxres.config.shipped import shipped_recipes

ROOT = pathlib.Path(__file__).parents[1]
SMALL = [
    "--model.name=cifar_resnet20",
    "--train.epochs=1",
    "--train.limit-train-examples=64",
    "--train.limit-eval-examples=20",
]


@pytest.mark.slow
def test_the_wheel_brings_recipes_and_studies(tmp_path: pathlib.Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("jaxres-*.whl")
    home, empty = tmp_path / "env", tmp_path / "empty"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    subprocess.check_call(
        [*pip, "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    )
    # What JaxRes needs is taken from here; the wheel stands before it on the path.
    (site,) = home.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    empty.mkdir()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(home / "bin" / "jaxres"), *words]
        return subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)

    where = "import jaxres; print(jaxres.__file__)"
    found = subprocess.check_output([str(python), "-c", where], cwd=empty, text=True)
    assert pathlib.Path(found.strip()).is_relative_to(site)
    listed = run("recipes")
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == len(shipped_recipes()) + 1
    trained = run("train", "quickstart", *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.endswith("run directory: runs/quickstart\n")
    again = run("train", "configs/scaled_mnist/mini_200pct.yaml", "--data.dataset=mnits")
    assert "did you mean 'mnist'" in again.stderr
    assert "did you mean 's1'" in run("reproduce", "s11").stderr
