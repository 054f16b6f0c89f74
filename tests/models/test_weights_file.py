"""The weights format: what is written is read, published files are understood, hostile ones are refused."""

import json
import zipfile

import models
from models import weights_file
from models.conversion.identification import identify, shapes_of
from models.weights_file import Metadata

import numpy as np
import pytest

from dataset.cli import UserError
from dataset.npz import from_bfloat16, npy_entries, to_bfloat16


def parameters(model="alexnet", aux=False, seed=0, dtype=np.float32):
    """Random parameters of the right shapes, MLX layout; small numbers, all finite. Wide classifiers stay zero."""
    rng = np.random.default_rng(seed)
    return {
        key: rng.standard_normal(shape, np.float32).astype(dtype) if np.prod(shape) < 1e5 else np.zeros(shape, dtype)
        for key, shape in shapes_of(model, aux=aux).items()
    }


def as_published(arrays):
    """torchvision's layout, and the counters that its batch norms have."""
    out = {key: a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for key, a in arrays.items()}
    counters = {k.replace("running_mean", "num_batches_tracked"): np.array(1) for k in arrays if "running_mean" in k}
    return out | counters


TINY = {
    "conv1.weight": np.linspace(-2, 2, 54, dtype=np.float32).reshape(2, 3, 3, 3),
    "conv1.bias": np.float32([1e-3, 7]),
}
META = Metadata("googlenet", 2, ["Katze", "犬"], origin="a test")


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.npz"
    weights_file.write(path, TINY, META)
    return path


def test_written_is_read(tiny):
    arrays, metadata = weights_file.read(tiny)
    assert {k: a.dtype for k, a in arrays.items()} == dict.fromkeys(TINY, np.float16)
    for key, array in TINY.items():
        np.testing.assert_allclose(arrays[key], array, rtol=1e-3)
    assert metadata.classes == ["Katze", "犬"] and metadata.num_classes == 2
    assert metadata.mean == [127.5] * 3 and metadata.channel_order == "RGB"  # the registry's
    assert metadata.dtype == "float16" and metadata.aux is False


def test_free_keys_of_the_metadata_survive(tmp_path):
    weights_file.write(tmp_path / "x.npz", TINY, META.replace(training={"epochs": 3}))
    assert weights_file.read(tmp_path / "x.npz")[1].extra["training"] == {"epochs": 3}


def test_the_same_weights_make_the_same_file(tiny, tmp_path):
    weights_file.write(tmp_path / "again.npz", TINY, META)
    assert (tmp_path / "again.npz").read_bytes() == tiny.read_bytes()


def test_no_pickle_is_in_the_file(tiny):
    with np.load(tiny, allow_pickle=False) as file:
        assert json.loads(file["__metadata__"].tobytes())["model"] == "googlenet"
        assert file["conv1.weight"].dtype == np.float16


def test_numbers_beyond_float16_stay_float32(tmp_path):
    big = {"bn.running_var": np.float32([1e6, 1])}
    weights_file.write(tmp_path / "x.npz", big, META)
    np.testing.assert_array_equal(weights_file.read(tmp_path / "x.npz")[0]["bn.running_var"], big["bn.running_var"])


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    with pytest.raises(UserError, match="conv.weight holds numbers that are not finite"):
        weights_file.write(tmp_path / "x.npz", {"conv.weight": np.float32([np.nan])}, META)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "dtype, error", [("float32", 0), ("float16", 2**-11), ("bfloat16", 2**-8), ("int8", 0.5 / 127)]
)
def test_each_dtype_keeps_its_precision(tmp_path, dtype, error):
    array = np.random.default_rng(1).standard_normal((8, 5, 5, 4), np.float32)
    weights_file.write(tmp_path / "x.npz", {"w.weight": array}, META, dtype)
    got, metadata = weights_file.read(tmp_path / "x.npz")
    assert metadata.dtype == dtype and list(got) == ["w.weight"]
    scale = np.abs(array).reshape(8, -1).max(1).reshape(8, 1, 1, 1) if dtype == "int8" else np.abs(array)
    assert np.abs(got["w.weight"] - array).max() > 0 or dtype == "float32"
    assert (np.abs(got["w.weight"] - array) <= error * scale * 1.001).all()


def test_bfloat16_is_mlx_own(tmp_path):
    import mlx.core as mx

    mx.savez(str(tmp_path / "mlx.npz"), w=mx.array(TINY["conv1.bias"]).astype(mx.bfloat16))
    ((_, array),) = npy_entries(tmp_path / "mlx.npz")
    assert array.dtype == "V2" and array.tobytes() == to_bfloat16(TINY["conv1.bias"]).tobytes()
    np.testing.assert_array_equal(
        from_bfloat16(array), np.array(mx.array(TINY["conv1.bias"]).astype(mx.bfloat16).astype(mx.float32))
    )


def test_int8_of_zeros(tmp_path):
    weights_file.write(tmp_path / "x.npz", {"w": np.zeros((2, 3), np.float32)}, META, "int8")
    assert not weights_file.read(tmp_path / "x.npz")[0]["w"].any()


# published files


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_published_googlenet(tmp_path, dtype):
    arrays = parameters("googlenet", aux=True, dtype=dtype)
    np.savez(tmp_path / "googlenet_mlx.npz", **as_published(arrays))
    got, metadata = weights_file.read(tmp_path / "googlenet_mlx.npz")
    assert (metadata.model, metadata.num_classes, metadata.aux) == ("googlenet", 1000, True)
    assert metadata.mean == metadata.std == [127.5] * 3  # 2x - 1: torchvision's transform_input
    assert metadata.dtype == np.dtype(dtype).name
    assert set(got) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(got[key], array)
    net = models.load(weights=tmp_path / "googlenet_mlx.npz")
    np.testing.assert_array_equal(np.array(net.conv1.conv.weight), arrays["conv1.conv.weight"].astype(np.float32))


def test_published_int8(tmp_path):
    arrays = as_published(parameters("googlenet"))
    stored = {}
    for key, array in arrays.items():
        if array.ndim > 1:
            scale = np.float16(max(np.abs(array).max() / 127, 1e-3))
            stored |= {f"{key}_int8": (array / scale).astype(np.int8), f"{key}_scale": scale}
        else:
            stored[key] = array.astype(np.float16)
    np.savez(tmp_path / "x.npz", **stored)
    got, metadata = weights_file.read(tmp_path / "x.npz")
    assert metadata.model == "googlenet" and metadata.dtype == "int8"
    key = "inception3a.branch2.1.conv.weight"
    step = float(stored[f"{key}_scale"])
    np.testing.assert_allclose(got[key], arrays[key].transpose(0, 2, 3, 1), atol=step)


@pytest.mark.parametrize("model", models.REGISTRY)
def test_a_network_is_recognised_by_its_shapes(model):
    usual = models.REGISTRY[model].num_classes
    shapes = shapes_of(model)
    match = identify(shapes)
    assert (match.model, match.num_classes, match.aux) == (model, usual, False) and set(match.keys) == set(shapes)
    # without its 365 classes, Places365's network is BVLC's
    model = "googlenet_bvlc" if model == "googlenet_places365" else model
    other = {key: (7, *shape[1:]) if shape[0] == usual else shape for key, shape in shapes.items()}
    assert (identify(other).model, identify(other).num_classes) == (model, 7)
    bare = {key: shape for key, shape in shapes.items() if shape[0] != usual}
    assert (identify(bare).model, identify(bare).num_classes) == (model, 0)


@pytest.mark.parametrize("model", [name for name, entry in models.REGISTRY.items() if entry.aux])
def test_auxiliary_classifiers_are_recognised(model):
    shapes = dict(shapes_of(model, aux=True))
    assert identify(shapes).aux and set(identify(shapes).keys) == set(shapes)
    del shapes["fc.bias"]
    with pytest.raises(UserError, match="fc.bias is missing"):
        identify(shapes)


def test_a_network_that_is_not_here():
    shapes = dict(shapes_of("resnet50"))
    with pytest.raises(UserError, match="no weights of any network here .googlenet, "):
        identify({"encoder.weight": (4, 4)})
    del shapes["layer2.1.conv2.weight"]
    with pytest.raises(UserError, match=r"nearest is resnet50, but layer2.1.conv2.weight is missing"):
        identify(shapes)
    with pytest.raises(UserError, match="no weights of vgg16: features.0.weight is missing"):
        identify(shapes_of("resnet50"), "vgg16")


# bad files


def refused(path, words):
    with pytest.raises(UserError, match=words) as error:
        weights_file.read(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_no_weights_file(tmp_path):
    path = tmp_path / "x.npz"
    refused(path, "No such file")
    refused(tmp_path, "folder")
    for content, words in {
        b"": "empty",
        b"hello": "convert.py",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00": "git lfs pull",
        b"PK\3\4" + b"x" * 100: "cut off",
    }.items():
        path.write_bytes(content)
        refused(path, words)


def test_truncated(tiny):
    data = tiny.read_bytes()
    for size in range(0, len(data), 37):
        tiny.write_bytes(data[:size])
        refused(tiny, "cut off|empty|not a weights file")


def test_a_flipped_bit_is_noticed(tiny):
    data = bytearray(tiny.read_bytes())
    at = data.find(b"NUMPY", 600) + 150  # inside the numbers of an array
    data[at] ^= 1
    tiny.write_bytes(data)
    refused(tiny, "damaged")


def put(path, name, data, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "a", compression) as file:
        file.writestr(name, data)


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", w=np.array([print], dtype=object))
    refused(tmp_path / "x.npz", "no plain array of numbers")


def test_a_bomb_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    put(path, "w.npy", bytes(1 << 24), zipfile.ZIP_DEFLATED)
    refused(path, "larger than the file can hold")


def test_a_header_that_promises_much(tmp_path):
    path = tmp_path / "x.npz"
    for shape in ("(99999999999999,)", "(9999999999, 9999999999)", "(5,)"):
        path.unlink(missing_ok=True)
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        put(path, "w.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16))
        refused(path, "cut off or damaged")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"format": 3}, "newer DeepDream-MLX"),
        ({"format": "1"}, "not that of a weights file"),
        ({"model": "lenet"}, "not here: 'lenet'"),
        ({"num_classes": 10**9}, "wrong num_classes"),
        ({"num_classes": True}, "wrong num_classes"),
        ({"classes": ["one"]}, "wrong classes"),
        ({"mean": [1, 2]}, "wrong mean"),
        ({"mean": [1, 2, float("nan")]}, "wrong mean"),
        ({"std": [1, 2, 0]}, "wrong std"),
        ({"channel_order": "GRB"}, "wrong channel_order"),
        ({"color_matrix": [[1, 2, 3]]}, "wrong color_matrix"),
        ({"aux": 1}, "wrong aux"),
    ],
)
def test_wrong_metadata(tmp_path, change, words):
    text = json.dumps({"format": 1, "model": "googlenet", "num_classes": 2, "classes": None} | change)
    np.savez(tmp_path / "x.npz", __metadata__=np.frombuffer(text.encode(), np.uint8), **TINY)
    refused(tmp_path / "x.npz", words)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_unreadable_metadata(tmp_path, text):
    np.savez(tmp_path / "x.npz", __metadata__=np.frombuffer(text, np.uint8), **TINY)
    refused(tmp_path / "x.npz", "metadata")
