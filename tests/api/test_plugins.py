"""A user's own networks, datasets, losses and optimisers: those in `examples`, and bad ones."""

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import yaml

from jaxres.cli.main import main
from jaxres.config import plugins, recipe
from jaxres.data.datasets import registry as datasets
from jaxres.evaluation import metrics
from jaxres.models import registry as models
from jaxres.runtime.errors import InputError
from jaxres.training import losses, optim
from tests.marked import slow

ROOT = pathlib.Path(__file__).parents[2]
OWN = str(ROOT / "examples" / "own.yaml")
REGISTRIES = (
    (models, "_MODELS"),
    (optim, "OPTIMIZERS"),
    (losses, "_LOSSES"),
    (datasets, "DATASETS"),
    (metrics, "_METRICS"),
)


BROKEN = """import jax, jaxres, optax, numpy as np
from jaxres.data.datasets.dataset import Dataset, Source
from jaxres.models.network import Head, Network
@jaxres.register_model("shapeless")
class Shapeless(Network):
    def __init__(self, options, *, rngs):
        self.head = Head(3, 4, options, rngs=rngs)
    def features(self, images, *, train, key=None):
        return images.reshape(3)
@jaxres.register_model("unbuilt")
class Unbuilt(Network):
    def __init__(self, options, *, rngs):
        raise KeyError("stages")
@jaxres.register_optimizer("three")
def three(config, rate): return 3
@jaxres.register_optimizer("short")
def short(rate): ...
@jaxres.register_loss("mean")
def mean(logits, labels, *, smoothing): return logits.mean()
@jaxres.register_loss("broken")
def broken(logits, labels, *, smoothing): return logits.sum(5)
def source(labels):
    return Source(np.zeros((100, 32, 32), np.uint8), labels, ("a", "b"))
def far(dataset, selection): return source(np.full(100, 3, np.int32))
def odd(dataset, selection): return source(np.full(9, 1, np.int32))
def lost(dataset, selection):
    return {}["gone"]
def dark(dataset, selection):
    return Source(np.zeros((100, 32, 32), np.float32), np.zeros(100, np.int32), ("a", "b"))
def listed(dataset, selection): return source([0] * 100)
def none(dataset, selection): ...
@jaxres.register_optimizer("late")
def late(config, rate):
    return optax.GradientTransformation(lambda params: (), lambda updates, state, params: 1 / 0)
@jaxres.register_optimizer("torn")
def torn(config, rate):
    return optax.GradientTransformation(lambda params: (), lambda u, state, params: ({}, state))
@jaxres.register_model("small")
class Small(Shapeless):
    def features(self, images, *, train, key=None):
        assert images.shape[0] <= 2
        return images
@jax.custom_vjp
def bent(x): return x
bent.defvjp(lambda x: (x, ()), lambda kept, given: {}["slope"])
@jaxres.register_loss("bent")
def bent_loss(logits, labels, *, smoothing): return bent(logits.sum(1))
for load in (far, odd, lost, dark, listed, none):
    examples = dict.fromkeys(("train", "validation", "test"), 100)
    jaxres.register_dataset(
        Dataset(load.__name__, "t", class_names=("a", "b"), load=load, composed=True,
                embedded_examples=examples)
    )
"""


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is registered, and the path, are as before; the modules are imported anew next time."""
    for module, name in REGISTRIES:
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("examples", "mine"):
            del sys.modules[name]


def test_the_examples_train_and_their_run_is_evaluated(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(ROOT)
    run_dir = str(tmp_path / "run")
    assert main(["train", OWN, "--output-dir", run_dir, "--train.epochs", "3"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test"]["accuracy"] > 0.9
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["plugins"]["imports"][0] == "examples.small_net"
    capfd.readouterr()
    assert main(["evaluate", run_dir, "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert [row["class"] for row in result["per_class"]] == ["lying", "standing", "leaning"]
    assert result["accuracy"] == summary["test"]["accuracy"]
    assert result["margin"] > 0
    assert main(["models", "small*", "--imports", "examples.small_net", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["models"][0]["name"] == "small_net"


@pytest.mark.slow
def test_another_process_knows_a_runs_plugins(tmp_path: pathlib.Path) -> None:
    jaxres = [sys.executable, "-m", "jaxres"]
    words = ["--output-dir", str(tmp_path / "run"), "--train.epochs=1", "--data.workers=2"]
    subprocess.check_call([*jaxres, "train", OWN, *words, "--data.render=host"], cwd=ROOT)
    subprocess.check_call([*jaxres, "evaluate", str(tmp_path / "run")], cwd=ROOT)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "raise RuntimeError('no luck')",
            "module 'mine' cannot be imported: RuntimeError: no luck",
        ),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("exit(3)", "module 'mine' cannot be imported: SystemExit: 3"),
        ("def (", "module 'mine' cannot be imported: SyntaxError: "),
        (
            "import jaxres\njaxres.register_loss('cross_entropy')(len)",
            "ValueError: a loss 'cross_entropy' is already registered",
        ),
        ("import jaxres\njaxres.register_loss('')(len)", "a loss is registered as ''; allowed: a"),
        (
            "import jaxres\njaxres.register_metric('m')(3)",
            "'m' is registered, which cannot be",
        ),
        (
            "import jaxres\njaxres.register_model('m')(len)",
            "'m' is registered, which is not a subclass",
        ),
        (None, "plugins.imports has 'mine', which is not a module here; allowed: modules that"),
    ],
)
def test_a_plugin_that_fails_is_one_sentence(
    text: str | None, problem: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    (tmp_path / "r.yaml").write_text("imports: [mine]\n")
    with pytest.raises(InputError) as raised:
        recipe.load("r.yaml")
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (
            ["--model.name=shapeless"],
            r"a step with the model 'shapeless' fails at .*mine\.py, line 9: TypeErr",
        ),
        (["--model.name=unbuilt"], r"the model 'unbuilt' fails at .*mine\.py, line 13: KeyError"),
        (["--train.loss=mean"], r"the loss 'mean' gives an array of shape \(\) for 16 examples"),
        (["--train.loss=broken"], r"the loss 'broken' fails at .*mine\.py, line 21: ValueError"),
        (["--optim.name=three"], "the optimiser 'three' is 3; allowed: an Optax transformation"),
        (["--optim.name=short"], r"the optimiser 'short' fails: TypeError: .* takes 1 positional"),
        (["--data.dataset=far"], r"the dataset 'far' has labels from 3 to 3; allowed for its 2"),
        (["--data.dataset=odd"], "the dataset 'odd' has 100 images and 9 labels; allowed: as many"),
        slow(
            ["--optim.name=late"], r"the optimiser 'late' fails at .*mine\.py, line \d+: ZeroDivis"
        ),
        slow(["--optim.name=torn"], r"a step with the optimiser 'torn' fails: ValueError"),
        (["--model.name=small"], r"a step with the model 'small' fails at .*mine\.py, line \d+: A"),
        (["--train.loss=bent"], r"a step with the loss 'bent' fails at .*mine\.py, line \d+: Key"),
        (
            ["--train.loss=bent", "--model.sync-batch-norm=true"],
            r"a step with the loss 'bent' fails at .*mine\.py, line \d+: Key",
        ),
        (["--data.dataset=dark"], r"the dataset 'dark' has images of type float32 and shape \(100"),
        (["--data.dataset=listed"], r"the dataset 'listed' has labels of list \(100,\); allowed"),
        (["--data.dataset=none"], "the dataset 'none' gives a split as NoneType; allowed: Source"),
        (["--data.dataset=lost"], r"the dataset 'lost' fails at .*, line 27: KeyError: 'gone'"),
    ],
)
def test_own_code_that_fails_when_it_is_needed_is_one_sentence(
    flags: list[str],
    problem: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(BROKEN)
    (tmp_path / "r.yaml").write_text("imports: [mine]\ndata: {composition: plain}\n")
    assert main(["train", "r.yaml", *flags, "--output-dir", "run"]) == 2
    said = capfd.readouterr().err
    assert re.fullmatch(f"error: {problem}.*\n", said), said
    assert not (tmp_path / "run").exists()


def test_a_metric_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_METRICS", {})
    metrics.register_metric("odd")(lambda labels, logits, names: labels / "a")
    results = {"label": np.zeros(3, np.int32), "logits": np.zeros((3, 2), np.float32)}
    with pytest.raises(InputError, match=r"the metric 'odd' fails at .*test_plugins\.py, line"):
        metrics.further_metrics(results, ("a", "b"))


def test_a_metric_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_METRICS", {})
    metrics.register_metric("odd")(lambda labels, logits, names: np.nan)
    results = {"label": np.zeros(3, np.int32), "logits": np.zeros((3, 2), np.float32)}
    with pytest.raises(InputError, match="the metric 'odd' is nan; allowed: a finite number"):
        metrics.further_metrics(results, ("a", "b"))


def test_an_installed_plugin_is_known_to_every_command(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text("raise KeyError('gone')")
    (tmp_path / "mine-1.dist-info").mkdir()
    described = tmp_path / "mine-1.dist-info" / "entry_points.txt"
    described.write_text("[jaxres.plugins]\nown = mine\n")
    plugins.load_installed.cache_clear()
    try:
        assert main(["models"]) == 2
    finally:
        plugins.load_installed.cache_clear()
    said = capfd.readouterr().err
    assert said == (
        "error: the installed plugin 'own' (mine) cannot be imported: KeyError: 'gone'\n"
    )


def test_the_last_imports_count_and_one_key_is_enough(tmp_path: pathlib.Path) -> None:
    words = [
        "--plugins.imports",
        "a",
        "b",
        "--x",
        "c",
        "--plugins.imports=d",
        "--y",
        "--imports",
        "e",
    ]
    assert plugins.imports_among(words) == ["e"]
    assert plugins.imports_among(words[:-2]) == ["d"]
    assert plugins.imports_among(words[:5]) == ["a", "b"]
    (tmp_path / "r.yaml").write_text("imports: [os]\nplugins: {imports: [os]}\n")
    with pytest.raises(InputError, match="has imports and plugins; allowed: one of them"):
        recipe.load(tmp_path / "r.yaml")
