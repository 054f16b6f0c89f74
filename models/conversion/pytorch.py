"""Files of torch.save: the zip archives of today, and the streams that it wrote until 1.6."""

import struct

import numpy as np

from dataset.cli import UserError

from ..npz import archive, from_bfloat16
from .tensors import Checkpoint, Tensor, strided
from .unpickler import unpickle

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that torch.save began with until 1.6


def read_zip(path, data):
    """Read a zip archive: what torch.save writes since 1.6."""
    with archive(path) as (names, entry):
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if not pickles:
            raise UserError("a zip archive, but none that PyTorch or numpy wrote")
        root = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{root}code/") for name in names):
            raise UserError("a TorchScript program; save its state_dict() with torch.save and convert that")
        big = f"{root}byteorder" in names and entry(f"{root}byteorder") == b"big"
        value, _ = unpickle(entry(pickles[0]))
        return torch_checkpoint(value, lambda key: entry(f"{root}data/{key}"), ">" if big else "<")


def read_legacy_torch(path, data):
    """Read what torch.save wrote until 1.6: five pickles, then every storage as its length and its numbers."""
    position = len(LEGACY)
    _, position = unpickle(data, position)  # protocol
    system, position = unpickle(data, position)
    value, position = unpickle(data, position)
    keys, position = unpickle(data, position)
    order = "<" if system.get("little_endian", True) else ">"
    sizes = {t.storage.key: np.dtype(t.storage.dtype).itemsize for t in tensors_in(value)}
    blocks = {}
    for key in keys:
        length = struct.unpack_from(f"{order}q", data, position)[0]
        if key not in sizes:
            raise ValueError("a storage that no tensor uses: its type is unknown")
        end = position + 8 + length * sizes[key]
        if length < 0 or end > len(data):
            raise ValueError("cut off")
        blocks[key] = data[position + 8 : end]
        position = end
    return torch_checkpoint(value, blocks.__getitem__, order)


def tensors_in(value):
    """Yield every Tensor in a value, however deep, each container visited once."""
    seen, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def has_tensors(mapping):
    return any(isinstance(item, Tensor) for item in mapping.values())


def torch_checkpoint(value, block, order):
    """Make a Checkpoint of an unpickled value. The weights are the state dict itself, or sit beside other things
    (epoch, optimizer, ...) under a name such as state_dict. block: storage key -> bytes.
    """
    if not isinstance(value, dict):
        raise UserError("the file holds no state dict")
    state, extra = value, {}
    if not has_tensors(value) or "model_state_dict" in value:
        candidates = {k: v for k, v in value.items() if isinstance(v, dict) and has_tensors(v)}
        usual = [name for name in ("state_dict", "model_state_dict", "model") if name in candidates]
        if not candidates:
            raise UserError("the file holds no state dict")
        chosen = usual[0] if usual else max(candidates, key=lambda name: len(candidates[name]))
        state, extra = candidates[chosen], {k: v for k, v in value.items() if k not in candidates}
    blocks = {}

    def numbers(tensor):
        store = tensor.storage
        if store.key not in blocks:
            blocks[store.key] = block(store.key)
        dtype = np.dtype(store.dtype if store.dtype in ("V2", "?") else order + store.dtype)
        flat = np.frombuffer(blocks[store.key], dtype)[store.start : store.start + store.length]
        if len(flat) != store.length:
            raise ValueError("cut off")
        if store.dtype == "V2":
            flat = from_bfloat16(flat.view(f"{order}u2").astype("<u2").view("V2"))
        return strided(flat, tensor)

    arrays = {key: numbers(item) for key, item in state.items() if isinstance(item, Tensor)}
    extra = {k: numbers(v) if isinstance(v, Tensor) else v for k, v in extra.items()}
    return Checkpoint({str(key): array for key, array in arrays.items()}, extra)
