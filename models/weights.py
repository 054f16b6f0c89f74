"""The weights format: one .npz, read and written here and nowhere else.

An array a parameter, named by its path in the network, in MLX's layout (convolutions O x H x W x I); and an entry
`__metadata__`, UTF-8 JSON as uint8:

    format          1
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

Whoever writes a file may add keys of their own. bfloat16 is stored as MLX stores it (two raw bytes, '<V2'); int8 as
KEY_int8 with KEY_scale, one scale an output channel. The files published as NickMystic/DeepDream-MLX have no metadata,
torchvision's names and its O x I x H x W: read() turns them into ours.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import REGISTRY
from .cli import UserError, whole

FORMAT = 1
METADATA = "__metadata__"
DTYPES = ("float16", "float32", "bfloat16", "int8")
INFLATION = 64  # how many times its size a file may grow when it is unpacked; trained weights hardly shrink at all


def read(path):
    """The arrays and the metadata of a weights file, ours or a published one.

    Returns ({parameter path: numpy array, MLX layout, float16 or float32}, metadata with every key of the format).
    Raises UserError, in one line, for whatever is no weights file. Nothing in the file is executed, and nothing
    larger than the file justifies is allocated.
    """
    path = Path(path)
    raw = dict(npy_entries(path))
    text = raw.pop(METADATA, None)
    try:
        arrays = widen(raw)
        if text is None:
            return published(path, arrays, stored_as(raw))
        metadata = json.loads(text.tobytes().decode()) if text.dtype == np.uint8 else None
        metadata = checked(metadata)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError):  # no UTF-8, no JSON
        raise UserError(f"{path}: its metadata cannot be read; the file is damaged") from None
    return arrays, metadata


def write(path, arrays, metadata, dtype="float16"):
    """Write {parameter path: array} and metadata, whole or not at all.

    dtype: how arrays are stored. With float16, an array that holds a number beyond its range stays float32; with
    int8, everything but the weights of convolutions and classifiers stays float16.
    Raises UserError where a weight is no finite number.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {DTYPES}")
    metadata = checked({**metadata, "format": FORMAT, "dtype": dtype})
    entries = {METADATA: np.frombuffer(json.dumps(metadata, ensure_ascii=False).encode(), np.uint8)}
    for key, array in arrays.items():
        array = np.asarray(array)
        if not np.isfinite(array).all():
            raise UserError(f"{key} holds numbers that are not finite; the weights are spoilt, nothing was written")
        entries |= narrow(key, array, dtype)
    with whole(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **entries)


def narrow(key, array, dtype):
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


def to_bfloat16(array):
    """The upper half of float32, rounded to the nearest, ties to even; as two raw bytes a number."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").view("V2")


def from_bfloat16(array):
    return (np.ascontiguousarray(array).view("<u2").astype(np.uint32) << 16).view(np.float32)


def widen(raw):
    """Stored arrays to float16 and float32: the inverse of narrow(), also for the int8 of the published files."""
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


def checked(metadata):
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
        "layer": entry.layer,
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
    statistics = entry.statistics
    return {"mean": list(statistics.mean), "std": list(statistics.std), "channel_order": statistics.order}


def published(path, arrays, dtype):
    """(arrays, metadata) of a file without metadata: torchvision's names and layout, the published statistics."""
    arrays = from_torch(arrays)
    match = recognise({key: array.shape for key, array in arrays.items()})
    metadata = {
        "format": FORMAT,
        "model": match.model,
        "num_classes": match.num_classes,
        "aux": match.aux,
        "source": path.name,
        "dtype": dtype,
    }
    return {key: arrays[key] for key in match.keys}, checked(metadata)


def from_torch(arrays):
    """A state dict's arrays in MLX's layout: O x I x H x W to O x H x W x I, without num_batches_tracked."""
    return {
        key: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        for key, array in arrays.items()
        if not key.endswith("num_batches_tracked")
    }


# Which network are these parameters of?


@dataclass(frozen=True)
class Match:
    """A network of the registry that arrays fit: its name, what to build it with, and which arrays to give it."""

    model: str
    num_classes: int
    aux: bool
    keys: tuple


@functools.cache
def shapes_of(model, aux=False):
    """{parameter path: shape} of a network of the registry, in the order of its layers, with its usual classes."""
    from mlx.utils import tree_flatten  # after models/__init__.py has put a BLAS under it

    entry = REGISTRY[model]
    net = entry.build(entry.num_classes, aux=aux)  # MLX is lazy: no parameter is computed
    return {key: tuple(array.shape) for key, array in tree_flatten(net.parameters())}


def recognise(shapes, model=None):
    """The network of the registry that {parameter path: shape in MLX's layout} fits, as a Match.

    model: consider this one only. The number of classes comes from the classifier, and is 0 where there is none; the
    auxiliary classifiers then go as well. Raises UserError that names the nearest network and what does not fit it.
    """
    matches, misfits = [], {}
    for name in [model] if model else REGISTRY:
        entry = REGISTRY[name]
        plain = shapes_of(name)
        whole_net = shapes_of(name, aux=True) if entry.aux else plain
        # every shape that begins with the number of classes belongs to a classifier: no other layer is that wide
        heads = {key for key, shape in whole_net.items() if shape[0] == entry.num_classes}
        classifier = [key for key in plain if key in heads]
        auxiliary = [key for key in whole_net if key not in plain]

        num_classes = shapes[classifier[0]][0] if shapes.get(classifier[0]) else 0
        aux = entry.aux and num_classes > 0 and all(key in shapes for key in auxiliary)
        keys = [key for key in (whole_net if aux else plain) if num_classes or key not in classifier]
        wanted = {key: (num_classes, *whole_net[key][1:]) if key in heads else whole_net[key] for key in keys}
        wrong = [f"{key} is missing" for key in keys if key not in shapes]
        wrong += [f"{key} is misshapen" for key in keys if key in shapes and tuple(shapes[key]) != wanted[key]]
        wrong += [f"{key} is unexpected" for key in shapes if key not in whole_net]
        if not wrong:
            matches.append(Match(name, num_classes, aux, tuple(keys)))
        misfits[name] = wrong
    if matches:
        usual = [match for match in matches if match.num_classes == REGISTRY[match.model].num_classes]
        return (usual or matches)[0]
    nearest = min(misfits, key=lambda name: len(misfits[name]))
    wrong = misfits[nearest]
    what = f"{'; '.join(wrong[:3])}{f'; and {len(wrong) - 3} more' if len(wrong) > 3 else ''}"
    if model:
        raise UserError(f"these are no weights of {model}: {what}")
    known = sum(key in shapes_of(nearest, aux=REGISTRY[nearest].aux) for key in shapes)
    if known < len(shapes) / 4:
        raise UserError(f"these are no weights of any network here ({', '.join(REGISTRY)})")
    raise UserError(f"these are no weights of any network here; the nearest is {nearest}, but {what}")


# Files: zip archives of arrays, read with suspicion


def npy_entries(path):
    """Yield (name, array) for every .npy in a zip archive. Raises UserError."""
    with archive(path) as (names, entry):
        foreign = [name for name in names if not name.endswith(".npy")]
        if foreign or not names:
            raise UserError(f"{path}: not a weights file; if it is a checkpoint: python convert.py {path}")
        for name in names:
            yield name.removesuffix(".npy"), npy(entry(name), f"{path}: {name}")


@contextlib.contextmanager
def archive(path):
    """A zip file's names and a function that returns an entry's bytes: with archive(path) as (names, entry).

    Whatever is wrong with the file is a UserError. Its entries together may be INFLATION times as large as the file.
    """
    try:
        size = os.path.getsize(path)
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, IsADirectoryError, EOFError):
        raise UserError(f"{path}: {what_instead(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None

    def entry(name):
        try:
            info = file.getinfo(name)
            with file.open(info) as stream:
                data = stream.read(info.file_size)  # and no more, whatever the compressed stream would give
            if len(data) != info.file_size:
                raise EOFError
            return data
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, struct.error, KeyError):
            # RuntimeError: encrypted, or a compression that this Python does not know
            raise UserError(f"{path}: {name} is damaged; fetch or make the file again") from None

    with file:
        entries = file.infolist()
        unpacked = sum(info.file_size for info in entries)
        packed = sum(info.compress_size for info in entries)
        if packed > size or unpacked > INFLATION * size:
            raise UserError(f"{path}: its entries are larger than the file can hold: damaged, or made to do harm")
        yield [info.filename for info in entries], entry


def what_instead(path):
    """Why a path that is no zip archive cannot be read as one."""
    if os.path.isdir(path):
        return "this is a folder; name a file"
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself: `git lfs pull` fetches it"
    if start.startswith(b"PK"):
        return "the file is cut off or damaged; fetch or make it again"
    return f"not a weights file; if it is a checkpoint: python convert.py {path}"


HEADER = re.compile(
    r"\{'descr': '([<>|=][a-zA-Z]\d{1,2})', 'fortran_order': (True|False), 'shape': \((\d[\d, ]*)?\),? *\}\s*", re.ASCII
)
STORED = {f"{order}{kind}" for order in "<>|=" for kind in ("f2", "f4", "f8", "V2", "i1", "u1", "i4", "i8")}


def npy(data, name):
    """The array of a .npy file's bytes, a view of them. Only numbers, and only as many as there are.

    The header is the text that numpy and MLX write (numpy.lib.format), matched and never evaluated.
    """
    version = data[6:7]
    length_format, start = ("<H", 10) if version == b"\x01" else ("<I", 12)
    if data[:6] != b"\x93NUMPY" or version not in (b"\x01", b"\x02", b"\x03") or len(data) < start:
        raise UserError(f"{name} is no array")
    start += struct.unpack_from(length_format, data, 8)[0]
    header = HEADER.fullmatch(data[12 if length_format == "<I" else 10 : start].decode("latin-1"))
    if not header or header[1] not in STORED:
        raise UserError(f"{name} is no plain array of numbers")
    shape = [int(size) for size in re.findall(r"\d{1,18}", header[3] or "")]
    dtype = np.dtype(header[1])
    if len(shape) > 8 or math.prod(shape) * dtype.itemsize != len(data) - start:
        raise UserError(f"{name} is cut off or damaged")
    array = np.frombuffer(data, dtype, offset=start)
    if not dtype.isnative:
        array = array.byteswap().view(dtype.newbyteorder())
    return array.reshape(shape[::-1]).T if header[2] == "True" else array.reshape(shape)


def sha256(path):
    """The hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
