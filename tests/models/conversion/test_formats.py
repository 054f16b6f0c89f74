"""Readers of other frameworks' files, against what those frameworks say is in them (see make_checkpoints.py)."""

import json
import os
import pickle
import pickletools
import random
import struct
import time
import zipfile
from collections import Counter

import models
from models import weights_file
from models.conversion import formats, state_dict
from models.conversion.identification import shapes_of
from models.conversion.pytorch import LEGACY
from models.conversion.tensors import OPERATIONS, Checkpoint
from models.conversion.torch7 import DEPTH
from models.vgg import VGG19, vgg_aliases

import foreign
import numpy as np
import pytest
import seeded
from conftest import ROOT
from foreign import Function, Module
from mlx.utils import tree_flatten
from tools.mutated_checkpoints import attempt, mutate, samples

from dataset.cli import UserError

HERE = ROOT / "tests/references/checkpoints"
EXPECTED = np.load(HERE / "expected.npz")
STATE = [key for key in EXPECTED.files if key != "opencv" and not key.startswith("parameters.")]


def refused(path, words):
    with pytest.raises(UserError, match=words) as error:
        formats.read(path)
    assert "\n" not in str(error.value) and str(error.value).count(str(path)) == 1


def put(path, data):
    path.write_bytes(data)
    return path


# PyTorch


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "protocol4.pth", "training.pth.tar", "tiny.safetensors"])
def test_the_same_arrays_in_every_encoding(name):
    found = formats.read(HERE / name)
    arrays = {key.removeprefix("module."): array for key, array in found.arrays.items()}
    assert set(arrays) == set(STATE)
    for key in STATE:
        assert arrays[key].dtype == EXPECTED[key].dtype and arrays[key].shape == EXPECTED[key].shape, key
        np.testing.assert_array_equal(arrays[key], EXPECTED[key])


def test_what_else_a_checkpoint_says():
    extra = formats.read(HERE / "training.pth.tar").extra
    assert (extra["epoch"], extra["arch"], extra["best"], extra["classes"]) == (3, "googlenet", 0.25, ["a", "b"])


def test_parameters_as_well_as_tensors():
    arrays = formats.read(HERE / "parameters.pth").arrays
    for key in ("weight", "bias"):
        np.testing.assert_array_equal(arrays[key], EXPECTED[f"parameters.{key}"])


def test_a_whole_module_is_refused():
    refused(HERE / "module.pth", "asks for 'torch.nn.modules.linear.Linear', which is code and no weights")


def test_a_torchscript_program_is_refused():
    refused(HERE / "script.pt", "TorchScript")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_carries_code_is_refused(tmp_path, legacy, protocol):
    harm = tmp_path / "harm"
    code = pickle.dumps({"conv.weight": Evil(harm)}, protocol=protocol)
    path = tmp_path / "x.pth"
    if legacy:
        path.write_bytes(LEGACY + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + code)
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", code)
    refused(path, "posix.system.*refused|instruction .* refused|damaged")
    assert not harm.exists()


def pickled(tmp_path, data):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as file:
        file.writestr("x/data.pkl", data)
        file.writestr("x/data/0", bytes(16))
    return tmp_path / "x.pth"


def constant(value):
    """The pickle of a value, without its start and its end."""
    return pickle.dumps(value, 2)[2:-1]


def tensor_pickle(offset=0, shape=(2, 2), strides=(2, 1), length=4):
    """The pickle of {"w": a float tensor}, with any numbers."""
    identity = [constant("storage"), b"ctorch\nFloatStorage\n", *map(constant, ("0", "cpu", length))]
    arguments = [b"(", *identity, b"tQ", *map(constant, (offset, shape, strides, False)), b"}"]
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"".join(arguments) + b"tR"
    return b"\x80\x02}" + constant("w") + tensor + b"s."


def test_a_tensor_made_by_hand(tmp_path):
    arrays = formats.read(pickled(tmp_path, tensor_pickle())).arrays
    assert arrays["w"].shape == (2, 2)


def test_what_python_2_wrote(tmp_path):
    """A state dict of 2017 from a GPU: short strings, an OrderedDict made of pairs, _rebuild_tensor, CUDA storages."""
    identity = b"(U\x07storagectorch.cuda\nFloatStorage\nU\x017U\x06cuda:0K\x04NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + identity + b"K\x00(K\x02K\x02t(K\x02K\x01ttR"
    mapping = b"ccollections\nOrderedDict\n(](](U\x08module.w" + tensor + b"eetR"
    keys = pickle.dumps(["7"], 2)
    head = LEGACY + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    state = b"\x80\x02}(U\x05epochK\x5aU\x0astate_dict" + mapping + b"u."
    data = head + state + keys + struct.pack("<q", 4) + np.arange(4, dtype="<f4").tobytes()
    found = formats.read(put(tmp_path / "x.pth.tar", data))
    np.testing.assert_array_equal(found.arrays["module.w"], [[0, 1], [2, 3]])
    assert found.extra["epoch"] == 90


@pytest.mark.parametrize(
    "lie",
    [
        {"offset": 1},
        {"offset": -1},
        {"shape": (3, 2)},
        {"shape": (1 << 40, 1), "strides": (0, 0)},
        {"strides": (1 << 40, 1)},
        {"strides": (-2, 1)},
        {"length": 1 << 40},
        {"shape": (2,)},
    ],
)
def test_tensors_beyond_their_storage_are_refused(tmp_path, lie):
    refused(pickled(tmp_path, tensor_pickle(**lie)), "damaged|larger than the file")


def test_a_pickle_of_endless_instructions_is_refused(tmp_path):
    refused(pickled(tmp_path, b"\x80\x02" + b"]0" * 10), "instruction")
    with zipfile.ZipFile(tmp_path / "y.pth", "w") as file:
        file.writestr("x/data.pkl", b"\x80\x02" + b"]" * (OPERATIONS + 5))
    refused(tmp_path / "y.pth", "far longer")


def test_hash_bombs_cost_no_time(tmp_path):
    """A tuple of tuples of tuples takes for ever to hash: it is no key."""
    nested = b"\x80\x02}" + b"K\x01" + b"q\x00h\x00\x86" * 60 + b"K\x01s."  # {((1, 1), (1, 1)), ...}: 1}
    pickletools.optimize(nested)  # it is a well-formed pickle
    refused(pickled(tmp_path, nested), "no state dict")
    pairs = b"\x80\x02ccollections\nOrderedDict\n(](](K\x01" + b"q\x00h\x00\x86" * 60 + b"K\x01eetR."
    refused(pickled(tmp_path, pairs), "no state dict")


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "tiny.safetensors"])
def test_cut_off(tmp_path, name):
    data = (HERE / name).read_bytes()
    for size in range(1, len(data), 61):
        refused(put(tmp_path / name, data[:size]), "cut off|damaged|no format|no state dict")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (b"hello", "no format that is known"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x80\x02}.", "no state dict"),
        (b"4\n1\n3\nV 1\n", "text form"),
        (bytes(257) + b"ustar\x00", "tar archive"),
    ],
)
def test_other_files(tmp_path, content, words):
    refused(put(tmp_path / "x.pth", content), words)


def test_missing_files_and_folders(tmp_path):
    refused(tmp_path / "none.pth", "No such file")
    refused(tmp_path, "folder")


# Caffe


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", ["new", "old", "unpacked"])
@pytest.mark.parametrize("double", [False, True])
def test_caffemodel(tmp_path, v1, packed, shape, double):
    data = foreign.caffemodel(foreign.caffe_layers(), v1, packed=packed, shape=shape, double=double)
    arrays = formats.read(put(tmp_path / "x.caffemodel", data)).arrays
    assert {key: array.shape for key, array in arrays.items()} == {
        "conv/3x3.weight": (4, 3, 3, 3),
        "conv/3x3.bias": (4,),
        "fc.weight": (2, 48),
        "fc.bias": (2,),
    }
    x = foreign.caffe_input()
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[0]
    conv = np.einsum("chwij,ocij->ohw", windows, arrays["conv/3x3.weight"]) + arrays["conv/3x3.bias"][:, None, None]
    logits = arrays["fc.weight"] @ conv.ravel() + arrays["fc.bias"]
    np.testing.assert_allclose(logits, EXPECTED["opencv"][0], rtol=1e-4)  # as OpenCV's readNetFromCaffe has it


def test_caffemodel_shape_that_lies(tmp_path):
    for shape, count in (((2, 3), 5), ((1 << 50, 1), 1), ((1 << 40,), 0)):
        sizes = b"".join(foreign.varint(size) for size in shape)
        body = foreign.message(7, foreign.message(1, sizes)) + foreign.message(5, bytes(4 * count))
        layer = foreign.message(1, b"x") + foreign.message(2, b"Convolution") + foreign.message(7, body)
        refused(put(tmp_path / "x.caffemodel", foreign.message(100, layer)), "damaged|no weights")


def test_caffemodel_of_endless_fields(tmp_path):
    refused(put(tmp_path / "x.caffemodel", b"\x18\x00" * (OPERATIONS + 5)), "far more fields")


# safetensors


def test_safetensors_of_our_own(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.array(3, np.int64)}
    found = formats.read(put(tmp_path / "x.safetensors", foreign.safetensors(arrays, {"by": "hand"})))
    assert found.extra == {"by": "hand"}
    for key, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[key], array)


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [4611686018427387904], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}',
        b'{"a": {"dtype": "F32", "shape": [2]}}',
        b'{"a": 7}',
        b"{" * 50,
        b'{"a":' * 5000,
    ],
)
def test_safetensors_that_lie(tmp_path, header):
    refused(put(tmp_path / "x.safetensors", struct.pack("<Q", len(header)) + header + bytes(8)), "damaged")


def test_safetensors_with_a_name_twice(tmp_path):
    one = json.dumps({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})
    header = f'{{"a": {one}, "a": {one}}}'.encode()
    refused(put(tmp_path / "x.safetensors", struct.pack("<Q", len(header)) + header + bytes(8)), "twice")


# Torch7


def test_torch7_modules_come_in_the_order_of_the_layers(tmp_path):
    base = np.arange(20, dtype=np.float32)
    conv, linear = base[:12].reshape(2, 6), np.arange(6.0).reshape(3, 2)
    batch_norm = {key: base[i : i + 2] for i, key in enumerate(("weight", "bias", "running_mean", "running_var"))}
    net = Module(
        "nn.Sequential",
        modules=[
            Module("nn.SpatialConvolutionMM", bias=base[12:14], weight=conv, gradWeight=conv, f=Function()),
            Module(
                "nn.Concat", modules={2: Module("cudnn.ReLU"), 1: Module("nn.SpatialBatchNormalization", **batch_norm)}
            ),
            Module("nn.Linear", weight=linear, inplace=True, output=None),
        ],
    )
    found = formats.read(put(tmp_path / "x.t7", foreign.t7({"epoch": 3, "model": net, "copy": net})))
    assert found.order == "modules"
    assert list(found.arrays) == [
        *("model.1.weight", "model.1.bias"),
        *(f"model.2.1.{key}" for key in ("weight", "bias", "running_mean", "running_var")),
        "model.3.weight",
    ]
    np.testing.assert_array_equal(found.arrays["model.1.weight"], conv)
    np.testing.assert_array_equal(found.arrays["model.1.bias"], [12, 13])
    np.testing.assert_array_equal(found.arrays["model.2.1.running_var"], [3, 4])
    np.testing.assert_array_equal(found.arrays["model.3.weight"], linear)


def test_torch7_tables_keep_their_keys(tmp_path):
    value = {"conv1": {"weight": np.ones((2, 3), np.float32)}, "list": [np.zeros(1, np.float32), np.ones(1)], "n": None}
    found = formats.read(put(tmp_path / "x.t7", foreign.t7(value)))
    assert found.order == "names" and set(found.arrays) == {"conv1.weight", "list.1", "list.2"}


def test_torch7_refusals(tmp_path):
    path = tmp_path / "x.t7"
    refused(put(path, foreign.t7(Module("os.execute"))), "class 'os.execute'")
    deep = {}
    for _ in range(DEPTH + 2):
        deep = {"x": deep}
    refused(put(path, foreign.t7(deep)), "nested deeper")
    data = foreign.t7({"a": np.ones(4, np.float32)})
    for size in range(4, len(data), 3):
        refused(put(path, data[:size]), "damaged|no weights")
    huge = data.replace(struct.pack("<q", 4), struct.pack("<q", 1 << 40))
    refused(put(path, huge), "damaged")
    endless = {}
    endless["self"] = endless
    refused(put(path, foreign.t7(endless)), "no weights")


# Names


def as_torch(arrays):
    return {key: a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for key, a in arrays.items()}


def stand_ins(model, aux=False, num_classes=None):
    """Arrays of a network's shapes that cost no memory: one number each, spread out."""
    arrays = {}
    for i, (key, shape) in enumerate(shapes_of(model, aux=aux).items()):
        head = shape[0] == models.REGISTRY[model].num_classes and num_classes
        arrays[key] = np.broadcast_to(np.float32(i + 1), (num_classes, *shape[1:]) if head else shape)
    return arrays


def converted(arrays, model=None, hint="", **options):
    return state_dict.convert_state_dict(Checkpoint(arrays, **options), model, hint)[:2]


def same(found, wanted):
    assert set(found) == set(wanted)
    for key, array in wanted.items():
        assert found[key].shape == array.shape and found[key].flat[0] == array.flat[0], key


def test_prefixes_and_counters_go():
    arrays = stand_ins("resnet50", num_classes=5)
    theirs = {f"module._orig_mod.{key}": array for key, array in as_torch(arrays).items()}
    theirs["module.bn1.num_batches_tracked"] = np.array(7)
    found, metadata = converted(theirs)
    same(found, arrays)
    assert (metadata.model, metadata.num_classes) == ("resnet50", 5)
    assert metadata.mean == [123.675, 116.28, 103.53]


def test_vgg_of_caffe():
    arrays = stand_ins("vgg19")
    theirs = {}
    names = {f"classifier.{i}": f"fc{n}" for n, i in ((6, 0), (7, 3), (8, 6))}
    names |= {ours: theirs for theirs, ours in vgg_aliases(VGG19.depths).items() if theirs.startswith("conv")}
    for key, array in as_torch(arrays).items():
        module, _, field = key.rpartition(".")
        theirs[f"{names[module]}.{field}"] = array
    found, metadata = converted(theirs)
    same(found, arrays)
    assert metadata.channel_order == "BGR" and metadata.mean[0] == 123.68 and metadata.std == [1.0] * 3


def test_vgg_of_jcjohnson_and_of_timm():
    arrays = stand_ins("vgg16")
    port = {"classifier.0": "classifier.1", "classifier.3": "classifier.4"}
    theirs = {}
    for key, array in as_torch(arrays).items():
        module, _, field = key.rpartition(".")
        theirs[f"{port.get(module, module)}.{field}"] = array
    found, metadata = converted(theirs)
    same(found, arrays)
    assert metadata.channel_order == "BGR"

    timm = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    shapes = {"pre_logits.fc1.weight": (4096, 512, 7, 7), "pre_logits.fc2.weight": (4096, 4096, 1, 1)}
    theirs = {}
    for key, array in as_torch(arrays).items():
        module, _, field = key.rpartition(".")
        key = f"{timm.get(module, module)}.{field}"
        theirs[key] = np.broadcast_to(array.flat[0], shapes.get(key, array.shape))
    found, metadata = converted(theirs)
    same(found, arrays)
    assert metadata.channel_order == "RGB"


def test_torch7_by_order():
    arrays = stand_ins("vgg16", num_classes=12)
    theirs = {}
    for i, key in enumerate(arrays):
        array = as_torch(arrays)[key]
        flat = array.ndim == 4 and i % 4 == 0  # SpatialConvolutionMM's
        theirs[f"{i // 2}.{key.rpartition('.')[2]}"] = array.reshape(len(array), -1) if flat else array
    found, metadata = converted(theirs, order="modules")
    same(found, arrays)
    assert (metadata.model, metadata.num_classes) == ("vgg16", 12)
    theirs.popitem()
    with pytest.raises(UserError, match="16 layers, one after another, are not those of any network here"):
        converted(theirs, order="modules")


def test_torch7_residual_net_with_biases_of_zero():
    arrays = stand_ins("resnet50", num_classes=12)
    theirs, number = {}, {}
    for key, array in as_torch(arrays).items():
        module, _, field = key.rpartition(".")
        number.setdefault(module, len(number))
        theirs[f"{number[module]}.{field}"] = array
        if array.ndim == 4:
            theirs[f"{number[module]}.bias"] = np.zeros(len(array), np.float32)
    found, metadata = converted(theirs, order="modules")
    same(found, arrays)
    assert metadata.model == "resnet50"


def test_what_dream_creator_says():
    arrays = as_torch(stand_ins("resnet50", num_classes=2))
    matrix = np.arange(9, dtype=np.float32).reshape(3, 3)
    extra = {
        "normalize_params": [[100.0, 110.0, 120.0], [60.0, 70.0, 80.0], "BGR"],
        "color_correlation_svd_sqrt": matrix,
        "class_to_idx": {"dog": 1, "cat": 0},
    }
    _, metadata = converted(arrays, extra=extra)
    assert metadata.mean == [120, 110, 100] and metadata.std == [80, 70, 60] and metadata.channel_order == "BGR"
    assert metadata.color_matrix == matrix[::-1].tolist() and metadata.classes == ["cat", "dog"]
    extra["normalize_params"] = [[0.5, 0.25, 0], [1, 1, 1], "RGB"]
    assert converted(arrays, extra=extra)[1].mean == [127.5, 63.75, 0]


# The GoogLeNet of 2015, from a file to its activations


def caffe_weights(names, model="googlenet_bvlc"):
    """{their name: array in torch's layout} of the seeded weights. names: {"conv1": theirs, "1x1": theirs, ...}"""
    kinds = dict(zip(("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1"), KINDS, strict=True))
    net = models.entry(model).build(seeded.CLASSES, aux=True)
    shapes = {path: array.shape for path, array in tree_flatten(net.parameters())}
    shapes = {path: (s[0], s[3], s[1], s[2]) if len(s) == 4 else s for path, s in shapes.items()}
    arrays = {}
    for path, array in seeded.weights(shapes, seeded.CASES[model]).items():
        module, _, field = path.rpartition(".")
        module = module.removesuffix(".conv")
        if module.startswith("inception"):
            stage, _, branch = module.removeprefix("inception").partition(".")
            module = names["inception"](stage, kinds[branch])
        else:
            module = names[module]
        if module:
            arrays[f"{module}.{field}"] = array
    return arrays


KINDS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
CAFFE = {
    "inception": "inception_{}/{}".format,
    "conv1": "conv1/7x7_s2",
    "conv2": "conv2/3x3_reduce",
    "conv3": "conv2/3x3",
    "fc": "loss3/classifier",
    "aux1.conv": "loss1/conv",
    "aux1.fc1": "loss1/fc",
    "aux1.fc2": "loss1/classifier",
    "aux2.conv": "loss2/conv",
    "aux2.fc1": "loss2/fc",
    "aux2.fc2": "loss2/classifier",
}
NEURAL_DREAM = {
    "inception": "inception_{}_{}".format,
    "conv1": "conv1_7x7_s2",
    "conv2": "conv2_3x3_reduce",
    "conv3": "conv2_3x3",
    "fc": None,
    "aux1.conv": "loss1_conv",
    "aux1.fc1": "loss1_fc_1",
    "aux1.fc2": "loss1_classifier_1",
    "aux2.conv": "loss2_conv",
    "aux2.fc1": "loss2_fc_1",
    "aux2.fc2": "loss2_classifier_1",
}
DREAM_CREATOR = {
    "inception": lambda stage, kind: f"mixed{stage}.{kind if kind == 'pool_proj' else f'conv_{kind}'}",
    "conv1": "conv1",
    "conv2": "conv2",
    "conv3": "conv3",
    "fc": None,
    "aux1.conv": "aux1.loss_conv",
    "aux1.fc1": "aux1.loss_fc",
    "aux1.fc2": "aux1.loss_classifier",
    "aux2.conv": "aux2.loss_conv",
    "aux2.fc1": "aux2.loss_fc",
    "aux2.fc2": "aux2.loss_classifier",
}
TRAINED = DREAM_CREATOR | {"fc": "fc"}
CAPTUM = TRAINED | {f"aux{i}.{part}": f"aux{i}.{part}" for i in (1, 2) for part in ("conv", "fc1", "fc2")}


def agrees(path, model="googlenet_bvlc"):
    """Whether the network in a weights file computes at every stage what OpenCV's reading of a caffemodel does."""
    net = models.load(weights=path)
    case = seeded.CASES[model]
    rows = {row["name"].decode(): row for row in np.load(seeded.REFERENCES / f"{model}.npy")}
    names = [name for name in net.layers if name in rows]
    activations = net.activations(seeded.picture(case.batch, *case.size).astype(np.float32), names)
    for name in names:
        largest, values = seeded.digest(np.array(activations[name]))
        assert np.abs(values - rows[name]["values"]).max() < 1e-4 * largest, name
    return len(names)


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("model", ["googlenet_bvlc", "googlenet_places365"])
def test_a_caffemodel_to_its_activations(tmp_path, model, v1):
    arrays = caffe_weights(CAFFE, model)
    layers = []
    for key in arrays:
        if key.endswith(".weight"):
            name = key.removesuffix(".weight")
            kind = "Convolution" if arrays[key].ndim == 4 else "InnerProduct"
            layers.append((name, kind, [arrays[key], arrays[f"{name}.bias"]]))
    data = foreign.caffemodel(layers, v1, packed=not v1, shape="old" if v1 else "new")
    # 10 classes are neither network's, so that the user has to say which one it is
    found, metadata = state_dict.load(put(tmp_path / "x.caffemodel", data), model)
    assert (metadata.model, metadata.num_classes, metadata.aux) == (model, 10, True)
    assert metadata.channel_order == "BGR"
    weights_file.write(tmp_path / "x.npz", found, metadata, "float32")
    assert agrees(tmp_path / "x.npz", model) > 70


def test_caffejs_to_its_activations(tmp_path):
    """Raw numbers, O x H x W x I, a file a parameter; the auxiliary classifiers are not among them."""
    for key, array in caffe_weights(CAFFE).items():
        layer, _, field = key.rpartition(".")
        path = tmp_path / "bvlc" / f"{layer}_{'filter' if field == 'weight' else 'bias'}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        if layer[:5] not in ("loss1", "loss2"):
            path.write_bytes(np.ascontiguousarray(array.transpose(0, 2, 3, 1) if array.ndim == 4 else array).tobytes())
    found, metadata = state_dict.load(tmp_path / "bvlc")
    assert (metadata.model, metadata.num_classes, metadata.aux) == ("googlenet_bvlc", 10, False)
    weights_file.write(tmp_path / "x.npz", found, metadata, "float32")
    assert agrees(tmp_path / "x.npz") > 70
    for path in (tmp_path / "bvlc").rglob("7x7_s2_filter.bin"):
        path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="conv1.conv.weight is misshapen"):
        state_dict.load(tmp_path / "bvlc")


@pytest.mark.parametrize("names", [NEURAL_DREAM, DREAM_CREATOR, TRAINED, CAPTUM])
def test_ports_of_the_caffe_network(tmp_path, names):
    found, metadata = converted(caffe_weights(names))
    whole = bool(names["fc"])
    assert (metadata.model, metadata.num_classes, metadata.aux) == ("googlenet_bvlc", 10 * whole, whole)
    weights_file.write(tmp_path / "x.npz", found, metadata, "float32")
    assert agrees(tmp_path / "x.npz") > 70
    assert ("fc" in models.load(weights=tmp_path / "x.npz").layers) == whole


def test_places365_by_its_name_where_the_classifier_is_missing():
    arrays = caffe_weights(NEURAL_DREAM)
    assert converted(arrays, hint="googlenet_places365.pth")[1].model == "googlenet_places365"
    assert converted(arrays, hint="x.pth", extra={"base_model": "p365"})[1].model == "googlenet_places365"


# Mutations


@pytest.mark.parametrize("name, data", samples().items(), ids=samples())
def test_mutated_files_give_a_result_or_one_line(tmp_path, name, data):
    rng = random.Random(name)
    outcomes = Counter()
    started = time.process_time()
    for _ in range(150):
        outcomes[attempt(put(tmp_path / name, mutate(data, rng, name)))] += 1
    assert outcomes["one line"] > 0 and outcomes.total() == 150
    assert time.process_time() - started < 60
