"""Files of torch.save: the zip archives of today, and the streams that it wrote until 1.6; and other pickles."""

import struct

import numpy as np

from dataset.cli import UserError
from dataset.npz import archive, from_bfloat16

from .tensors import OPERATIONS, Checkpoint, Tensor, strided
from .unpickler import FOREIGN_STORAGES, Hollow, NumpyArray, unpickle

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that torch.save began with until 1.6
USUAL = ("state_dict", "model_state_dict", "model")  # where the weights usually are
NO_STATE_DICT = "the file holds no state dict"
DEPTH, CONTAINERS = 12, 400  # how deep, and in how many containers, tensors are looked for


def read_zip(path, data, choose):
    """Read a zip archive: what torch.save writes since 1.6."""
    with archive(path) as (names, entry):
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if not pickles:
            raise UserError("a zip archive, but none that PyTorch or numpy wrote")
        root = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{root}code/") for name in names):
            raise UserError("a TorchScript program; save its state_dict() with torch.save and convert that")
        big = f"{root}byteorder" in names and entry(f"{root}byteorder") == b"big"
        value, _, _ = unpickle(entry(pickles[0]))
        return to_checkpoint(value, choose, lambda key: entry(f"{root}data/{key}"), ">" if big else "<")


def read_legacy_torch(path, data, choose):
    """Read what torch.save wrote until 1.6: five pickles, then every storage as its length and its numbers."""
    position = len(LEGACY)
    _, position, _ = unpickle(data, position)  # protocol
    system, position, _ = unpickle(data, position)
    value, position, storages = unpickle(data, position)
    keys, position, _ = unpickle(data, position)
    order = "<" if system.get("little_endian", True) else ">"
    sizes = {s.key: FOREIGN_STORAGES.get(s.dtype) or np.dtype(s.dtype).itemsize for s in storages}
    blocks = {}
    for key in keys:
        length = struct.unpack_from(f"{order}q", data, position)[0]
        end = position + 8 + length * sizes[key]
        if length < 0 or end > len(data):
            raise ValueError("cut off")
        blocks[key] = data[position + 8 : end]
        position = end
    return to_checkpoint(value, choose, blocks.__getitem__, order)


def read_pickle(path, data, choose):
    """Read a plain pickle, such as a dict of NumPy arrays from flax."""
    value, _, storages = unpickle(data)
    if storages:
        raise UserError("a pickle, but not one that torch.save wrote")
    return to_checkpoint(value, choose, None, "<")


def read_npy(path, data, choose):
    """Read a .npy that holds one object, a dict of arrays: its pickle follows the header."""
    start = 10 if data[6] == 1 else 12
    length = struct.unpack_from("<H" if start == 10 else "<I", data, 8)[0]
    if b"'|O'" not in bytes(data[start : start + length]):
        raise UserError("a single array, and no weights of a network")
    value, _, _ = unpickle(data, start + length)
    return to_checkpoint(value.objects[0], choose, None, "<")


def to_checkpoint(value, choose, block, order):
    """Make a Checkpoint of an unpickled value.

    The weights are the value itself, or sit beside other things (epoch, optimizer, ...), however deep: `choose` says
    in which of the candidates, [(where, {name: shape}), ...]. block: storage key -> bytes.
    """
    candidates = state_dicts(value)
    if not candidates:
        raise UserError(next((item.reason for item in hollows(value)), NO_STATE_DICT))
    where, state = candidates[choose([(where, shapes_in(state)) for where, state in candidates])]
    blocks, arrays, unreadable = {}, {}, {}

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

    for name, item in state.items():
        if isinstance(item, NumpyArray):
            arrays[name] = item.array
        elif isinstance(item, Hollow):
            unreadable[name] = item.reason
        elif item.storage.dtype in FOREIGN_STORAGES or not is_dtype(item.storage.dtype):
            unreadable[name] = f"it has numbers of a kind that is not known here: {item.storage.dtype[:40]}"
        else:
            arrays[name] = numbers(item)
    extra = plain_values(value)
    for name, item in extra.items():
        if isinstance(item, Tensor) and 0 < np.prod(item.shape) < 100 and is_dtype(item.storage.dtype):
            extra[name] = numbers(item)
    by_order = all(isinstance(item, NumpyArray) for item in state.values())
    hidden = next((item.reason for item in hollows(value) if hides_arrays(item)), "")
    return Checkpoint(arrays, extra, "channels last" if by_order else "names", unreadable, hidden)


def is_dtype(name):
    return name == "?" or (len(name) == 2 and name[1].isdigit())


def is_array(item):
    return isinstance(item, Tensor) or (isinstance(item, NumpyArray) and item.array is not None)


def items_of(value):
    """Yield (name, item) of a container, by name or by place."""
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in value.items() if isinstance(key, (str, int)))
    elif isinstance(value, (list, tuple)):
        yield from ((str(i), item) for i, item in enumerate(value))


def state_dicts(value):
    """List (where, {name: Tensor, NumpyArray or Hollow}) for every dict that holds arrays, itself or further down."""
    found, waiting, seen = [], [("", value, 0)], set()
    budget = iter(range(OPERATIONS))
    while waiting and len(seen) < CONTAINERS:
        where, container, depth = waiting.pop(0)
        if id(container) in seen or depth > DEPTH or not isinstance(container, (dict, list, tuple)):
            continue
        seen.add(id(container))
        if isinstance(container, dict):
            state = dict(leaves(container, budget))
            if any(map(is_array, state.values())):
                found.append((where, state))
        waiting += [(f"{where}.{name}".strip("."), item, depth + 1) for name, item in items_of(container)]
    return found


def leaves(value, budget):
    """Yield (name, leaf) of the arrays and the hollow objects in a container, each container visited once, names
    joined by dots. budget: an iterator that ends the patience with a file of nothing but containers.
    """
    seen, waiting = set(), [("", value, 0)]
    while waiting:
        name, item, depth = waiting.pop()
        if next(budget, None) is None:
            return
        if is_array(item) or isinstance(item, Hollow):
            yield name, item
        elif isinstance(item, (dict, list, tuple)) and id(item) not in seen and depth < DEPTH:
            seen.add(id(item))
            inner = [(f"{name}.{key}" if name else key, part, depth + 1) for key, part in items_of(item)]
            waiting += inner[::-1]


def hollows(value):
    """Yield the hollow objects in a value, those inside others excepted."""
    return (item for _, item in leaves(value, iter(range(OPERATIONS))) if isinstance(item, Hollow))


def hides_arrays(hollow):
    """Say whether there are arrays in what belongs to a hollow object: a whole model, mostly."""
    waiting, seen = [hollow.parts], set()
    while waiting and len(seen) < OPERATIONS:
        item = waiting.pop()
        item = item.parts if isinstance(item, Hollow) else item
        if is_array(item):
            return True
        if isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            waiting += item.values() if isinstance(item, dict) else item
    return False


def shapes_in(state):
    return {
        name: tuple(item.shape if isinstance(item, Tensor) else item.array.shape)
        for name, item in state.items()
        if is_array(item)
    }


def plain_values(value):
    """Gather what a checkpoint says beside its weights, {name: value}: of its outermost dict, then of those inside."""
    found, level, seen = {}, [value], set()
    for _ in range(3):
        level = [item for item in level if isinstance(item, dict) and id(item) not in seen]
        level = list({id(item): item for item in level}.values())[:CONTAINERS]
        seen |= {id(item) for item in level}
        for container in level:
            for key, item in container.items():
                if isinstance(key, str):
                    found.setdefault(key, item)
        level = [item for container in level for item in container.values()]
    return found


def largest(candidates):
    """Choose the state dict of a checkpoint by its name or else its size."""
    return max(range(len(candidates)), key=lambda i: (rank(candidates[i][0]), len(candidates[i][1])))


def rank(where):
    """How usual a place is for the weights: more is better."""
    last = where.rpartition(".")[2]
    return -USUAL.index(last) if last in USUAL else -len(USUAL) - ("ema" in last)
