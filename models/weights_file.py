"""The weights format: one .npz, read and written here and nowhere else.

An array a parameter, named by its path in the network, in MLX's layout (convolutions O x H x W x I); and an entry
`__metadata__`, UTF-8 JSON as uint8: `format`, the fields of Metadata, and whatever keys its writer adds. Other entries
whose names begin with "__" belong to no layer: extras, such as a background (models/dreaming/background.py). The format
is 2 where there are extras, else 1.

bfloat16 is stored as MLX stores it (two raw bytes, '<V2'); int8 as KEY_int8 with KEY_scale, one scale an output
channel. The files published as NickMystic/DeepDream-MLX have no metadata, torchvision's names and its O x I x H x W:
read() converts them.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset.cli import UserError
from dataset.files import atomic_write
from dataset.npz import from_bfloat16, npy_entries, to_bfloat16

from .conversion.identification import identify
from .registry import REGISTRY

FORMAT = 2  # the newest
METADATA = "__metadata__"
EXTRA = "__"  # what the names of entries begin with that belong to no layer
DTYPES = ("float16", "float32", "bfloat16", "int8")


@dataclass
class Metadata:
    """What a weights file says of itself. What is not given (None) is as the registry has it for the network.

    Raises UserError for a network that is not here, and for values that cannot be.
    """

    model: str  # name in the registry
    num_classes: int = None  # 0 where there is no classifier
    classes: list = None  # names in the order of the logits; the published ones where there are as many, else None
    color_matrix: list = None  # 3 x 3 (rows R G B), or None
    aux: bool = False  # whether the auxiliary classifiers are in the file
    mean: list = None  # R G B, of pixels 0..255
    std: list = None
    channel_order: str = None  # "RGB" or "BGR": what the first layer takes
    source: str = None  # name of the file it was converted from
    source_sha256: str = None
    origin: str = None  # licence, or a note of where the weights come from
    layer: str = None  # dreamed on by default
    dtype: str = "float32"  # how the file stores numbers: one of DTYPES
    extra: dict = field(default_factory=dict)  # further keys of the file, such as train_dream.py's "training"

    def __post_init__(self):
        if not isinstance(self.model, str) or self.model not in REGISTRY:
            raise UserError(f"it holds weights of a network that is not here: {self.model!r}")
        spec = REGISTRY[self.model]
        defaults = {
            "num_classes": spec.num_classes,
            "mean": list(spec.normalization.mean),
            "std": list(spec.normalization.std),
            "channel_order": spec.normalization.order,
            "layer": spec.default_layer,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.classes is None and self.num_classes == spec.num_classes:
            self.classes = spec.class_names()  # those of the published weights
        self.validate()

    def validate(self):
        """Raise UserError for the first field whose value cannot be."""
        classes, matrix = self.classes, self.color_matrix
        right = {
            "num_classes": is_count(self.num_classes),
            "classes": classes is None or is_list(classes, str) and len(classes) == self.num_classes,
            "mean": is_triple(self.mean),
            "std": is_triple(self.std) and min(self.std) > 0,
            "channel_order": self.channel_order in ("RGB", "BGR"),
            "color_matrix": matrix is None
            or is_list(matrix, list)
            and len(matrix) == 3
            and all(map(is_triple, matrix)),
            "aux": isinstance(self.aux, bool) and (REGISTRY[self.model].aux or not self.aux),
            "layer": isinstance(self.layer, str),
            "dtype": self.dtype in DTYPES,
        }
        wrong = [name for name, good in right.items() if not good]
        if wrong:
            raise UserError(f"its metadata has a wrong {wrong[0]}: {str(getattr(self, wrong[0]))[:80]}")

    def replace(self, **changes):
        """Return a copy with changes; those that are no fields are kept in `extra`."""
        return Metadata.from_dict({**self.to_dict(), **changes})

    def build(self):
        """Build the network that it describes, with random weights."""
        net = REGISTRY[self.model].build(self.num_classes, self.aux)
        net.metadata = self
        return net

    @classmethod
    def from_dict(cls, items):
        """Make Metadata of the names and values in a weights file. Raises UserError."""
        if not isinstance(items, dict) or not isinstance(items.get("format"), int):
            raise UserError("its metadata is not that of a weights file")
        if items["format"] > FORMAT:
            raise UserError(f"it has format {items['format']}, which a newer DeepDream-MLX wrote: update this one")
        fields = {item.name for item in dataclasses.fields(cls)} - {"extra"}
        known = {"model": None} | {key: value for key, value in items.items() if key in fields}
        return cls(**known, extra={key: items[key] for key in items if key not in fields and key != "format"})

    def to_dict(self, version=1):
        """Return the names and values that a file of the format `version` holds, in the order they have always had."""
        fields = {key: value for key, value in vars(self).items() if key not in ("model", "extra")}
        return {**fields, "model": self.model, "format": version, **self.extra}


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000


def is_list(value, kind):
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def is_triple(value):
    numbers = isinstance(value, (list, tuple)) and len(value) == 3 and all(type(item) in (int, float) for item in value)
    return numbers and all(abs(item) < 1e9 for item in value)


def read(path):
    """Read a weights file, ours or a published one.

    Returns ({parameter path: numpy array, MLX layout, float16 or float32}, Metadata). Raises UserError, in one line,
    for whatever is no weights file. Nothing in the file is executed, and nothing larger than the file justifies is
    allocated.
    """
    path = Path(path)
    stored = dict(npy_entries(path))
    text = stored.get(METADATA)
    stored = {key: array for key, array in stored.items() if not key.startswith(EXTRA)}
    try:
        arrays = decode(stored)
        if text is None:
            return from_published(path, arrays, dtype_of(stored))
        metadata = json.loads(text.tobytes().decode()) if text.dtype == np.uint8 else None
        return arrays, Metadata.from_dict(metadata)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError):  # no UTF-8, no JSON
        raise UserError(f"{path}: its metadata cannot be read; the file is damaged") from None


def read_extras(path, start=""):
    """Return {NAME: array} of a weights file's entries __START + NAME."""
    start = EXTRA + start

    def wanted(name):
        return name.startswith(start) and name != METADATA

    return {name.removeprefix(start): array for name, array in npy_entries(path, wanted)}


def write(path, arrays, metadata, dtype="float16", extras=None):
    """Write {parameter path: array} and Metadata, whole or not at all.

    extras: {NAME: array}, stored as they are, as the entries __NAME.
    dtype: how arrays are stored. With float16, an array that holds a number beyond its range stays float32; with
    int8, everything but the weights of convolutions and classifiers stays float16.
    Raises UserError where a weight is no finite number.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {DTYPES}")
    text = json.dumps(metadata.replace(dtype=dtype).to_dict(2 if extras else 1), ensure_ascii=False)
    entries = {METADATA: np.frombuffer(text.encode("utf-8", "backslashreplace"), np.uint8)}
    entries |= {EXTRA + name: np.asarray(array) for name, array in (extras or {}).items()}
    for key, array in arrays.items():
        array = np.asarray(array)
        if not np.isfinite(array).all():
            raise UserError(f"{key} holds numbers that are not finite; the weights are spoilt, nothing was written")
        entries |= encode(key, array, dtype)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **entries)


def encode(key, array, dtype):
    """Return {entry: array} that stores `array` as `dtype`."""
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


def decode(stored):
    """Convert stored arrays to float16 and float32: the inverse of encode(), also for the published files' int8."""
    arrays = {}
    for key, array in stored.items():
        if key.endswith("_scale") and key.removesuffix("_scale") + "_int8" in stored:
            continue
        if key.endswith("_int8") and key.removesuffix("_int8") + "_scale" in stored:
            key = key.removesuffix("_int8")
            scale = stored[f"{key}_scale"].astype(np.float32)
            if scale.size not in (1, array.shape[0] if array.ndim else 1):
                raise UserError(f"{key}_scale has {scale.size} values, which do not fit {key}_int8")
            array = array.astype(np.float32) * scale.reshape(-1, *[1] * (array.ndim - 1) if array.ndim else [])
        elif array.dtype.kind == "V":
            array = from_bfloat16(array)
        elif array.dtype not in (np.float16, np.float32):
            array = array.astype(np.float32)
        arrays[key] = array
    return arrays


def dtype_of(stored):
    """Return which of DTYPES a file without metadata is stored in."""
    if any(key.endswith("_int8") for key in stored):
        return "int8"
    kinds = {array.dtype.str[1:] for array in stored.values()}
    return next((name for kind, name in {"V2": "bfloat16", "f2": "float16"}.items() if kind in kinds), "float32")


def from_published(path, arrays, dtype):
    """Return (arrays, Metadata) of a file without metadata: torchvision's names, layout and statistics."""
    arrays = from_torch(arrays)
    match = identify({key: array.shape for key, array in arrays.items()})
    metadata = Metadata(match.model, match.num_classes, aux=match.aux, source=path.name, dtype=dtype)
    return {key: arrays[key] for key in match.keys}, metadata


def from_torch(arrays):
    """Bring a state dict's arrays to MLX's layout, O x I x H x W to O x H x W x I, without num_batches_tracked."""
    return {
        key: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        for key, array in arrays.items()
        if not key.endswith("num_batches_tracked")
    }
