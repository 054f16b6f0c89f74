"""The weights format: one .npz, read and written here and nowhere else.

An array a parameter, named by its path in the network, in MLX's layout (convolutions O x H x W x I); and an entry
`__metadata__`, UTF-8 JSON as uint8:

    format          2 where there are entries beside the network's arrays, else 1
    model           name in the registry
    num_classes     0 where the file has no classifier
    classes         their names in order, or null
    mean, std       three numbers each, R G B, of pixels 0..255
    channel_order   "RGB" or "BGR": what the first layer takes
    color_matrix    3 x 3 (rows R G B), or null
    aux             whether the auxiliary classifiers are in the file
    source          name of the file it was converted from, and source_sha256
    origin          licence, or a note of where the weights come from
    layer           dreamed on by default
    dtype           float16, float32, bfloat16 or int8

Entries whose names begin with "__" belong to no layer: extras, such as a background (models/dreaming/background.py).
Whoever writes a file may add keys of their own. bfloat16 is stored as MLX stores it (two raw bytes, '<V2'); int8 as
KEY_int8 with KEY_scale, one scale an output channel. The files published as NickMystic/DeepDream-MLX have no metadata,
torchvision's names and its O x I x H x W: read() turns them into ours.
"""

import json
import math
from pathlib import Path

import numpy as np

from dataset.cli import UserError
from dataset.files import atomic_write

from .conversion.identification import identify
from .npz import from_bfloat16, npy_entries, to_bfloat16
from .registry import REGISTRY

FORMAT = 2  # the newest; files without extras stay readable for programs that know format 1
METADATA = "__metadata__"
EXTRA = "__"  # what the names of entries begin with that belong to no layer
DTYPES = ("float16", "float32", "bfloat16", "int8")


def read(path):
    """The arrays and the metadata of a weights file, ours or a published one.

    Returns ({parameter path: numpy array, MLX layout, float16 or float32}, metadata with every key of the format).
    Raises UserError, in one line, for whatever is no weights file. Nothing in the file is executed, and nothing
    larger than the file justifies is allocated.
    """
    path = Path(path)
    raw = dict(npy_entries(path))
    text = raw.get(METADATA)
    raw = {key: array for key, array in raw.items() if not key.startswith(EXTRA)}
    try:
        arrays = decode(raw)
        if text is None:
            return published(path, arrays, stored_as(raw))
        metadata = json.loads(text.tobytes().decode()) if text.dtype == np.uint8 else None
        metadata = validate(metadata)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError):  # no UTF-8, no JSON
        raise UserError(f"{path}: its metadata cannot be read; the file is damaged") from None
    return arrays, metadata


def read_extras(path, start=""):
    """Return {NAME: array} of a weights file's entries __START + NAME."""
    start = EXTRA + start

    def wanted(name):
        return name.startswith(start) and name != METADATA

    return {name.removeprefix(start): array for name, array in npy_entries(path, wanted)}


def write(path, arrays, metadata, dtype="float16", extras=None):
    """Write {parameter path: array} and metadata, whole or not at all.

    extras: {NAME: array}, stored as they are, under __NAME.

    dtype: how arrays are stored. With float16, an array that holds a number beyond its range stays float32; with
    int8, everything but the weights of convolutions and classifiers stays float16.
    Raises UserError where a weight is no finite number.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {DTYPES}")
    metadata = validate({**metadata, "format": FORMAT if extras else 1, "dtype": dtype})
    entries = {METADATA: np.frombuffer(json.dumps(metadata, ensure_ascii=False).encode(), np.uint8)}
    for key, array in arrays.items():
        array = np.asarray(array)
        if not np.isfinite(array).all():
            raise UserError(f"{key} holds numbers that are not finite; the weights are spoilt, nothing was written")
        entries |= encode(key, array, dtype)
    entries |= {EXTRA + name: np.asarray(array) for name, array in (extras or {}).items()}
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **entries)


def encode(key, array, dtype):
    """{entry: array} that stores `array` as `dtype`."""
    if dtype == "float32":
        return {key: array.astype(np.float32)}
    if dtype == "bfloat16":
        return {key: to_bfloat16(array)}
    if dtype == "int8" and array.ndim > 1:
        channels = np.abs(array.astype(np.float32)).reshape(len(array), -1).max(axis=1, initial=0)
        scale = (channels / 127).reshape(-1, *[1] * (array.ndim - 1)).astype(np.float32)
        steps = np.rint(array / np.where(scale > 0, scale, 1)).astype(np.int8)
        return {f"{key}_int8": steps, f"{key}_scale": scale}
    fits = np.abs(array).max(initial=0) <= np.finfo(np.float16).max
    return {key: array.astype(np.float16 if fits else np.float32)}


def decode(raw):
    """Stored arrays to float16 and float32: the inverse of encode(), also for the int8 of the published files."""
    arrays = {}
    for key, array in raw.items():
        if key.endswith("_scale") and key.removesuffix("_scale") + "_int8" in raw:
            continue
        if key.endswith("_int8") and key.removesuffix("_int8") + "_scale" in raw:
            key = key.removesuffix("_int8")
            scale = raw[f"{key}_scale"].astype(np.float32)
            if scale.size not in (1, array.shape[0] if array.ndim else 1):
                raise UserError(f"{key}_scale has {scale.size} values, which do not fit {key}_int8")
            array = array.astype(np.float32) * scale.reshape(-1, *[1] * (array.ndim - 1) if array.ndim else [])
        elif array.dtype.kind == "V":
            array = from_bfloat16(array)
        elif array.dtype not in (np.float16, np.float32):
            array = array.astype(np.float32)
        arrays[key] = array
    return arrays


def stored_as(raw):
    """The dtype of a file in the words of the metadata."""
    if any(key.endswith("_int8") for key in raw):
        return "int8"
    kinds = {array.dtype.str[1:] for array in raw.values()}
    return next((name for kind, name in {"V2": "bfloat16", "f2": "float16"}.items() if kind in kinds), "float32")


def validate(metadata):
    """Metadata with its types verified and its defaults filled in. Raises UserError."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get("format"), int):
        raise UserError("its metadata is not that of a weights file")
    if metadata["format"] > FORMAT:
        raise UserError(f"it has format {metadata['format']}, which a newer DeepDream-MLX wrote: update this one")
    model = metadata.get("model")
    if not isinstance(model, str) or model not in REGISTRY:
        raise UserError(f"it holds weights of a network that is not here: {model!r}")
    entry = REGISTRY[model]
    defaults = {
        "num_classes": entry.num_classes,
        "classes": None,
        "color_matrix": None,
        "aux": False,
        **statistics_of(entry),
        "source": None,
        "source_sha256": None,
        "origin": None,
        "layer": entry.default_layer,
        "dtype": "float32",
    }
    metadata = {**defaults, **metadata}
    classes = metadata["classes"]
    matrix = metadata["color_matrix"]
    right = {
        "num_classes": is_count(metadata["num_classes"]),
        "classes": classes is None or is_list(classes, str) and len(classes) == metadata["num_classes"],
        "mean": is_triple(metadata["mean"]),
        "std": is_triple(metadata["std"]) and min(metadata["std"]) > 0,
        "channel_order": metadata["channel_order"] in ("RGB", "BGR"),
        "color_matrix": matrix is None or is_list(matrix, list) and len(matrix) == 3 and all(map(is_triple, matrix)),
        "aux": isinstance(metadata["aux"], bool) and (entry.aux or not metadata["aux"]),
        "layer": isinstance(metadata["layer"], str),
        "dtype": metadata["dtype"] in DTYPES,
    }
    wrong = [key for key, good in right.items() if not good]
    if wrong:
        raise UserError(f"its metadata has a wrong {wrong[0]}: {str(metadata[wrong[0]])[:80]}")
    return metadata


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000


def is_list(value, kind):
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def is_triple(value):
    numbers = isinstance(value, (list, tuple)) and len(value) == 3 and all(type(item) in (int, float) for item in value)
    return numbers and all(math.isfinite(item) and abs(item) < 1e9 for item in value)


def statistics_of(entry):
    """The statistics of a registry entry in the words of the metadata."""
    statistics = entry.normalization
    return {"mean": list(statistics.mean), "std": list(statistics.std), "channel_order": statistics.order}


def published(path, arrays, dtype):
    """(arrays, metadata) of a file without metadata: torchvision's names and layout, the published statistics."""
    arrays = from_torch(arrays)
    match = identify({key: array.shape for key, array in arrays.items()})
    metadata = {
        "format": FORMAT,
        "model": match.model,
        "num_classes": match.num_classes,
        "aux": match.aux,
        "source": path.name,
        "dtype": dtype,
    }
    return {key: arrays[key] for key in match.keys}, validate(metadata)


def from_torch(arrays):
    """A state dict's arrays in MLX's layout: O x I x H x W to O x H x W x I, without num_batches_tracked."""
    return {
        key: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        for key, array in arrays.items()
        if not key.endswith("num_batches_tracked")
    }
