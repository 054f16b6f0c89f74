"""A machine for the pickle streams of torch.save that knows only data, and never imports or calls what they name."""

import struct
from dataclasses import dataclass

import numpy as np

from dataset.cli import UserError

from .checkpoint import OPERATIONS, Storage, tensor

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


@dataclass
class Global:
    """A name that a pickle asks for: understood or refused when it is used, never imported."""

    name: str


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
