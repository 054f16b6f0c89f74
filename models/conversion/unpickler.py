"""A machine for the pickle streams of torch.save that knows only data, and never imports or calls what they name."""

import struct
from dataclasses import dataclass

import numpy as np

from dataset.cli import UserError

from .tensors import OPERATIONS, Storage, tensor

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
KNOWN = {
    "collections.OrderedDict",
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"),
    *("torch.Size", "_codecs.encode", "numpy.dtype"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    *(f"torch.{name}" for name in STORAGES),
    *(f"torch.cuda.{name}" for name in STORAGES),  # of tensors that lay on a GPU
}


@dataclass
class Global:
    """A name that a pickle asks for: understood or refused when it is used, never imported."""

    name: str


def unpickle(data, position=0):
    """Return (value, position after it) of a pickle that torch.save wrote.

    It makes dicts, lists, tuples, strings, numbers, and Tensors without their numbers. Whatever else a pickle
    asks for (a function, a class, an instruction that torch.save has no use for) is a UserError.
    """
    machine = Machine(data, position)
    return machine.run(), machine.position


class Machine:
    """A stack machine for pickle's instructions (CPython's pickletools.py describes them)."""

    def __init__(self, data, position):
        self.data, self.position = data, position
        self.stack, self.marks, self.memo = [], [], {}

    def run(self):
        for _ in range(OPERATIONS):
            instruction = self.take(1)
            if instruction == b".":
                return self.pop()
            if instruction not in INSTRUCTIONS:
                raise UserError(
                    f"the pickle has an instruction ({instruction!r}) that plain weights never need: refused"
                )
            INSTRUCTIONS[instruction](self)
        raise UserError("the pickle is far longer than that of any network: refused")

    def take(self, count):
        if not 0 <= count <= len(self.data) - self.position:
            raise ValueError("cut off")
        self.position += count
        return bytes(self.data[self.position - count : self.position])

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, form, encoding="utf-8"):
        """A string behind its length."""
        return self.take(self.number(form)).decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")

    def line(self):
        end = bytes(self.data[self.position : self.position + 200]).index(b"\n")
        return self.take(end + 1)[:-1].decode()

    def pop(self):
        return self.stack.pop()

    def since_mark(self):
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def last(self, count):
        items = self.stack[-count:]
        del self.stack[-count:]
        return tuple(items)

    def set_items(self, pairs):
        set_items(self.stack[-1], pairs)

    def extend(self, items):
        if not isinstance(self.stack[-1], list):
            raise UserError("the pickle holds something else than tensors, dicts, lists, numbers and strings")
        self.stack[-1].extend(items)

    def remember(self, key):
        self.memo[key] = self.stack[-1]

    def find_global(self):
        name, module = self.pop(), self.pop()
        return known(f"{module}.{name}")

    def reduce(self):
        arguments, function = self.pop(), self.pop()
        return call(function, arguments)

    def build(self):
        """Attributes of what is on the stack; none of them matters here."""
        self.pop()
        if not isinstance(self.stack[-1], (dict, np.dtype)):
            raise UserError("the pickle holds an object of a class; save the state_dict() alone")


def push(value):
    """The instruction that puts value(machine) on the stack."""
    return lambda machine: machine.stack.append(value(machine))


INSTRUCTIONS = {
    b"\x80": lambda m: m.take(1),  # PROTO
    b"\x95": lambda m: m.take(8),  # FRAME
    b"N": push(lambda m: None),
    b"\x88": push(lambda m: True),
    b"\x89": push(lambda m: False),
    b"J": push(lambda m: m.number("<i")),
    b"K": push(lambda m: m.number("<B")),
    b"M": push(lambda m: m.number("<H")),
    b"\x8a": push(lambda m: int.from_bytes(m.take(m.number("<B")), "little", signed=True)),  # LONG1
    b"G": push(lambda m: m.number(">d")),
    b"X": push(lambda m: m.text("<I")),  # strings, by the size of their length
    b"\x8c": push(lambda m: m.text("<B")),
    b"U": push(lambda m: m.text("<B", "latin-1")),  # Python 2's
    b"T": push(lambda m: m.text("<I", "latin-1")),
    b"C": push(lambda m: m.take(m.number("<B"))),
    b"B": push(lambda m: m.take(m.number("<I"))),
    b"}": push(lambda m: {}),
    b"]": push(lambda m: []),
    b")": push(lambda m: ()),
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"t": push(lambda m: tuple(m.since_mark())),
    b"\x85": push(lambda m: m.last(1)),  # TUPLE1 ... 3
    b"\x86": push(lambda m: m.last(2)),
    b"\x87": push(lambda m: m.last(3)),
    b"s": lambda m: m.set_items(m.last(2)),
    b"u": lambda m: m.set_items(m.since_mark()),
    b"a": lambda m: m.extend(m.last(1)),
    b"e": lambda m: m.extend(m.since_mark()),
    b"q": lambda m: m.remember(m.number("<B")),  # the memo: put and get
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"h": push(lambda m: m.memo[m.number("<B")]),
    b"j": push(lambda m: m.memo[m.number("<I")]),
    b"c": push(lambda m: known(f"{m.line()}.{m.line()}")),
    b"\x93": push(lambda m: m.find_global()),
    b"R": push(lambda m: m.reduce()),
    b"b": lambda m: m.build(),
    b"Q": push(lambda m: storage(m.pop())),
}


def set_items(mapping, pairs):
    """Set keys and values that alternate. Only names and numbers are keys: a tuple could take for ever to hash."""
    if not isinstance(mapping, dict):
        raise UserError("the pickle holds something else than tensors, dicts, lists, numbers and strings")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, (str, int)):
            raise UserError("the pickle holds a dict with keys that are no names")
        mapping[key] = value


def known(name):
    """Return a name as a Global if torch.save has a use for it. Raises UserError otherwise."""
    if name not in KNOWN:
        raise UserError(
            f"the pickle asks for {name[:80]!r}, which is code and no weights: refused; "
            "if you trust its maker, load it with torch and save the state_dict() alone"
        )
    return Global(name)


def call(function, arguments):
    """Return what the few functions that torch.save refers to would return."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise UserError("the pickle calls something that is no function of torch.save: refused")
    match function.name.rsplit(".", 1)[1]:
        case "OrderedDict":
            mapping = {}
            set_items(mapping, [item for pair in arguments[0] for item in pair] if arguments else [])  # Python 2's
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
    """Return the Storage of a persistent id: ('storage', type, key, place, length[, view])."""
    kind, storage_type, key, _, length, *view = identity
    dtype = STORAGES[storage_type.name.rsplit(".", 1)[1]]
    if kind != "storage" or not isinstance(key, str) or not isinstance(length, int):
        raise ValueError
    if view and view[0] is not None:
        _, start, length = view[0]
        return Storage(key, dtype, length, start)
    return Storage(key, dtype, length)
