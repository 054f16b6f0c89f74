"""Arrays of other frameworks to our names, our layout, and the network that they belong to.

torchvision's names are ours; a few tables here know Caffe's, neural-dream's, dream-creator's, captum's and timm's.
"""

import math
import struct
import zipfile
from pathlib import Path

import numpy as np

from dataset.cli import UserError
from dataset.files import sha256

from .. import weights_file
from ..registry import REGISTRY
from . import readers
from .identification import identify, shapes_of


def load(path, model=None):
    """(arrays, metadata) of any file that is known here, ready for weights_file.write.

    model: what the user says it is; None recognises it. The metadata has the published statistics of the network,
    unless the file gives its own. Raises UserError.
    """
    path = Path(path)
    if is_npz(path):
        arrays, metadata = weights_file.read(path)
        if model not in (None, metadata["model"]):
            raise UserError(f"{path}: these are weights of {metadata['model']}, not of {model}")
        source = {"source": path.name, "source_sha256": sha256(path)}
        return arrays, metadata | ({} if metadata["source_sha256"] else source)
    checkpoint = readers.read(path)
    try:
        arrays, metadata = convert_state_dict(checkpoint, model, path.name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return arrays, metadata | {"source": path.name, "source_sha256": sha256(path)}


def is_npz(path):
    """Whether a file is a zip archive of arrays: a weights file of ours, or a published one."""
    try:
        with zipfile.ZipFile(path) as file:
            return all(name.endswith(".npy") for name in file.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return False  # readers.read says what is wrong with it


def convert_state_dict(checkpoint, model=None, hint=""):
    """(arrays, metadata) of a Checkpoint: our names, MLX's layout. hint: the file's name, which may say "places365"."""
    arrays = {strip_prefix(key): array for key, array in checkpoint.arrays.items()}
    implied = {}
    if checkpoint.in_order:
        arrays = by_order(arrays, model)
    else:
        names, implied = foreign_names({module_of(key) for key in arrays})
        arrays = {renamed(key, names): array for key, array in arrays.items()}
        arrays = {key: flat_classifier(key, array) for key, array in arrays.items()}
    arrays = weights_file.from_torch(arrays)
    shapes = {key: array.shape for key, array in arrays.items()}
    match = identify(shapes, model)
    if not model and not match.num_classes and match.model == "googlenet_bvlc":
        hint = f"{hint} {checkpoint.extra.get('base_model')}".lower()
        if "places365" in hint or "p365" in hint:  # the same network; without its classifier only the name tells
            match = identify(shapes, "googlenet_places365")
    metadata = {
        "model": match.model,
        "num_classes": match.num_classes,
        "aux": match.aux,
        **weights_file.statistics_of(REGISTRY[match.model]),
        **implied,
        **embedded_metadata(checkpoint.extra, match.num_classes),
    }
    return {key: arrays[key] for key in match.keys}, metadata


def strip_prefix(name):
    """A parameter's name without what DataParallel and torch.compile put in front."""
    for prefix in ("module.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name


def module_of(key):
    return key.rpartition(".")[0]


def renamed(key, names):
    module, dot, field = key.rpartition(".")
    return f"{names.get(module, module)}{dot}{field}"


def flat_classifier(key, array):
    """timm keeps the fully connected layers of VGG as convolutions: back to outputs x inputs."""
    return array.reshape(len(array), -1) if array.ndim == 4 and key.startswith("classifier.") else array


def embedded_metadata(extra, num_classes):
    """The metadata in what else a checkpoint holds: dream-creator's statistics and colour matrix, names of classes."""
    metadata = {}
    match extra.get("normalize_params"):
        case [mean, std, str(order)] if (
            order in ("RGB", "BGR") and weights_file.is_triple(mean) and weights_file.is_triple(std)
        ):
            step = -1 if order == "BGR" else 1
            unit = 1 if max(mean) > 1 else 255
            if min(std) > 0:
                metadata["mean"] = [float(number) * unit for number in mean[::step]]
                metadata["std"] = [float(number) * unit for number in std[::step]]
                metadata["channel_order"] = order
            matrix = extra.get("color_correlation_svd_sqrt")
            if isinstance(matrix, np.ndarray) and matrix.shape == (3, 3):
                metadata["color_matrix"] = matrix[::step].astype(float).tolist()
    classes = extra.get("classes", extra.get("class_names"))
    if isinstance(extra.get("class_to_idx"), dict):
        classes = sorted(extra["class_to_idx"], key=lambda name: extra["class_to_idx"][name])
    if weights_file.is_list(classes, str) and len(classes) == num_classes:
        metadata["classes"] = classes
    return metadata


BRANCHES = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}
STAGES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
CAFFE_VGG = {"mean": [123.68, 116.779, 103.939], "std": [1.0, 1.0, 1.0], "channel_order": "BGR"}


def foreign_names(modules):
    """({their module: our module}, what metadata such a file implies) where the names are not torchvision's."""
    for mark in ("/", "_"):  # Caffe, and neural-dream's ports
        if f"inception_3a{mark}1x1" in modules:
            return googlenet_names(modules, mark), {}
    if "mixed3a.conv_1x1" in modules:  # dream-creator, captum
        names = {f"conv{i}": f"conv{i}.conv" for i in (1, 2, 3)}
        for stage in STAGES:
            for theirs, branch in BRANCHES.items():
                theirs = theirs if theirs == "pool_proj" else f"conv_{theirs}"
                names[f"mixed{stage}.{theirs}"] = f"inception{stage}.{branch}.conv"
        for head in ("aux1", "aux2"):
            names |= {f"{head}.loss_conv": f"{head}.conv.conv", f"{head}.loss_fc": f"{head}.fc1"}
            names |= {f"{head}.loss_classifier": f"{head}.fc2", f"{head}.conv": f"{head}.conv.conv"}  # captum: conv
        return names, {}
    if "conv1_1" in modules:  # VGG of Caffe
        return vgg_names(modules), CAFFE_VGG
    if {"features.28", "classifier.1"} <= modules:  # the same, ported to PyTorch by jcjohnson
        return {"classifier.1": "classifier.0", "classifier.4": "classifier.3"}, CAFFE_VGG
    if "pre_logits.fc1" in modules:  # timm's VGG
        return {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}, {}
    return {}, {}


def googlenet_names(modules, mark):
    """Caffe's blob names a/b, or a_b. A classifier that was trained anew often has a longer name."""
    names = {"conv1/7x7_s2": "conv1.conv", "conv2/3x3_reduce": "conv2.conv", "conv2/3x3": "conv3.conv"}
    for stage in STAGES:
        for theirs, branch in BRANCHES.items():
            names[f"inception_{stage}/{theirs}"] = f"inception{stage}.{branch}.conv"
    names = {theirs.replace("/", mark): ours for theirs, ours in names.items()}
    for module in modules:
        for i, head in enumerate(("aux1", "aux2"), 1):
            if module.startswith(f"loss{i}{mark}"):
                part = module.removeprefix(f"loss{i}{mark}")
                names[module] = f"{head}.{'conv.conv' if part == 'conv' else 'fc1' if part.startswith('fc') else 'fc2'}"
        if module.startswith(f"loss3{mark}"):
            names[module] = "fc"
    return names


def vgg_names(modules):
    """conv1_1 ... conv5_4 by their place among convolutions, ReLUs and pools; fc6 ... fc8."""
    names = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    place = 0
    for block in range(1, 6):
        for convolution in range(1, 5):
            if f"conv{block}_{convolution}" in modules:
                names[f"conv{block}_{convolution}"] = f"features.{place}"
                place += 2
        place += 1
    return names


def by_order(arrays, model=None):
    """Arrays under our names, from modules without names: layer by layer in the order of a network that fits."""
    theirs = layers(arrays)
    for name in [model] if model else REGISTRY:
        own = layers(shapes_of(name))
        if len(own) != len(theirs):
            continue
        found = {}
        for (module, shapes), fields_ in zip(own.items(), theirs.values(), strict=True):
            head = shapes["weight"][0] == REGISTRY[name].num_classes
            fitted = fit(shapes, fields_, head)
            if fitted is None:
                break
            found |= {f"{module}.{key}": array for key, array in fitted.items()}
        else:
            return found
    raise UserError(
        f"its {len(theirs)} layers, one after another, are not those of {model or 'any network here'}"
        f" ({', '.join([model] if model else REGISTRY)})"
    )


def layers(items):
    """{module: {weight: ..., bias: ...}} of {path: ...}, in order."""
    groups = {}
    for key, item in items.items():
        groups.setdefault(module_of(key), {})[key.rpartition(".")[2]] = item
    return groups


def fit(shapes, arrays, head):
    """A layer's arrays in torch's layout if they have our shapes (O x H x W x I), else None. head: any number of
    outputs will do. A bias of nothing but zeros is dropped where we have none.
    """
    arrays = {key: array for key, array in arrays.items() if key in shapes or key != "bias" or array.any()}
    if set(arrays) != set(shapes):
        return None
    fitted = {}
    for key, shape in shapes.items():
        array = arrays[key]
        wanted = (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape
        if head:
            wanted = (array.shape[0], *wanted[1:])
        flat = len(wanted) == 4 and array.shape == (wanted[0], math.prod(wanted[1:]))  # SpatialConvolutionMM's
        if array.shape != wanted and not flat:
            return None
        fitted[key] = array.reshape(wanted)
    return fitted
