"""PyTorch's files: what is read, and what a hostile or damaged one does (nothing)."""

import contextlib
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import chex
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxres.data.readers import arrays as arrays_of
from jaxres.data.readers import decoding
from jaxres.runtime.errors import InputError
from jaxres.weights import foreign
from tests.weights import torch_files
from tests.weights.torch_files import EMPTY, mapping, number, storage, tensor, text

Writer = Callable[..., Path]
RANDOM = np.random.default_rng(0)
ARRAYS = {
    "conv.weight": RANDOM.standard_normal((4, 3, 2, 2)).astype(np.float32),
    "bn.weight": RANDOM.standard_normal(4).astype(np.float32),
    "bn.num_batches_tracked": np.array(7),
}


@pytest.fixture(params=torch_files.WRITERS)
def write(request: pytest.FixtureRequest) -> Writer:
    return torch_files.WRITERS[request.param]


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert [*found] == [*wanted]
    chex.assert_trees_all_equal(found, wanted, strict=True)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        foreign.read(path)
    message = str(error.value)
    assert str(path) in message
    assert "allowed: " in message
    assert "\n" not in message
    return message


def test_a_state_dict_is_read(tmp_path: Path, write: Writer):
    value = torch_files.state_dict(ARRAYS)
    found = foreign.read(write(tmp_path / "w.pth", value, torch_files.contents(ARRAYS)))
    assert found.format == "pytorch"
    assert_same(found.arrays, ARRAYS)


@pytest.mark.parametrize("path", [["state_dict"], ["model"], ["model_ema"], ["model", "net"]])
def test_a_state_dict_is_found_in_a_checkpoint(tmp_path: Path, write: Writer, path: list[str]):
    value = torch_files.state_dict(ARRAYS)
    for key in reversed(path):
        counter = b"ccollections\nCounter\n}" + number(30) + number(1) + b"s\x85R"
        others = {"epoch": number(3), "best": b"G" + bytes(8), "milestones": counter}
        value = mapping({**others, key: value})
    found = foreign.read(write(tmp_path / "w.pth", value, torch_files.contents(ARRAYS)))
    assert_same(found.arrays, ARRAYS)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_dropped(tmp_path: Path, write: Writer, prefix: str):
    named = {"n_averaged": np.array(5), **{prefix + name: a for name, a in ARRAYS.items()}}
    value, contents = torch_files.state_dict(named), torch_files.contents(named)
    assert_same(foreign.read(write(tmp_path / "w.pth", value, contents)).arrays, ARRAYS)


def test_a_prefix_repeated_without_end_takes_no_time():
    name = "module." * 100_000 + "weight"
    began = time.perf_counter()
    foreign._of_network("pytorch", {name: np.zeros(1, np.float32)})
    assert time.perf_counter() - began < 1  # seconds; round by round it takes ten


def test_of_several_networks_one_is_said_to_be_taken_and_another_can_be(
    tmp_path: Path, write: Writer
):
    other = {name: array + 1 for name, array in ARRAYS.items()}
    both = {f"a.{name}": array for name, array in ARRAYS.items()}
    both |= {f"b.{name}": array for name, array in other.items()}
    tensors = {n: torch_files.whole(str(k), a) for k, (n, a) in enumerate(both.items())}

    def dict_of(prefix: str) -> bytes:
        mine = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        return mapping(mine)

    value = mapping(
        {"state_dict": dict_of("a."), "epoch": number(3), "state_dict_ema": dict_of("b.")}
    )
    path = write(tmp_path / "w.pth", value, torch_files.contents(both))
    found = foreign.read(path)
    assert_same(found.arrays, ARRAYS)
    assert found.notes == (
        "taken from the file's 'state_dict'; --key takes another: state_dict_ema",
    )
    averaged = foreign.read(path, "state_dict_ema")
    assert_same(averaged.arrays, other)
    assert averaged.notes == ()
    with pytest.raises(
        InputError, match=r"no dict 'ema'; of --key allowed: state_dict, state_dict_ema"
    ):
        foreign.read(path, "ema")


@pytest.mark.parametrize("extra", [1, 7])
def test_what_is_beside_a_wrapped_network_is_left_out_and_named(
    tmp_path: Path, write: Writer, extra: int
):
    network = {f"model.layer{k}.{name}": array for k in range(4) for name, array in ARRAYS.items()}
    beside = {f"criterion.{k}": np.ones(2, np.float32) for k in range(extra)}
    arrays = {**beside, **network}
    value = torch_files.state_dict(arrays)
    found = foreign.read(write(tmp_path / "w.ckpt", value, torch_files.contents(arrays)))
    assert_same(found.arrays, {name.removeprefix("model."): a for name, a in network.items()})
    listed = ", ".join([*beside][:5]) + (" and 2 more" if extra > 5 else "")
    assert found.notes == (f"left out, for they are not under 'model.': {listed}",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a Git LFS pointer",
        ),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page"),
        (b"<HTML>404</HTML>", "an HTML page"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".h5"])
def test_what_came_in_place_of_the_file_is_named(
    tmp_path: Path, content: bytes, message: str, suffix: str
):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert message in refusal(path)
    with pytest.raises(InputError, match=message):
        decoding.read_image(path)
    with pytest.raises(InputError, match=message):
        arrays_of.read(path)


@pytest.mark.parametrize("dtype", torch_files.STORAGES)
def test_every_type_is_read_and_floats_become_float32(
    tmp_path: Path, write: Writer, dtype: np.dtype
):
    arrays = {"a": np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)}
    value, contents = torch_files.state_dict(arrays), torch_files.contents(arrays)
    is_float = dtype.kind == "f" or dtype == ml_dtypes.bfloat16
    wanted = {"a": arrays["a"].astype(np.float32 if is_float else dtype)}
    assert_same(foreign.read(write(tmp_path / "w.pt", value, contents)).arrays, wanted)


def test_views_of_one_storage(tmp_path: Path, write: Writer):
    flat = np.arange(12, dtype=np.float32)
    place = storage("7", "FloatStorage", 12)
    value = mapping(
        {
            "transposed": tensor(place, 0, (2, 3), (1, 2)),
            "tail": tensor(place, 8, (2, 2), (2, 1)),
            "scalar": tensor(place, 11, (), ()),
        }
    )
    wanted = {
        "transposed": flat[:6].reshape(3, 2).T,
        "tail": flat[8:].reshape(2, 2),
        "scalar": flat[11],
    }
    assert_same(foreign.read(write(tmp_path / "w.pt", value, {"7": flat})).arrays, wanted)


def test_parameters_and_dicts_of_python_2(tmp_path: Path, write: Writer):
    weight = torch_files.whole("0", ARRAYS["conv.weight"])
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + weight + b"\x88" + EMPTY + b"tR"
    pairs = b"](](U\x0bconv.weight" + parameter + b"ee"
    value = b"ccollections\nOrderedDict\n" + pairs + b"\x85R}b"
    path = write(tmp_path / "w.pth", value, {"0": ARRAYS["conv.weight"]})
    assert_same(foreign.read(path).arrays, {"conv.weight": ARRAYS["conv.weight"]})


def test_instructions_of_protocol_4(tmp_path: Path, write: Writer):
    short = b"\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94("
    weight = torch_files.whole("0", ARRAYS["bn.weight"])
    value = b"\x80\x04\x95" + bytes(8) + short + b"h\x00\x94" + weight + b"u"
    path = write(tmp_path / "w.pth", value, {"0": ARRAYS["bn.weight"]})
    assert_same(foreign.read(path).arrays, {"collections": ARRAYS["bn.weight"]})


def harmful(made: Path) -> dict[str, bytes]:
    """Pickles that would create a file, by the instruction or function that they use."""
    touch, write = text(f"touch {made}"), text(f"open({str(made)!r}, 'w').close()")
    return {
        "os.system": b"cos\nsystem\n" + touch + b"\x85R",
        "a\\nmodule.f": text("a\nmodule") + text("f") + b"\x93)R",
        "posix.system": text("posix") + text("system") + b"\x93" + touch + b"\x85R",
        "builtins.eval": b"cbuiltins\neval\n" + write + b"\x85R",
        "os.popen": b"cos\npopen\n" + touch + b"\x85\x81",
        "torch.storage._load_from_bytes": b"ctorch.storage\n_load_from_bytes\n" + touch + b"\x85R",
        "torch.load": b"ctorch\nload\n" + touch + b"\x85R",
        "torchvision.models.resnet.ResNet": b"ctorchvision.models.resnet\nResNet\n)\x81}b",
        "collections.OrderedDict.__init__": b"ccollections\nOrderedDict.__init__\n)R",
        "INST": b"(" + touch + b"ios\nsystem\n",
        "OBJ": b"(" + EMPTY[:-2] + touch + b"o",
        "NEWOBJ": EMPTY[:-2] + touch + b"\x85\x81",
        "EXT1": b"\x82\x01",
    }


@pytest.mark.parametrize("kind", harmful(Path("made")))
def test_nothing_is_run(tmp_path: Path, write: Writer, kind: str):
    made = tmp_path / "made"
    message = refusal(write(tmp_path / "w.pth", mapping({"a": harmful(made)[kind]}), {}))
    assert not made.exists()
    if "." in kind:
        assert f"holds the Python object '{kind}', which is not read since it could" in message
        assert "allowed: weights alone, as torch.save(model.state_dict(), FILE)" in message
    else:
        assert f"its pickle has the instruction {kind}, which is not allowed" in message


@pytest.mark.parametrize("kind", ["os.system", "posix.system", "builtins.eval", "INST"])
def test_the_harm_is_real(tmp_path: Path, kind: str):
    """Python's own reader runs them, so the test above can fail."""
    pickle.loads(b"\x80\x02" + harmful(tmp_path / "made")[kind] + b".")
    assert (tmp_path / "made").exists()


FLOATS = storage("0", "FloatStorage", 4)
NESTED = b")" + b"\x85" * 30_000
DOUBLED = b")" + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(60))
HUGE = struct.pack("<Q", 1 << 62)
NO_STATE_DICT, INCONSISTENT, DOES_NOT_FIT = (
    "it has no state dict",
    "inconsistent",
    "does not fit its 4",
)
HOSTILE = {
    "a huge memo": (b"Nr\xff\xff\xff\xff", NO_STATE_DICT),
    "a huge text": (b"\x8d" + HUGE, "expected 4611686018427387904 bytes"),
    "a huge integer": (b"\x8b" + HUGE[4:] + b"\x7f", "not enough data in stream"),
    "a huge frame": (b"\x95" + HUGE, INCONSISTENT),
    "a nested key": (b"}" + NESTED + b"Ns", "tuple as a key"),
    "a nested name": (NESTED + NESTED + b"\x93", "a name that is not a string"),
    "a nested function": (NESTED + b")R", INCONSISTENT),
    "a nested reference": (NESTED + b"Q", INCONSISTENT),
    "a doubled key": (b"}" + DOUBLED + b"Ns", "tuple as a key"),
    "a doubled name": (DOUBLED + DOUBLED + b"\x93", "a name that is not a string"),
    "no elements": (tensor(FLOATS, 0, (1 << 40,), (0,)), DOES_NOT_FIT),
    "an offset too far": (tensor(FLOATS, 4, (1,), (1,)), DOES_NOT_FIT),
    "a stride too far": (tensor(FLOATS, 0, (2, 2), (3, 1)), DOES_NOT_FIT),
    "a stride backwards": (tensor(FLOATS, 3, (4,), (-1,)), "in place of a size"),
    "an offset backwards": (tensor(FLOATS, -1, (1,), (1,)), "in place of a size"),
    "a size below 0": (tensor(FLOATS, 0, (-1,), (1,)), "in place of a size"),
    "many dimensions": (tensor(FLOATS, 0, (1,) * 9, (1,) * 9), "more than 8 dimensions"),
    "sizes that overflow": (tensor(FLOATS, 0, (1 << 62, 1 << 62, 0), (1, 1, 1)), "too big"),
    "fewer strides": (tensor(FLOATS, 0, (2, 2), (1,)), "shorter"),
    "a view of a view": (b"(" + text("storage") + b"ctorch\nIntStorage\nNNNNtQ", INCONSISTENT),
    "a cycle": (b"}q\x01" + text("model") + b"h\x01s", NO_STATE_DICT),
    "no tensors": (b"}" + text("a") + b"Ns", NO_STATE_DICT),
    "no items": (EMPTY, NO_STATE_DICT),
    "a number": (number(1), NO_STATE_DICT),
    "nothing to take": (b"s", INCONSISTENT),
    "items of no dict": (b"](" + text("a") + b"Nu", "list in place of a dict"),
    "an item of no list": (EMPTY + b"Na", "dict in place of a list"),
    "no mark": (b"]e", INCONSISTENT),
    "half an item": (EMPTY + b"(Nu", "shorter"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_refused_at_little_cost(tmp_path: Path, write: Writer, kind: str):
    value, wanted = HOSTILE[kind]
    is_tensor = value.startswith(b"ctorch._utils")
    storages = {"0": np.zeros(4, np.float32)} if is_tensor else {}
    path = write(tmp_path / "w.pth", mapping({"a": value}) if is_tensor else value, storages)
    tracemalloc.start()
    try:
        message = refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    assert wanted in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("place", "in_zip", "in_stream"),
    [
        (storage("0", "FloatStorage", 1 << 50), "need 4503599627370496 bytes", "not where it"),
        (storage("0", "FloatStorage", 5), "has 16 of 20 bytes", "not where it should be"),
        (storage("0", "FloatStorage", 3), "has more than 12 bytes", "not where it should be"),
        (storage("absent", "FloatStorage", 3), "no item named", "not that of its tensors"),
        (storage("../version", "ByteStorage", 3), "no item named", "not that of its tensors"),
    ],
)
def test_storages_that_are_not_there(tmp_path: Path, place: bytes, in_zip: str, in_stream: str):
    value = mapping({"a": tensor(place, 0, (3,), (1,))})
    for write, wanted in ((torch_files.write_zip, in_zip), (torch_files.write_stream, in_stream)):
        assert wanted in refusal(write(tmp_path / "w.pth", value, {"0": np.zeros(4, np.float32)}))


def test_tensors_may_not_take_more_than_the_file_has(tmp_path: Path, write: Writer):
    place = storage("0", "FloatStorage", 4000)
    copies = {str(k): tensor(place, 0, (4000,), (1,)) for k in range(100)}
    message = refusal(write(tmp_path / "w.pth", mapping(copies), {"0": np.zeros(4000, "f4")}))
    assert "its tensors need 1600000 bytes, it has only" in message


def test_lists_that_are_remembered_are_read_once(tmp_path: Path, write: Writer):
    """A dict of the same thousands of pairs over and over would take time without bound."""
    pairs = b"](" + b"".join(b"(" + number(k) + b"Nt" for k in range(20_000)) + b"eq\x01"
    call = b"ccollections\nOrderedDict\nh\x01\x85R"
    path = write(tmp_path / "w.pth", pairs + b"(" + call * 20_000 + b"t", {})
    assert NO_STATE_DICT in refusal(path)


def test_long_pickles_are_refused(tmp_path: Path, write: Writer):
    value = b"(" + text("long" * (2 << 20)) + b"t"
    message = refusal(write(tmp_path / "w.pth", value, {}))
    assert "has more than 8388608 bytes" in message or "bytes in a unicodestring4" in message


def content_of(folder: Path, write: Writer) -> tuple[Path, bytes]:
    value, contents = torch_files.state_dict(ARRAYS), torch_files.contents(ARRAYS)
    path = write(folder / "w.pth", value, contents)
    return path, path.read_bytes()


def test_a_cut_file_is_refused(tmp_path: Path, write: Writer):
    path, content = content_of(tmp_path, write)
    for length in range(0, len(content), 17):
        path.write_bytes(content[:length])
        assert "cannot read the weights in" in refusal(path)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", torch_files.WRITERS)
def test_a_changed_byte_is_refused_or_changes_numbers(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
):
    path, content = content_of(tmp_path_factory.mktemp("flipped"), torch_files.WRITERS[name])
    place = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(
        content[:place] + data.draw(st.binary(min_size=1, max_size=1)) + content[place + 1 :]
    )
    with contextlib.suppress(InputError):
        found = foreign.read(path)
        assert sum(array.nbytes for array in found.arrays.values()) <= len(content)


def test_compressed_members_are_refused(tmp_path: Path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    assert "its member 'archive/data.pkl' is compressed" in refusal(path)


def test_other_machines_and_archives_are_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "big.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/byteorder", "big")
    assert "not written on a little-endian machine" in refusal(tmp_path / "big.pth")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("read.me", "no weights")
    assert "it has 0 members 'data.pkl' in place of one" in refusal(tmp_path / "other.zip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"these are not weights", "it is of another format"),
        (pickle.dumps({"a": np.zeros(3)}), "it is a pickle of no torch.save"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert message in refusal(path)


def test_what_is_no_file_is_refused(tmp_path: Path):
    assert f"no file '{tmp_path}'" in refusal(tmp_path)
    assert "no file" in refusal(tmp_path / "absent.pth")


def test_the_published_cifar_weights(original: Callable[[str], Path]):
    found = foreign.read(original("weights") / "resnet20-12fca82f.th").arrays
    assert sum(array.size for name, array in found.items() if "running" not in name) == 269_722
    assert found["conv1.weight"].shape == (16, 3, 3, 3)
    assert found["linear.weight"].shape == (10, 64)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def model(torch):
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.PReLU())


def numpy_of(state: dict) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in state.items()}


@pytest.mark.reference
@pytest.mark.parametrize(("as_zip", "protocol"), [(True, 2), (True, 4), (True, 5), (False, 2)])
def test_torch_state_dicts(torch, model, tmp_path: Path, as_zip: bool, protocol: int):
    path = tmp_path / "w.pth"
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": as_zip}
    torch.save(model.state_dict(), path, **options)
    assert_same(foreign.read(path).arrays, numpy_of(model.state_dict()))
    torch.save({name: value.bfloat16() for name, value in model.state_dict().items()}, path)
    wanted = {name: value.bfloat16().float().numpy() for name, value in model.state_dict().items()}
    assert_same(foreign.read(path).arrays, wanted)


@pytest.mark.reference
@pytest.mark.parametrize("as_zip", [True, False])
def test_torch_checkpoints(torch, model, tmp_path: Path, as_zip: bool):
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60])
    path = tmp_path / "w.pth"
    checkpoint = {
        "epoch": 3,
        "model": torch.nn.DataParallel(model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "sizes": torch.ones(2, 3).shape,
        "weight": model[0].weight,
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=as_zip)
    assert_same(foreign.read(path).arrays, numpy_of(model.state_dict()))
    torch.save(model, path, _use_new_zipfile_serialization=as_zip)
    assert "'torch.nn.modules.container.Sequential', which is not read" in refusal(path)
