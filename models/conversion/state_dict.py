"""State dicts of other frameworks to our names, our layout, and the network that they belong to."""

import math
from pathlib import Path

import numpy as np

from dataset.cli import UserError
from dataset.files import sha256

from .. import weights_file
from ..npz import is_npz
from ..registry import REGISTRY
from ..weights_file import Metadata
from . import formats
from .identification import identify, shapes_of
from .names import foreign_names


def load(path, model=None):
    """Read any file that is known here: ({parameter path: array}, Metadata), ready for weights_file.write.

    model: what the user says it is; None recognises it. The metadata has the published statistics of the network,
    unless the file gives its own. Raises UserError.
    """
    path = Path(path)
    if is_npz(path):
        arrays, metadata = weights_file.read(path)
        if model not in (None, metadata.model):
            raise UserError(f"{path}: these are weights of {metadata.model}, not of {model}")
    else:
        checkpoint = formats.read(path)
        try:
            arrays, metadata = convert_state_dict(checkpoint, model, path.name)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    if not metadata.source_sha256:
        metadata = metadata.replace(source=path.name, source_sha256=sha256(path))
    return arrays, metadata


def convert_state_dict(checkpoint, model=None, hint=""):
    """Return (arrays, Metadata) of a Checkpoint: our names, MLX's layout.

    hint: the file's name, which may say "places365" where nothing else does.
    """
    arrays = {strip_prefix(key): array for key, array in checkpoint.arrays.items()}
    implied = {}
    if checkpoint.in_order:
        arrays = match_in_order(arrays, model)
    else:
        names, implied = foreign_names({module_of(key) for key in arrays})
        arrays = {rename(key, names): array for key, array in arrays.items()}
        arrays = {key: flatten_classifier(key, array) for key, array in arrays.items()}
    arrays = weights_file.from_torch(arrays)
    shapes = {key: array.shape for key, array in arrays.items()}
    match = identify(shapes, model)
    if not model and not match.num_classes and match.model == "googlenet_bvlc":
        hint = f"{hint} {checkpoint.extra.get('base_model')}".lower()
        if "places365" in hint or "p365" in hint:  # the same network; without its classifier only the name tells
            match = identify(shapes, "googlenet_places365")
    known = implied | embedded_metadata(checkpoint.extra, match.num_classes)
    return {key: arrays[key] for key in match.keys}, Metadata(match.model, match.num_classes, aux=match.aux, **known)


def strip_prefix(name):
    """Remove what DataParallel and torch.compile put in front of a parameter's name."""
    for prefix in ("module.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name


def module_of(key):
    return key.rpartition(".")[0]


def rename(key, names):
    module, dot, field = key.rpartition(".")
    return f"{names.get(module, module)}{dot}{field}"


def flatten_classifier(key, array):
    """Turn the convolutions that timm makes of VGG's fully connected layers back into matrices, outputs x inputs."""
    return array.reshape(len(array), -1) if array.ndim == 4 and key.startswith("classifier.") else array


def embedded_metadata(extra, num_classes):
    """Find fields of Metadata in what else a checkpoint holds: dream-creator's statistics and color matrix, and the
    names of the classes.
    """
    found = {}
    match extra.get("normalize_params"):
        case [mean, std, str(order)] if (
            order in ("RGB", "BGR") and weights_file.is_triple(mean) and weights_file.is_triple(std)
        ):
            step = -1 if order == "BGR" else 1
            unit = 1 if max(mean) > 1 else 255
            if min(std) > 0:
                found["mean"] = [float(number) * unit for number in mean[::step]]
                found["std"] = [float(number) * unit for number in std[::step]]
                found["channel_order"] = order
            matrix = extra.get("color_correlation_svd_sqrt")
            if isinstance(matrix, np.ndarray) and matrix.shape == (3, 3):
                found["color_matrix"] = matrix[::step].astype(float).tolist()
    classes = extra.get("classes", extra.get("class_names"))
    if isinstance(extra.get("class_to_idx"), dict):
        classes = sorted(extra["class_to_idx"], key=lambda name: extra["class_to_idx"][name])
    if weights_file.is_list(classes, str) and len(classes) == num_classes:
        found["classes"] = classes
    return found


def match_in_order(arrays, model=None):
    """Give arrays without telling names ours, layer by layer in the order of a network that they fit."""
    theirs = group_by_module(arrays)
    for name in [model] if model else REGISTRY:
        own = group_by_module(shapes_of(name))
        if len(own) != len(theirs):
            continue
        found = {}
        for (module, shapes), layer in zip(own.items(), theirs.values(), strict=True):
            any_outputs = shapes["weight"][0] == REGISTRY[name].num_classes
            matched = match_shapes(shapes, layer, any_outputs)
            if matched is None:
                break
            found |= {f"{module}.{key}": array for key, array in matched.items()}
        else:
            return found
    raise UserError(
        f"its {len(theirs)} layers, one after another, are not those of {model or 'any network here'}"
        f" ({', '.join([model] if model else REGISTRY)})"
    )


def group_by_module(items):
    """Turn {path: item} into {module: {"weight": item, "bias": ...}}, in order."""
    groups = {}
    for key, item in items.items():
        groups.setdefault(module_of(key), {})[key.rpartition(".")[2]] = item
    return groups


def match_shapes(shapes, arrays, any_outputs):
    """Return a layer's arrays in torch's layout if they have our shapes (O x H x W x I), else None.

    any_outputs: it is a classifier, whose number of outputs may differ. A bias of nothing but zeros is dropped where
    we have none.
    """
    arrays = {key: array for key, array in arrays.items() if key in shapes or key != "bias" or array.any()}
    if set(arrays) != set(shapes):
        return None
    matched = {}
    for key, shape in shapes.items():
        array = arrays[key]
        wanted = (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape
        if any_outputs:
            wanted = (array.shape[0], *wanted[1:])
        flat = len(wanted) == 4 and array.shape == (wanted[0], math.prod(wanted[1:]))  # SpatialConvolutionMM's
        if array.shape != wanted and not flat:
            return None
        matched[key] = array.reshape(wanted)
    return matched
