"""State dicts of other frameworks to our names, our layout, and the network that they belong to."""

import functools
import hashlib
import re
from pathlib import Path

import numpy as np

from dataset.cli import UserError, log
from dataset.files import sha256
from dataset.npz import is_npz

from .. import weights_file
from ..registry import REGISTRY
from ..weights_file import Metadata
from . import formats
from .caffejs import files as caffejs_files
from .identification import identify, shapes_of
from .layer_order import match_channels_last, match_modules
from .names import foreign_modules, foreign_names
from .pytorch import largest, rank

LONGEST = 300  # characters of a parameter's name
SEPARATORS = "./:|_-"  # that may end a prefix


def load(path, model=None, quiet=True):
    """Read any file that is known here: ({parameter path: array}, Metadata), ready for weights_file.write.

    model: what the user says it is; None recognises it. The metadata has the published statistics of the network,
    unless the file gives its own. quiet: no note of what is left out. Raises UserError.
    """
    path = Path(path)
    if is_npz(path):
        arrays, metadata = weights_file.read(path)
        if model not in (None, metadata.model):
            raise UserError(f"{path}: these are weights of {metadata.model}, not of {model}")
        metadata = metadata.replace(layer=metadata.build().resolve(metadata.layer))
    else:
        checkpoint = formats.read(path, choose_state)
        try:
            arrays, metadata, unused = convert_state_dict(checkpoint, model, path.name)
        except UserError as error:
            nothing_known = not find_prefix(checkpoint.arrays)[1]
            raise UserError(f"{path}: {checkpoint.hidden if checkpoint.hidden and nothing_known else error}") from None
        if unused:
            more = f" and {len(unused) - 4} more" if len(unused) > 4 else ""
            log(f"{path}: left out, since {metadata.model} has no place for them: {', '.join(unused[:4])}{more}", quiet)
    if not metadata.source_sha256:
        metadata = metadata.replace(source=path.name, source_sha256=digest(path))
    return arrays, metadata


def digest(path):
    """The SHA-256 of a file; of a folder, that of its listing as sha256sum prints it."""
    if path.is_file():
        return sha256(path)
    lines = [f"{sha256(file)}  {name}\n" for name, file in caffejs_files(path).items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def convert_state_dict(checkpoint, model=None, hint=""):
    """Return (arrays, Metadata, names of what is left out) of a Checkpoint: our names, MLX's layout.

    hint: the file's name, which may say "places365" where nothing else does.
    """
    arrays, implied, unused = checkpoint.arrays, {}, []
    prefix, known = find_prefix(arrays)
    if checkpoint.order == "modules":
        arrays = match_modules(arrays, model)
    elif checkpoint.order == "channels last" and 2 * known < len(arrays):
        arrays, unused = match_channels_last(arrays, model)
    else:
        refuse_unreadable(checkpoint.unreadable, prefix)
        unused = [key for key in arrays if not key.startswith(prefix)]
        arrays = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        names, implied = foreign_names({module_of(key) for key in arrays})
        arrays = {rename(key, names): array for key, array in arrays.items()}
        arrays = {key: flatten_classifier(key, array) for key, array in unwrap_classifier(arrays).items()}
        if checkpoint.order == "flat":
            arrays = give_shapes(arrays, model)
    arrays = weights_file.from_torch(arrays)
    shapes = {key: array.shape for key, array in arrays.items()}
    match = identify(shapes, model)
    if not model and not match.num_classes and match.model == "googlenet_bvlc":
        hint = f"{hint} {checkpoint.extra.get('base_model')}".lower()
        if "places365" in hint or "p365" in hint:  # the same network; without its classifier only the name tells
            match = identify(shapes, "googlenet_places365")
    told = implied | embedded_metadata(checkpoint.extra, match.num_classes)
    metadata = Metadata(match.model, match.num_classes, aux=match.aux, **told)
    return {key: arrays[key] for key in match.keys}, metadata, [*unused, *match.unused]


@functools.cache
def known_names():
    """The names of all parameters of the networks here, by torchvision's and by others' names."""
    own = {key for name, entry in REGISTRY.items() for key in shapes_of(name, aux=entry.aux)}
    return own | {f"{module}.{field}" for module in foreign_modules() for field in ("weight", "bias")}


def find_prefix(names):
    """Find what stands before the names of a network here: (prefix, how many names go on as a network's do).

    It may be DataParallel's "module.", torch.compile's "_orig_mod.", Lightning's "model.", any other, several or none.
    """
    counts = {"": 0}
    for name in names:
        ends = [i + 1 for i, letter in enumerate(name) if letter in SEPARATORS] if len(name) <= LONGEST else []
        for end in [0, *ends]:
            if name[end:] in known_names():
                counts[name[:end]] = counts.get(name[:end], 0) + 1
    prefix = max(counts, key=counts.get)
    return prefix, counts[prefix]


def choose_state(candidates):
    """Choose of state dicts, [(where, {name: shape}), ...], the one that has most of a network here: the index."""
    known = [find_prefix(shapes)[1] for _, shapes in candidates]
    if not any(known):
        return largest(candidates)
    return max(range(len(candidates)), key=lambda i: (known[i], rank(candidates[i][0]), -len(candidates[i][1])))


def refuse_unreadable(unreadable, prefix):
    """Raise UserError if a parameter of a network here is of a kind that cannot be read."""
    for name, reason in unreadable.items():
        if name.removeprefix(prefix) in known_names():
            raise UserError(f"{name}: {reason}")


def give_shapes(arrays, model=None):
    """Give rows of numbers the shapes of the network whose names they have, O x H x W x I, as torch has them."""
    shapes = next(
        (shapes for name in ([model] if model else REGISTRY) if (shapes := shapes_of(name)).keys() >= arrays.keys()), {}
    )
    shaped = {}
    for key, array in arrays.items():
        shape = shapes.get(key, ())
        if len(shape) > 1 and array.size % np.prod(shape[1:]) == 0:
            array = array.reshape(-1, *shape[1:])
        shaped[key] = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
    return shaped


def module_of(key):
    return key.rpartition(".")[0]


def rename(key, names):
    module, dot, field = key.rpartition(".")
    return f"{names.get(module, module)}{dot}{field}"


def unwrap_classifier(arrays):
    """Take a Sequential with one layer of weights, in the place of the classifier, for the classifier."""
    for head in ("fc", "classifier.6"):
        inside = {match[1] for key in arrays if (match := re.fullmatch(rf"({head}\.\d+)\.(weight|bias)", key))}
        if len(inside) == 1:
            names = {inside.pop(): head}
            arrays = {rename(key, names): array for key, array in arrays.items()}
    return arrays


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
    numbers = extra.get("class_to_idx")
    if isinstance(numbers, dict) and weights_file.is_list(list(numbers.values()), int):
        classes = sorted(numbers, key=numbers.get)
    if weights_file.is_list(classes, str) and len(classes) == num_classes:
        found["classes"] = classes
    return found
