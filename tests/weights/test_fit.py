"""Files that do not fit: every array is accounted for, in one sentence."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxres.models.pure import flatten
from jaxres.runtime.errors import InputError
from jaxres.weights.fit import fit
from tests.weights import keras_files, written
from tests.weights.written import Arrays

MODEL = "cifar_resnet20"


@pytest.fixture
def theirs() -> Arrays:
    return written.as_torchvision(MODEL, written.random_weights(MODEL))


def refusal(path: Path, arrays: Arrays, model: str = MODEL) -> str:
    with pytest.raises(InputError) as error:
        fit(written.save_torch(path / "w.pth", arrays), model)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_missing_array_is_named(tmp_path: Path, theirs: Arrays):
    del theirs["layer2.0.bn1.running_var"], theirs["linear.bias"]
    message = refusal(tmp_path, theirs)
    assert message.endswith(f"not fit {MODEL}: missing: linear.bias, layer2.0.bn1.running_var")


def test_an_array_left_over_is_named(tmp_path: Path, theirs: Arrays):
    theirs["layer2.0.downsample.0.weight"] = np.zeros((32, 16, 1, 1), np.float32)
    message = refusal(tmp_path, theirs)
    assert message.endswith(f"not fit {MODEL}: left over: layer2.0.downsample.0.weight")


def test_a_hostile_name_stays_within_the_line(tmp_path: Path, theirs: Arrays):
    theirs["a\nname\x1b[31m" + "long" * 10_000] = np.zeros(1, np.float32)
    message = refusal(tmp_path, theirs)
    assert r"left over: a\nname\x1b[31mlonglong" in message
    assert len(message) < 300


def test_an_array_of_another_shape_is_named(tmp_path: Path, theirs: Arrays):
    theirs["conv1.weight"] = np.zeros((16, 1, 3, 3), np.float32)
    theirs["bn1.weight"] = np.zeros((16, 1), np.float32)
    message = refusal(tmp_path, theirs)
    assert "of other shapes: conv1.weight gives (3, 3, 1, 16) for (3, 3, 3, 16), " in message
    assert message.endswith("bn1.weight gives (1, 16) for (16,)")


@pytest.mark.parametrize("values", [np.nan, np.inf, None])
def test_values_that_are_no_weights_are_named(tmp_path: Path, theirs: Arrays, values: float | None):
    spoilt = theirs["bn1.weight"].astype(np.int32 if values is None else np.float32)
    if values is not None:
        spoilt[3] = values
    message = refusal(tmp_path, {**theirs, "bn1.weight": spoilt})
    assert message.endswith("with values that are not finite fractions: bn1.weight")


def test_long_lists_are_cut(tmp_path: Path, theirs: Arrays):
    message = refusal(tmp_path, theirs, "cifar_resnet110")
    missing = (110 - 20) * (1 + 4)
    assert f" and {missing - 4} more" in message
    assert len(message) < 400
    message = refusal(tmp_path, theirs, "resnet18")
    assert message.count(" more") == 3
    assert len(message) < 1200


def test_the_number_of_classes_is_the_files(tmp_path: Path):
    ours = written.random_weights(MODEL, classes=7)
    path = written.save_torch(tmp_path / "w.pth", written.as_torchvision(MODEL, ours))
    assert fit(path, MODEL).classes == 7
    assert fit(path, MODEL, classes=7).classes == 7
    with pytest.raises(InputError, match=r"--classes is 5, but '.*' has 7; allowed: leave it out"):
        fit(path, MODEL, classes=5)
    with pytest.raises(InputError, match="--classes is 0; allowed: 1 to 1048576"):
        fit(path, MODEL, classes=0)


@pytest.mark.parametrize("bias", [np.zeros((), np.float32), np.zeros(0, np.float32)])
def test_a_last_layer_without_classes_is_refused(tmp_path: Path, theirs: Arrays, bias: np.ndarray):
    message = refusal(tmp_path, {**theirs, "linear.bias": bias})
    assert "linear.bias gives" in message


@pytest.mark.slow
def test_a_missing_head_is_drawn_from_the_seed(tmp_path: Path, theirs: Arrays):
    del theirs["linear.weight"], theirs["linear.bias"]
    path = written.save_torch(tmp_path / "w.pth", theirs)
    assert fit(path, MODEL).classes == 10
    fitted = fit(path, MODEL, classes=3, seed=1)
    assert fitted.new_head
    kernel = fitted.params["head"]["linear"]["kernel"]
    assert kernel.shape == (64, 3)
    np.testing.assert_array_equal(
        kernel, fit(path, MODEL, classes=3, seed=1).params["head"]["linear"]["kernel"]
    )
    other = fit(path, MODEL, classes=3, seed=2).params["head"]["linear"]["kernel"]
    assert not np.array_equal(kernel, other)


def test_safetensors(tmp_path: Path):
    ours = written.random_weights(MODEL)
    theirs = written.as_torchvision(MODEL, ours)
    save_file({f"module.{name}": a for name, a in theirs.items()}, tmp_path / "w.safetensors")
    fitted = fit(tmp_path / "w.safetensors", MODEL)
    found = {**flatten(fitted.params), **flatten(fitted.stats)}
    for name, array in ours.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_network_of_the_other_library_is_refused(tmp_path: Path, theirs: Arrays):
    message = refusal(tmp_path, theirs, "xception")
    assert "has format pytorch, which xception is not known in; allowed: " in message
    assert "cifar_resnet20" in message
    path = keras_files.write_h5(tmp_path / "w.h5", {"a": [np.zeros(3, np.float32)]})
    with pytest.raises(InputError, match=r"allowed: keras_resnet50, vgg16, vgg19, xception$"):
        fit(path, "mobilenet_v2")


def test_an_unknown_model_is_refused_first(tmp_path: Path):
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        fit(tmp_path / "absent.pth", "resnet5")
