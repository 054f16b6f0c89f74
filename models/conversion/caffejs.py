"""chaosmail/caffejs: a folder of raw float32 numbers, LAYER_filter.bin (O x H x W x I) and LAYER_bias.bin a layer."""

import numpy as np

from dataset.cli import UserError

from .tensors import Checkpoint

FIELDS = {"_filter.bin": "weight", "_bias.bin": "bias"}


def files(folder):
    """{path within the folder, by slashes: path} of the files that hold parameters."""
    found = sorted(path for path in folder.rglob("*.bin") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def is_caffejs(path):
    """Say whether a path is such a folder."""
    return path.is_dir() and any(name.endswith(tuple(FIELDS)) for name in files(path))


def read_caffejs(path):
    """Read such a folder. The shapes of the filters are not in it: each is one row of numbers."""
    arrays = {}
    for name, file in files(path).items():
        suffix = next((suffix for suffix in FIELDS if name.endswith(suffix)), None)
        if suffix is None:
            continue
        data = file.read_bytes()
        if len(data) % 4:
            raise UserError(f"{file}: the file is cut off or damaged; fetch it again")
        arrays[f"{name.removesuffix(suffix)}.{FIELDS[suffix]}"] = np.frombuffer(data, "<f4")
    return Checkpoint(arrays, order="flat")
