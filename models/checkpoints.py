"""Readers of other frameworks' files, without the frameworks; convert.py alone uses them.

read() tells the formats apart by their content, and returns arrays with the names and the layout of the source;
renaming.py makes them ours. Hostile files are expected: what is not understood is a UserError in one line, no code
in a file is ever run, and nothing is allocated that the size of the file does not justify.
"""

import json
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
    """What a file holds: {name: array} in its own words, and what else it says in plain values.

    in_order: the names say nothing (Torch7's modules have none); the order of the layers does.
    """

    arrays: dict
    extra: dict = field(default_factory=dict)
    in_order: bool = False


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
        checkpoint = reader(path, data)(path, data)
        if sum(array.nbytes for array in checkpoint.arrays.values()) > 2 * size + 4096:
            raise UserError("its arrays are larger than the file")
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except DAMAGE:
        raise UserError(f"{path}: the file is cut off or damaged; fetch it again") from None
    except MemoryError:
        raise UserError(f"{path}: the file asks for more memory than there is") from None
    if not checkpoint.arrays:
        raise UserError(f"{path}: there are no weights in this file")
    return checkpoint


def reader(path, data):
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
    if start.lstrip()[:1] == b"<":
        raise UserError("a web page, not a checkpoint: whoever saved it was sent to another address")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= len(data) - 8:
        return read_safetensors
    if start[:4] in (b"\3\0\0\0", b"\4\0\0\0"):
        return read_torch7
    if start[:2] in (b"3\n", b"4\n"):
        raise UserError("Torch7's text form; save it in the binary one (torch.save's default)")
    if path.suffix == ".caffemodel" or start[:1] in (b"\n", b"\x12"):  # Protocol Buffers have no signature
        return read_caffemodel
    raise UserError("no format that is known here (.pth, .pt, .caffemodel, .safetensors, .t7, .npz)")


def read_zip(path, data):
    """A zip archive: what torch.save writes since 1.6."""
    with weights.archive(path) as (names, entry):
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if not pickles:
            raise UserError("a zip archive, but none that PyTorch or numpy wrote")
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
        end = bytes(data[position : position + 200]).index(b"\n")
        return take(end + 1)[:-1].decode()

    def since_mark():
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

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


def fill(mapping, pairs):
    """Set keys and values that alternate. Only names and numbers are keys: a tuple could take for ever to hash."""
    if not isinstance(mapping, dict):
        raise UserError("the pickle holds something else than tensors, dicts, lists, numbers and strings")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, (str, int)):
            raise UserError("the pickle holds a dict with keys that are no names")
        mapping[key] = value


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
    *(f"torch.cuda.{name}" for name in STORAGES),  # of tensors that lay on a GPU
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
            mapping = {}
            fill(mapping, [item for pair in arguments[0] for item in pair] if arguments else [])  # Python 2's pairs
            return mapping
        case "_rebuild_tensor" | "_rebuild_tensor_v2":
            return tensor(*arguments[:4])
        case "_rebuild_parameter":
            return arguments[0]
        case "Size":
            return tuple(arguments[0])
        case "encode":  # how Python 3 writes bytes for Python 2
            return arguments[0].encode("latin-1")
        case "dtype":
            if arguments[0] not in ("f4", "f8", "i4", "i8", "b1"):
                raise UserError(f"the pickle holds a value of NumPy's type {str(arguments[0])[:20]!r}: refused")
            return np.dtype(arguments[0])
        case "scalar":
            return np.frombuffer(arguments[1], arguments[0])[0].item()
    raise UserError(f"the pickle calls {function.name}, which is no function of torch.save: refused")


def storage(identity):
    """The Storage of a persistent id: ('storage', type, key, place, length[, view])."""
    kind, storage_type, key, _, length, *view = identity
    dtype = STORAGES[storage_type.name.rsplit(".", 1)[1]]
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


def strided(flat, tensor):
    """The array of a Tensor from the numbers of its storage; a view, in the machine's byte order."""
    strides = [stride * flat.itemsize for stride in tensor.strides]
    array = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


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


def has_tensors(mapping):
    return any(isinstance(item, Tensor) for item in mapping.values())


def torch_checkpoint(value, block, order):
    """A Checkpoint of an unpickled value. block: storage key -> bytes. The weights are the state dict itself, or
    sit beside other things (epoch, optimizer, ...) under a name such as state_dict.
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
            flat = weights.from_bfloat16(flat.view(f"{order}u2").astype("<u2").view("V2"))
        return strided(flat, tensor)

    arrays = {key: numbers(item) for key, item in state.items() if isinstance(item, Tensor)}
    extra = {k: numbers(v) if isinstance(v, Tensor) else v for k, v in extra.items()}
    return Checkpoint({str(key): array for key, array in arrays.items()}, extra)


# safetensors: the length of a header (8 bytes), the header (JSON), the numbers


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
    """https://github.com/huggingface/safetensors, "Format": the tensors fill what follows the header without gaps."""
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
        arrays[name] = weights.from_bfloat16(array) if dtype.kind == "V" else array
        end = stop
    if end != len(data):
        raise ValueError
    return Checkpoint(arrays, extra)


def no_duplicates(pairs):
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise UserError("its header has a name twice")
    return mapping


def sizes(shape):
    """A shape from a file, checked: at most 8 sizes, none negative."""
    shape = list(shape)
    if len(shape) > 8 or not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise ValueError
    return shape


# .caffemodel: Protocol Buffers, of which a message is a sequence of (field number, wire type, value)


NET_LAYER, NET_V1_LAYER = 100, 2  # fields of NetParameter (caffe.proto): layers of today, and those of 2014
INNER_PRODUCT = (b"InnerProduct", 14)  # the type of a fully connected layer in either


def read_caffemodel(path, data):
    """A NetParameter of caffe.proto. Blob 0 of a layer is LAYER.weight, blob 1 LAYER.bias."""
    arrays = {}
    budget = iter(range(OPERATIONS))
    for number, value in fields(data, budget):
        if number == NET_LAYER:
            name_field, type_field, blob_field = 1, 2, 7
        elif number == NET_V1_LAYER:
            name_field, type_field, blob_field = 4, 5, 6
        else:
            continue
        name, kind, blobs = "", None, []
        for part, content in fields(value, budget):
            if part == name_field:
                name = content.tobytes().decode()
            elif part == type_field:
                kind = content.tobytes() if isinstance(content, memoryview) else content
            elif part == blob_field:
                blobs.append(blob(content, budget))
        for i, array in enumerate(blobs):
            if array.ndim == 4 and (i == 1 or kind in INNER_PRODUCT):  # padded with ones in front before 2014's end
                array = array.reshape(-1) if i == 1 else array.reshape(array.shape[-2:])
            if array.size:
                arrays[f"{name}.{('weight', 'bias')[i] if i < 2 else i}"] = array
    return Checkpoint(arrays)


def blob(data, budget):
    """A BlobProto: floats or doubles, packed or not, and their shape in either of its forms."""
    old = {1: 0, 2: 0, 3: 0, 4: 0}  # num, channels, height, width
    shape, parts = None, []
    for number, value in fields(data, budget):
        if number in old:
            old[number] = value
        elif number == 5:
            parts.append(np.frombuffer(value, "<f4") if isinstance(value, memoryview) else value)
        elif number == 8:
            parts.append(np.frombuffer(value, "<f8") if isinstance(value, memoryview) else value)
        elif number == 7:
            shape = []
            for part, size in fields(value, budget):
                if part == 1:
                    shape += varints(size, budget) if isinstance(size, memoryview) else [size]
    array = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0, np.float32)
    shape = sizes(shape if shape is not None else old.values())
    if math.prod(shape) != array.size:
        if array.size:
            raise ValueError
        shape = [0]  # a description without numbers
    return array.reshape(shape)


def fields(data, budget):
    """Yield (field number, value) of a message: an int for a varint, a memoryview for bytes, and one array for a run
    of 4- or 8-byte numbers of the same field, which is how unpacked floats come. budget: an iterator that ends the
    patience with a file of nothing but fields.
    """
    position = 0
    while position < len(data):
        if next(budget, None) is None:
            raise UserError("it has far more fields than any network: refused")
        tag, position = varint(data, position)
        number, wire = tag >> 3, tag & 7
        if not number:
            raise ValueError
        if wire == 0:
            value, position = varint(data, position)
        elif wire == 2:
            length, position = varint(data, position)
            value, position = data[position : position + length], position + length
        elif wire in (1, 5):
            value, position = run(data, position, tag, "<f4" if wire == 5 else "<f8")
        else:
            raise ValueError
        if position > len(data):
            raise ValueError
        yield number, value


def varint(data, position):
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError


def varints(data, budget):
    values, position = [], 0
    while position < len(data) and next(budget, None) is not None:
        value, position = varint(data, position)
        values.append(value)
    return values


def run(data, position, tag, dtype):
    """(array, end) of a number and those that follow it, each behind the same one-byte tag."""
    dtype = np.dtype(dtype)
    pair = np.dtype([("value", dtype), ("tag", "u1")])
    possible = (len(data) - position + 1) // pair.itemsize  # the last one has no tag after it
    if possible < 1:
        raise ValueError
    count, step = 1, 64
    while tag < 128 and count < possible:
        step = min(2 * step, possible - count)
        tags = np.frombuffer(data, pair, step, position + (count - 1) * pair.itemsize)["tag"]
        other = np.flatnonzero(tags != tag)
        if len(other):
            count += int(other[0])
            break
        count += step
    end = position + count * pair.itemsize - 1
    raw = np.empty(count * pair.itemsize, np.uint8)
    raw[:-1] = np.frombuffer(data[position:end], np.uint8)
    return raw.view(pair)["value"].copy(), end


# .t7: Torch7's binary serialization (torch7's File.lua): a type, and what belongs to it


NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN, FUNCTIONS = 0, 1, 2, 3, 4, 5, (6, 7, 8)
TORCH7 = {
    "Double": "<f8",
    "Float": "<f4",
    "Half": "<f2",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "i1",
    "Byte": "u1",
    "Cuda": "<f4",
    "CudaDouble": "<f8",
    "CudaHalf": "<f2",
    "CudaLong": "<i8",
}
PARAMETERS = ("weight", "bias", "running_mean", "running_var")
DEPTH = 150  # of objects within objects; a network is some ten deep


@dataclass
class Module:
    """An object of an nn class: what its table holds."""

    kind: str
    table: dict


def read_torch7(path, data):
    """Tensors in tables keep their keys, joined by dots; those of nn modules come in the order of the layers."""
    value = Torch7(data).value()
    arrays = dict(parameters(value, "", set()))
    if arrays:
        return Checkpoint(arrays, in_order=True)
    return Checkpoint(dict(tensors_of(value, "", set())))


class Torch7:
    """Reads one object after another. Lua's functions are skipped, never run."""

    def __init__(self, data):
        self.data, self.position, self.objects, self.budget = data, 0, {}, OPERATIONS

    def number(self, form):
        value = struct.unpack_from(form, self.data, self.position)
        self.position += struct.calcsize(form)
        return value[0] if len(value) == 1 else value

    def bytes(self, length):
        if not 0 <= length <= len(self.data) - self.position:
            raise ValueError
        self.position += length
        return self.data[self.position - length : self.position]

    def string(self):
        return bytes(self.bytes(self.number("<i"))).decode("latin-1")

    def value(self, depth=0):
        self.budget -= 1
        if depth > DEPTH or self.budget < 0:
            raise UserError("its objects are nested deeper, or are more, than those of any network: refused")
        kind = self.number("<i")
        if kind == NIL:
            return None
        if kind == NUMBER:
            return self.number("<d")
        if kind == STRING:
            return self.string()
        if kind == BOOLEAN:
            return self.number("<i") != 0
        if kind not in (TABLE, TORCH, *FUNCTIONS):
            raise ValueError
        index = self.number("<i")
        if index in self.objects:
            return self.objects[index]
        if kind in FUNCTIONS:
            self.objects[index] = None
            self.string()
            return self.value(depth + 1) and None  # the variables that the function closes over
        if kind == TABLE:
            self.objects[index] = table = {}
            self.fill(table, depth)
            return table
        return self.object(index, depth)

    def fill(self, table, depth):
        for _ in range(self.number("<i")):
            key, value = self.value(depth + 1), self.value(depth + 1)
            if isinstance(key, float):
                table[int(key) if key == key // 1 else key] = value
            elif isinstance(key, str):
                table[key] = value

    def object(self, index, depth):
        version = self.string()
        name = self.string() if version.startswith("V ") else version
        package, _, kind = name.partition(".")
        if package == "torch" and kind.endswith("Storage") and kind.removesuffix("Storage") in TORCH7:
            dtype = np.dtype(TORCH7[kind.removesuffix("Storage")])
            self.objects[index] = np.frombuffer(self.bytes(self.number("<q") * dtype.itemsize), dtype)
        elif package == "torch" and kind.endswith("Tensor") and kind.removesuffix("Tensor") in TORCH7:
            self.objects[index] = self.tensor(depth)
        elif package in ("nn", "cudnn", "inn", "nngraph", "graph", "cunn"):
            self.objects[index] = module = Module(name, {})
            table = self.value(depth + 1)
            module.table = table if isinstance(table, dict) else {}
        else:
            raise UserError(f"it holds an object of the class {name[:60]!r}, which is not known here")
        return self.objects[index]

    def tensor(self, depth):
        dimensions = self.number("<i")
        if not 0 <= dimensions <= 8:
            raise ValueError
        shape = [self.number("<q") for _ in range(dimensions)]
        strides = [self.number("<q") for _ in range(dimensions)]
        offset = self.number("<q") - 1
        storage = self.value(depth + 1)
        if storage is None or not dimensions:
            return np.empty(0, np.float32)
        return strided(storage, tensor(Storage("", "", len(storage)), offset, shape, strides))


def parameters(value, name, seen):
    """Yield (path, array) for the parameters of the nn modules in a value, in the order of the layers."""
    if not isinstance(value, (dict, Module)) or id(value) in seen:
        return
    seen.add(id(value))
    table = value.table if isinstance(value, Module) else value
    if isinstance(value, Module):
        for key in PARAMETERS:
            if isinstance(table.get(key), np.ndarray) and table[key].size:
                yield f"{name}{key}", table[key]
        table = table.get("modules")
    for key, item in in_lua_order(table):
        yield from parameters(item, f"{name}{key}.", seen)


def tensors_of(value, name, seen):
    """Yield (path, array) for the tensors in tables."""
    if isinstance(value, np.ndarray) and value.size:
        yield name.removesuffix("."), value
    elif isinstance(value, dict) and id(value) not in seen:
        seen.add(id(value))
        for key, item in in_lua_order(value):
            yield from tensors_of(item, f"{name}{key}.", seen)


def in_lua_order(table):
    """The items of a table: the array part by its index, then the rest in the file's order."""
    items = list(table.items()) if isinstance(table, dict) else []
    return sorted((i for i in items if isinstance(i[0], (int, float))), key=lambda i: i[0]) + [
        i for i in items if isinstance(i[0], str)
    ]
