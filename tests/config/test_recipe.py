import contextlib
import dataclasses
import io
import pathlib
import time

import jax
import pytest
import yaml

from jaxres import config as settings
from jaxres.config import Config, DataConfig, TrainConfig, differing_keys, recipe, to_dict
from jaxres.config.shipped import about, find_recipe, shipped_recipes
from jaxres.models.build import abstract_network
from jaxres.runtime.errors import InputError
from jaxres.training import transfer
from jaxres.training.state import new_state

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.rglob("*.yaml"))


def write(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read_and_differs_from_the_defaults(path: pathlib.Path) -> None:
    assert recipe.load(path) != Config()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[] if path.stem.startswith("mini") else [pytest.mark.slow])
        for path in RECIPES
    ],
    ids=[path.stem for path in RECIPES],
)
def test_every_recipe_builds_its_network_and_optimiser(path: pathlib.Path) -> None:
    config = recipe.load(path)
    net = abstract_network(config, classes=10)
    stage = transfer.first_phase(config, net, total_steps=100)
    images = jax.ShapeDtypeStruct((2, *[config.data.image_size] * 2, 3), config.model.dtype)
    logits, stats = jax.eval_shape(
        lambda *inputs: net.apply(*inputs, train=True, key=jax.random.key(0)),
        net.params,
        net.stats,
        images,
    )
    assert logits.shape == (2, 10)
    assert jax.tree.structure(stats) == jax.tree.structure(net.stats)
    state = jax.eval_shape(
        lambda params, stats: new_state(
            params, stats, stage.optimizer, ema=False, trained=stage.trained
        ),
        net.params,
        net.stats,
    )
    assert state.step.shape == ()


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 16


def test_flags_win_over_the_recipe_and_take_dashes_or_underscores(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, "data:\n  canvas: 64\n  digit_side: 32\n  batch_size: 8\n")
    config = recipe.load(path, ["--data.batch-size", "16", "--data.digit_side=20"])
    assert (config.data.canvas, config.data.batch_size) == (64, 16)
    assert config.data.digit_side == (20,)


def test_yaml_spellings_become_typed_values(tmp_path: pathlib.Path) -> None:
    text = """
data: {canvas: 64, digit_side: [16, 32], digit_side_range: null, mean: [0.1, 0.2, 3e-1]}
optim: {learning_rate: 1e-3, clip_norm: ~}
model: {sync_batch_norm: true}
"""
    config = recipe.load(write(tmp_path, text))
    assert config.data.digit_side == (16, 32)
    assert config.data.mean == (0.1, 0.2, 0.3)
    assert config.data.digit_side_range is None
    assert config.optim.learning_rate == 1e-3
    assert config.model.sync_batch_norm is True
    assert recipe.load(tmp_path / "recipe.yaml", ["--model.sync-batch-norm", "false"]) != config


@pytest.mark.parametrize(
    "words",
    [
        ["--data.batch-size", "-64"],
        ["--data.canvas", "x"],
        ["--data.render", "x"],
        ["--train.epochs"],
    ],
)
def test_a_mistake_is_the_same_sentence_where_frames_cannot_be_drawn(words: list[str]) -> None:
    told = []
    for encoding in ("utf-8", "ascii"):
        output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with contextlib.redirect_stdout(output), pytest.raises(InputError) as refused:
            recipe.parse(Config, words, prog="x")
        told.append(str(refused.value))
    assert told[0] == told[1]


def test_only_flags_that_take_them_know_true_and_null() -> None:
    config = recipe.parse(
        Config, ["--data.data-dir", "null", "--data.photo-side", "null"], prog="x"
    )
    assert config.data.data_dir == "null"
    assert config.data.photo_side is None


def test_saved_settings_are_read_back_equal() -> None:
    data = DataConfig(canvas=64, digit_side=(9, 12), digit_side_range=(8, 60), mean=(0.1, 0.2, 0.3))
    config = dataclasses.replace(Config(), data=data)
    assert recipe.from_dict(settings.to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("data: {batch_szie: 3}", [], "did you mean 'data.batch_size'"),
        ("dta: {canvas: 64}", [], "did you mean 'data'"),
        ("data: 3", [], "section 'data'"),
        ("- 1", [], "must hold sections"),
        ("data: {canvas: {a: 1}}", [], "must be a value"),
        ("data: {mean: [[1], 2, 3]}", [], "a plain list"),
        ("data: [canvas", [], "not readable as YAML"),
        ("{}", ["--data.batch-szie", "3"], "did you mean '--data.batch-size'"),
        ("{}", ["--data.batch-size", "-4"], "data.batch_size is -4; allowed: 1 or more"),
        (
            "model: {sync_batch_norm: true}",
            ["--train.reduction=ordered"],
            "train.reduction is ordered, but model.sync_batch_norm is true",
        ),
        (
            "train: {deterministic: true}",
            ["--train.parallel=pmap"],
            "train.deterministic is true, but train.parallel is pmap",
        ),
        ("{}", ["--data.batch-size", "four"], "four"),
        ("data: {batch_size: 1.5}", [], "1.5"),
        ("{}", ["--data.batch-size"], "batch-size"),
        ("{}", ["--data.render", "gpu"], "'device', 'host'"),
        ("{}", ["--data.opacity", "1.5"], "data.opacity is 1.5; allowed: 0 to 1"),
        ("{}", ["--data.digit-side", "7"], "data.digit_side has 7; allowed: 8 to"),
        ("{}", ["--data.digit-side-range", "4", "9"], "data.digit_side_range has 4; allowed: 8 to"),
        ("{}", ["--data.digit-scale", "0.5", "1e308"], "1e+308; allowed: 0.1 to 512"),
        ("{}", ["--data.digit-side", "225"], "allowed: 8 to data.canvas (224)"),
        ("{}", ["--data.digit-side-range", "90", "80"], "the low end comes first"),
        ("{}", ["--data.photo-side", "100"], "data.photo_side is 100"),
        ("{}", ["--data.workers", "2"], "data.render host"),
        ("{}", ["--data.std", "1", "0", "1"], "data.std"),
        ("{}", ["--model.dropout", "1"], "model.dropout is 1.0; allowed: 0 to below 1"),
        ("{}", ["--optim.schedule", "one_cycle"], "needs optim.warmup_fraction"),
        ("{}", ["--optim.learning-rate", "0"], "optim.learning_rate is 0.0; allowed: above 0"),
        (
            "{}",
            ["--optim.learning-rate", "nan"],
            "optim.learning_rate has nan; allowed: finite numbers",
        ),
        ("{}", ["--train.epochs", "0"], "train.epochs is 0; allowed: 1 or more"),
        ("{}", ["--train.limit-train-examples", "0"], "train.limit_train_examples is 0"),
        ("{}", ["--checkpoint.keep-last", "0"], "checkpoint.keep_last is 0"),
        ("{}", ["stray"], "stray"),
        ("data: {canvas: 64, canvas: 32}", [], "key 'canvas' stands twice"),
        ("{}", ["--data.std", "1", "nan", "1"], "data.std has nan"),
        ("{}", ["--optim.weight-decay", "inf"], "optim.weight_decay has inf"),
        (
            "{}",
            ["--train.seed", "4294967296"],
            "train.seed is 4294967296; allowed: 0 to 4294967295",
        ),
        ("{}", ["--data.canvas", "1000000"], "data.canvas is 1000000; allowed: 28 to 4096"),
        ('data: {data_dir: "a\\0b"}', [], "data.data_dir is 'a\\x00b'; allowed: a path of at most"),
        ("{}", ["--model.init-from", "x" * 256], "255 of them a name, without zero bytes"),
        ("{}", ["--train.compile-cache", "/ab" * 2000], "a path of at most 4000 bytes"),
        ("{}", ["--foo", "1"], "unknown flag '--foo'"),
        ("{}", ["--data.digit-side", ""], "--data.digit-side: Could not find valid parse"),
    ],
)
def test_bad_settings_are_one_clear_sentence(
    tmp_path: pathlib.Path, text: str, flags: list[str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        recipe.load(write(tmp_path, text), flags)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_few_lines_that_stand_for_more_than_memory_holds_are_refused(
    tmp_path: pathlib.Path,
) -> None:
    lines = ["    - &a0 [x, x]"] + [f"    - &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 60)]
    for start, message in (
        ("data:", "section 'data' in recipe .* must hold keys, not "),
        ("data:\n  mean:", "data.mean holds "),
        ("", "must hold sections"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            recipe.load(write(tmp_path, "\n".join([start, *lines])))
        assert len(str(caught.value)) < 600


def test_a_recipe_of_any_length_is_read_in_no_time_or_refused(tmp_path: pathlib.Path) -> None:
    keys = "".join(f"  k{number}: 1\n" for number in range(4000))
    began = time.perf_counter()
    with pytest.raises(InputError, match=r"unknown key in recipe .* 'data.k0'"):
        recipe.load(write(tmp_path, "data:\n" + keys))
    with pytest.raises(InputError, match=r"recipe.yaml' has 65537 bytes; allowed: 65536"):
        recipe.load(write(tmp_path, "#" * 65_537))
    assert time.perf_counter() - began < 10


def test_a_missing_recipe_names_its_neighbours(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "{}")
    with pytest.raises(InputError, match=r"no recipe at .*other.*there: .*recipe\.yaml"):
        recipe.load(tmp_path / "other.yaml")


def test_a_difference_that_does_not_change_the_run_is_free() -> None:
    ours = settings.to_dict(Config())
    theirs = settings.to_dict(Config())
    theirs["train"]["parallel"] = "pmap"
    theirs["data"]["workers"] = 7
    assert settings.differing_keys(ours, theirs) == {}
    theirs["train"]["seed"] = 1
    assert settings.differing_keys(ours, theirs) == {"train.seed": (0, 1)}


def test_a_normalisation_left_open_differs_unless_other_weights_decide_it() -> None:
    ours, theirs = settings.to_dict(Config()), settings.to_dict(Config())
    theirs["data"]["mean"] = [0.5, 0.5, 0.5]
    assert settings.differing_keys(ours, theirs) == {"data.mean": (None, [0.5, 0.5, 0.5])}
    ours["model"]["init_from"] = theirs["model"]["init_from"] = "weights"
    assert settings.differing_keys(ours, theirs) == {}


def test_an_unfreezing_that_would_never_happen_is_named() -> None:
    flags = ["--transfer.freeze", "stem*", "--train.epochs=3", "--transfer.unfreeze"]
    assert recipe.parse(Config, [*flags, "2:stem*"], prog="test").transfer.unfreeze
    with pytest.raises(InputError, match=r"'3:stem\*', but train.epochs is 3; .* epochs 1 to 2"):
        recipe.parse(Config, [*flags, "3:stem*"], prog="test")


def test_a_key_that_older_settings_lack_had_its_default() -> None:
    ours = to_dict(Config())
    theirs = {section: dict(keys) for section, keys in ours.items() if section != "augment"}
    del theirs["data"]["divisor"]
    assert differing_keys(ours, theirs) == {}
    theirs["data"]["batch_size"] = 3
    assert differing_keys(ours, theirs) == {"data.batch_size": (64, 3)}


def test_runs_from_before_data_eval_seed_were_tested_by_their_seed(tmp_path: pathlib.Path) -> None:
    theirs = to_dict(Config(train=TrainConfig(seed=3)))
    del theirs["data"]["eval_seed"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(theirs))
    ours = to_dict(Config(train=TrainConfig(seed=3)))
    assert recipe.load_saved(path).data.eval_seed == 3
    assert differing_keys(ours, theirs) == {"data.eval_seed": (0, 3)}
    ours["data"]["composition"] = theirs["data"]["composition"] = "plain"
    assert differing_keys(ours, theirs) == {}


def test_a_recipe_is_found_by_its_name_from_anywhere(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped_one = find_recipe("quickstart")
    assert shipped_one.is_file()
    assert find_recipe("configs/quickstart.yaml") == shipped_one
    assert find_recipe("scaled_mnist/mini_200pct").name == "mini_200pct.yaml"
    assert recipe.load("quickstart") == recipe.load(shipped_one)
    (tmp_path / "quickstart").write_text("{}")
    assert find_recipe("quickstart") == pathlib.Path("quickstart")  # what is here comes first
    for wrong, near in (("quickstrt", "quickstart"), ("configs/mnist_sped.yaml", "mnist_speed")):
        with pytest.raises(InputError, match=f"unknown recipe .* did you mean '{near}'"):
            find_recipe(wrong)
    with pytest.raises(InputError, match=r"no recipe at 'mine\.yaml'"):
        recipe.load("mine.yaml")


def test_every_shipped_recipe_says_what_it_is() -> None:
    assert "quickstart" in shipped_recipes()
    assert all(about(path) for path in shipped_recipes().values())
