"""Readers of other frameworks' files, without the frameworks; convert.py alone uses them.

read() tells the formats apart by their content and returns arrays with the names and the layout of the source;
ours() gives them our names, our layout and the network that they belong to. All of it expects hostile files: what is
not understood is a UserError in one line, no code in a file is ever run, and nothing is allocated that the size of
the file does not justify.
"""

import math
import mmap
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import weights
from .cli import UserError

# What a reader may stumble on in a broken file; read() makes one line of any of them.
DAMAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, struct.error, RecursionError)


@dataclass
class Checkpoint:
    """What a file holds: {name: array} in its own words, and what else it says in plain values."""

    arrays: dict
    extra: dict = field(default_factory=dict)


def read(path):
    """The Checkpoint in a file of any format known here. Raises UserError."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name a file")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise UserError(f"{path}: the file is empty")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    try:
        checkpoint = reader(data)(path, data)
        if sum(array.nbytes for array in checkpoint.arrays.values()) > 2 * size + 4096:
            raise UserError("its arrays are larger than the file")
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except DAMAGE:
        raise UserError(f"{path}: the file is cut off or damaged; fetch it again") from None
    if not checkpoint.arrays:
        raise UserError(f"{path}: there are no weights in this file")
    return checkpoint


def reader(data):
    """The function that reads a file which begins like this."""
    start = bytes(data[:64])
    if start.startswith(b"PK"):
        return read_zip
    if start.startswith(LEGACY):
        return read_legacy_torch
    if start.startswith(b"\x80"):
        raise UserError("a pickle, but not one that torch.save wrote")
    if start.startswith(b"version https://git-lfs"):
        raise UserError("a pointer of Git LFS, not the file itself: `git lfs pull` fetches it")
    if bytes(data[257:262]) == b"ustar":
        raise UserError("a tar archive; unpack it and convert the file inside")
    raise UserError("no format that is known here (.pth, .pt, .caffemodel, .safetensors, .t7, .npz)")


def read_zip(path, data):
    """A zip archive: what torch.save writes since 1.6, or a published .npz."""
    with weights.archive(path) as (names, entry):
        if all(name.endswith(".npy") for name in names):
            raw = {name.removesuffix(".npy"): weights.npy(entry(name), name) for name in names}
            return Checkpoint(weights.widen({key: raw[key] for key in raw if key != weights.METADATA}))
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if not pickles:
            raise UserError("a zip archive, but neither of PyTorch nor of numpy")
        root = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{root}code/") for name in names):
            raise UserError("a TorchScript program; save its state_dict() with torch.save and convert that")
        big = f"{root}byteorder" in names and entry(f"{root}byteorder") == b"big"
        value, _ = unpickle(entry(pickles[0]))
        return torch_checkpoint(value, lambda key: entry(f"{root}data/{key}"), ">" if big else "<")


# The pickle streams of torch.save


LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number that torch.save began with until 1.6

STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "V2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
OPERATIONS = 1_000_000  # of one pickle; those of the networks here take some ten thousand


@dataclass
class Global:
    """A name that a pickle asks for: understood or refused when it is used, never imported."""

    name: str


@dataclass
class Storage:
    """A block of numbers that follows the pickle, or a part of one."""

    key: str
    dtype: str
    length: int
    start: int = 0


@dataclass
class Tensor:
    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


def unpickle(data, position=0):
    """(value, position after it) of a pickle that torch.save wrote, by a machine that knows only data.

    It makes dicts, lists, tuples, strings, numbers, and Tensors without their numbers. Whatever else a pickle
    asks for (a function, a class, an instruction that torch.save has no use for) is a UserError.
    """
    stack, marks, memo = [], [], {}

    def take(count):
        nonlocal position
        if not 0 <= count <= len(data) - position:
            raise ValueError("cut off")
        position += count
        return bytes(data[position - count : position])

    def number(form):
        return struct.unpack(form, take(struct.calcsize(form)))[0]

    def line():
        end = (
            data.index(b"\n", position)
            if isinstance(data, bytes)
            else bytes(data[position : position + 300]).index(b"\n") + position
        )
        text = take(end - position).decode()
        take(1)
        return text

    def since_mark():
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

    def fill(mapping, pairs):
        if not isinstance(mapping, dict):
            raise UserError("the pickle holds something else than tensors, dicts, lists, numbers and strings")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise UserError("the pickle holds a dict with keys that are no names")
            mapping[key] = value

    for _ in range(OPERATIONS):
        operation = take(1)
        match operation:
            case b".":  # STOP
                return stack.pop(), position
            case b"\x80":  # PROTO
                take(1)
            case b"\x95":  # FRAME
                take(8)
            case b"N":
                stack.append(None)
            case b"\x88" | b"\x89":
                stack.append(operation == b"\x88")
            case b"J":
                stack.append(number("<i"))
            case b"K":
                stack.append(number("<B"))
            case b"M":
                stack.append(number("<H"))
            case b"\x8a":  # LONG1
                stack.append(int.from_bytes(take(number("<B")), "little", signed=True))
            case b"G":
                stack.append(number(">d"))
            case b"X":  # strings, by the size of their length
                stack.append(take(number("<I")).decode("utf-8", "surrogatepass"))
            case b"\x8c":
                stack.append(take(number("<B")).decode("utf-8", "surrogatepass"))
            case b"U":  # Python 2's
                stack.append(take(number("<B")).decode("latin-1"))
            case b"T":
                stack.append(take(number("<I")).decode("latin-1"))
            case b"C":
                stack.append(take(number("<B")))
            case b"B":
                stack.append(take(number("<I")))
            case b"}":
                stack.append({})
            case b"]":
                stack.append([])
            case b")":
                stack.append(())
            case b"(":
                marks.append(len(stack))
            case b"t":
                stack.append(tuple(since_mark()))
            case b"\x85" | b"\x86" | b"\x87":  # TUPLE1 ... 3
                count = operation[0] - 0x84
                stack[-count:] = [tuple(stack[-count:])]
            case b"s":
                value, key = stack.pop(), stack.pop()
                fill(stack[-1], [key, value])
            case b"u":
                pairs = since_mark()
                fill(stack[-1], pairs)
            case b"a":
                value = stack.pop()
                extend(stack[-1], [value])
            case b"e":
                items = since_mark()
                extend(stack[-1], items)
            case b"q":  # memo: put and get
                memo[number("<B")] = stack[-1]
            case b"r":
                memo[number("<I")] = stack[-1]
            case b"\x94":
                memo[len(memo)] = stack[-1]
            case b"h":
                stack.append(memo[number("<B")])
            case b"j":
                stack.append(memo[number("<I")])
            case b"c":
                stack.append(known(f"{line()}.{line()}"))
            case b"\x93":
                name, module = stack.pop(), stack.pop()
                stack.append(known(f"{module}.{name}"))
            case b"R":
                arguments, function = stack.pop(), stack.pop()
                stack.append(call(function, arguments))
            case b"b":  # BUILD: attributes of what is on the stack; none of them matters here
                stack.pop()
                if not isinstance(stack[-1], (dict, np.dtype)):
                    raise UserError("the pickle holds an object of a class; save the state_dict() alone")
            case b"Q":
                stack.append(storage(stack.pop()))
            case _:
                raise UserError(f"the pickle has an instruction ({operation!r}) that plain weights never need: refused")
    raise UserError("the pickle is far longer than that of any network: refused")


def extend(items, more):
    if not isinstance(items, list):
        raise UserError("the pickle holds something else than tensors, dicts, lists, numbers and strings")
    items.extend(more)


KNOWN = {
    "collections.OrderedDict",
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"),
    *("torch.Size", "_codecs.encode", "numpy.dtype"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *(f"torch.{name}" for name in STORAGES),
}


def known(name):
    if name not in KNOWN:
        raise UserError(
            f"the pickle asks for {name[:80]!r}, which is code and no weights: refused; "
            "if you trust its maker, load it with torch and save the state_dict() alone"
        )
    return Global(name)


def call(function, arguments):
    """What the few functions that torch.save refers to would return."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise UserError("the pickle calls something that is no function of torch.save: refused")
    match function.name.rsplit(".", 1)[1]:
        case "OrderedDict":
            return dict(arguments[0]) if arguments else {}  # Python 2 wrote the pairs here
        case "_rebuild_tensor" | "_rebuild_tensor_v2":
            return tensor(*arguments[:4])
        case "_rebuild_parameter":
            return arguments[0]
        case "Size":
            return tuple(arguments[0])
        case "encode":  # how Python 3 writes bytes for Python 2
            return arguments[0].encode("latin-1")
        case "dtype":
            return np.dtype({"f4": "<f4", "f8": "<f8", "i8": "<i8", "i4": "<i4"}[arguments[0]])
        case "scalar":
            return np.frombuffer(arguments[1], arguments[0])[0].item()
    raise UserError(f"the pickle calls {function.name}, which is no function of torch.save: refused")


def storage(identity):
    """The Storage of a persistent id: ('storage', type, key, place, length[, view])."""
    kind, storage_type, key, _, length, *view = identity
    dtype = STORAGES[storage_type.name.removeprefix("torch.")]
    if kind != "storage" or not isinstance(key, str) or not isinstance(length, int):
        raise ValueError
    if view and view[0] is not None:
        _, start, length = view[0]
        return Storage(key, dtype, length, start)
    return Storage(key, dtype, length)


def tensor(block, offset, shape, strides):
    """A Tensor, if it lies within its storage and is no larger."""
    numbers = [offset, *shape, *strides]
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(shape) != len(strides) or len(shape) > 8:
        raise ValueError
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    size = math.prod(shape)
    if size > block.length or (size and last >= block.length):
        raise ValueError
    return Tensor(block, offset, tuple(shape), tuple(strides))


def read_legacy_torch(path, data):
    """What torch.save wrote until 1.6: five pickles, then every storage as its length and its numbers."""
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
    """Every Tensor in a value, however deep, each container visited once."""
    seen, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def torch_checkpoint(value, block, order):
    """A Checkpoint of an unpickled value. block: storage key -> bytes. The weights are the state dict itself, or
    sit beside other things (epoch, optimizer, ...) under a name such as state_dict.
    """
    if not isinstance(value, dict):
        raise UserError("the file holds no state dict")
    state, extra = value, {}
    if not any(isinstance(item, Tensor) for item in value.values()) or "model_state_dict" in value:
        candidates = {
            k: v for k, v in value.items() if isinstance(v, dict) and any(isinstance(t, Tensor) for t in v.values())
        }
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
            flat = weights.from_bfloat16(flat.view(f"{order}u2").astype("<u2").view("V2"))
        strides = [stride * flat.itemsize for stride in tensor.strides]
        array = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    arrays = {key: numbers(item) for key, item in state.items() if isinstance(item, Tensor)}
    extra = {k: numbers(v) if isinstance(v, Tensor) else v for k, v in extra.items()}
    return Checkpoint({str(key): array for key, array in arrays.items()}, extra)


# Their names and layouts to ours


@dataclass
class Conversion:
    """Arrays ready for weights.write, and what is known about them."""

    model: str
    num_classes: int
    aux: bool
    arrays: dict
    statistics: dict  # mean, std, channel_order, as in the metadata


def ours(checkpoint, model=None):
    """The Conversion of a Checkpoint. model: what the user says it is; None recognises it. Raises UserError."""
    arrays = {bare(key): array for key, array in checkpoint.arrays.items()}
    arrays = weights.from_torch(arrays)
    match = weights.recognise({key: array.shape for key, array in arrays.items()}, model)
    statistics = weights.statistics_of(weights.REGISTRY[match.model])
    return Conversion(match.model, match.num_classes, match.aux, {key: arrays[key] for key in match.keys}, statistics)


def bare(name):
    """A parameter's name without what DataParallel and torch.compile put in front."""
    for prefix in ("module.", "_orig_mod."):
        name = name.removeprefix(prefix)
    return name
