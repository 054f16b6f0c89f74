"""safetensors: the length of a header (8 bytes), the header (JSON), the numbers."""

import json
import math

import numpy as np

from dataset.cli import UserError
from dataset.npz import from_bfloat16

from .tensors import Checkpoint, sizes

SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "V2",
    "BOOL": "?",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
}


def read_safetensors(path, data):
    """Read https://github.com/huggingface/safetensors, "Format": the tensors fill what follows without gaps."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + length]), object_pairs_hook=no_duplicates)
    extra = header.pop("__metadata__", {})
    data = data[8 + length :]
    arrays, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in SAFETENSORS:
            raise UserError(f"{name} has numbers of a kind that is not known here: {str(entry['dtype'])[:20]}")
        dtype = np.dtype(SAFETENSORS[entry["dtype"]])
        start, stop = entry["data_offsets"]
        shape = sizes(entry["shape"])
        if start != end or stop > len(data) or stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError
        array = np.frombuffer(data[start:stop], dtype).reshape(shape)
        arrays[name] = from_bfloat16(array) if dtype.kind == "V" else array
        end = stop
    if end != len(data):
        raise ValueError
    return Checkpoint(arrays, extra)


def no_duplicates(pairs):
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise UserError("its header has a name twice")
    return mapping
