"""A machine for pickle streams that knows only data, and never imports or calls what they name.

It understands what torch.save and NumPy write of tensors and arrays. Of everything else that a pickle may ask for
(optimizers, schedulers, settings, classes of all kinds) it makes a hollow object: a name, and what belongs to it.
"""

import struct
from dataclasses import dataclass, field

import numpy as np

from dataset.cli import UserError
from dataset.npz import from_bfloat16

from .tensors import OPERATIONS, Storage, sizes, tensor

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
# Storages whose numbers are not read: the bytes that each takes, so that what follows them is found
FOREIGN_STORAGES = {
    "UntypedStorage": 1,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QInt32Storage": 4,
    "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}
NUMPY_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}


@dataclass(eq=False)
class Global:
    """A function or class that a pickle names; never imported."""

    name: str


@dataclass(eq=False)
class Hollow:
    """What stands for an object of a class, or for a function's result, that is not known here."""

    name: str
    parts: list = field(default_factory=list)  # what the pickle puts into it

    @property
    def reason(self):
        """Why it is of no use where weights are wanted."""
        if self.name == "torch.storage._load_from_bytes":
            return "its tensors were pickled without torch; save them with torch.save"
        if self.name.startswith("torch._utils._rebuild_"):
            return (
                f"a tensor of a kind that is not read here ({self.name.rpartition('_rebuild_')[2][:40]}: sparse, "
                "quantised or 8-bit); load it with torch and save it dense, in float32"
            )
        return (
            f"the pickle asks for {self.name[:80]!r}, which is code and no weights: refused; "
            "if you trust its maker, load it with torch and save the state_dict() alone"
        )


@dataclass(eq=False)
class NumpyType:
    """A dtype, whose byte order comes after it."""

    code: str
    order: str = "<"

    def numbers(self, data):
        """Return the bytes `data` as an array, or None for a dtype that is not of numbers."""
        data = data.encode("latin-1") if isinstance(data, str) else data  # Python 2's
        if isinstance(self.code, Global):
            return from_bfloat16(np.frombuffer(data, "V2")) if self.code.name == "ml_dtypes.bfloat16" else None
        if self.code == "b1":
            return np.frombuffer(data, "?")
        if self.code not in NUMPY_TYPES or self.order not in ("<", ">", "|", "="):
            return None
        return np.frombuffer(data, self.order + self.code)


@dataclass(eq=False)
class NumpyArray:
    """An array, whose shape and numbers come after it."""

    array: np.ndarray = None
    objects: list = None  # the elements of an array of objects

    def fill(self, state):
        """state: (version, shape, dtype, whether in Fortran's order, bytes or a list of objects)."""
        _, shape, kind, fortran, data = state
        if isinstance(data, list):
            self.objects = data
            return
        array = kind.numbers(data)
        if array is not None:
            array = array.astype(array.dtype.newbyteorder("="), copy=False)
            self.array = array.reshape(sizes(shape)[::-1]).T if fortran else array.reshape(sizes(shape))


def unpickle(data, position=0):
    """Return (value, position after it, its Storages) of a pickle.

    A value is made of dicts, lists, tuples, strings, numbers, Tensors without their numbers, NumpyArrays and Hollow
    objects. Raises UserError for an instruction that plain data never needs.
    """
    machine = Machine(data, position)
    return machine.run(), machine.position, machine.storages


class Machine:
    """A stack machine for pickle's instructions (CPython's pickletools.py describes them)."""

    def __init__(self, data, position):
        self.data, self.position = data, position
        self.stack, self.marks, self.memo, self.storages = [], [], {}, []

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

    def block(self, form):
        """Bytes behind their length."""
        return self.take(self.number(form))

    def text(self, form):
        return self.block(form).decode("utf-8", "surrogatepass")

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
        target = self.stack[-1]
        if not isinstance(target, (list, Hollow)):
            raise ValueError
        (target if isinstance(target, list) else target.parts).extend(items)

    def memorize(self, key):
        self.memo[key] = self.stack[-1]

    def find_global(self):
        name, module = self.pop(), self.pop()
        return Global(f"{module}.{name}")

    def reduce(self):
        arguments, function = self.pop(), self.pop()
        return call(function, arguments)

    def build(self):
        """Give the object on the stack its attributes, where they matter."""
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, NumpyArray):
            target.fill(state)
        elif isinstance(target, NumpyType):
            target.order = state[1]
        elif isinstance(target, Hollow):
            target.parts.append(state)

    def persistent(self):
        identity = self.pop()
        if identity[0] == "module":  # a class, with its source
            return identity[1]
        found = storage(identity)
        self.storages.append(found)
        return found


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
    b"\x8a": push(lambda m: int.from_bytes(m.block("<B"), "little", signed=True)),  # LONG1, LONG4
    b"\x8b": push(lambda m: int.from_bytes(m.block("<i"), "little", signed=True)),
    b"G": push(lambda m: m.number(">d")),
    b"X": push(lambda m: m.text("<I")),  # strings, by the size of their length
    b"\x8c": push(lambda m: m.text("<B")),
    b"\x8d": push(lambda m: m.text("<Q")),
    b"U": push(lambda m: m.block("<B").decode("latin-1")),  # Python 2's
    b"T": push(lambda m: m.block("<I").decode("latin-1")),
    b"C": push(lambda m: m.block("<B")),  # bytes
    b"B": push(lambda m: m.block("<I")),
    b"\x8e": push(lambda m: m.block("<Q")),
    b"\x96": push(lambda m: m.block("<Q")),  # a bytearray
    b"}": push(lambda m: {}),
    b"]": push(lambda m: []),
    b"\x8f": push(lambda m: []),  # a set: as a list, since hashing its items could take for ever
    b")": push(lambda m: ()),
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"t": push(lambda m: tuple(m.since_mark())),
    b"\x85": push(lambda m: m.last(1)),  # TUPLE1 ... 3
    b"\x86": push(lambda m: m.last(2)),
    b"\x87": push(lambda m: m.last(3)),
    b"\x91": push(lambda m: m.since_mark()),  # FROZENSET
    b"s": lambda m: m.set_items(m.last(2)),
    b"u": lambda m: m.set_items(m.since_mark()),
    b"a": lambda m: m.extend(m.last(1)),
    b"e": lambda m: m.extend(m.since_mark()),
    b"\x90": lambda m: m.extend(m.since_mark()),  # ADDITEMS
    b"q": lambda m: m.memorize(m.number("<B")),  # the memo: put and get
    b"r": lambda m: m.memorize(m.number("<I")),
    b"\x94": lambda m: m.memorize(len(m.memo)),
    b"h": push(lambda m: m.memo[m.number("<B")]),
    b"j": push(lambda m: m.memo[m.number("<I")]),
    b"c": push(lambda m: Global(f"{m.line()}.{m.line()}")),
    b"\x93": push(lambda m: m.find_global()),
    b"R": push(lambda m: m.reduce()),
    b"\x81": push(lambda m: m.reduce()),  # NEWOBJ
    b"\x92": push(lambda m: Hollow(name_of(m.last(3)[0]))),  # NEWOBJ_EX
    b"b": lambda m: m.build(),
    b"Q": push(lambda m: m.persistent()),
}


def set_items(target, pairs):
    """Set keys and values that alternate. A key other than a name or a number, which could take for ever to hash, is
    kept as an object of its own.
    """
    if isinstance(target, Hollow):
        target.parts.extend(pairs[1::2])
        return
    if not isinstance(target, dict):
        raise ValueError
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        target[key if isinstance(key, (str, int, float)) else Hollow("a key")] = value


def name_of(function):
    return function.name if isinstance(function, Global) else type(function).__name__


def call(function, arguments):
    """Return what the functions that torch.save and NumPy refer to would return; for any other a Hollow object."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        return Hollow(name_of(function), [arguments])
    known = FUNCTIONS.get(function.name)
    return known(*arguments) if known else Hollow(function.name, [*arguments])


def mapping(*arguments):
    """A dict, from nothing, a dict, or pairs (Python 2's OrderedDict)."""
    first = arguments[0] if arguments else {}
    if isinstance(first, dict):
        return dict(first)
    found = {}
    set_items(found, [item for pair in first for item in pair])
    return found


def listing(*arguments):
    return list(arguments[0]) if arguments else []


def subclass(function, kind, arguments, state):
    """A tensor of a class derived from torch.Tensor: as a tensor."""
    return call(function, arguments)


def numpy_array(buffer, kind, shape, order, axes=None):
    """What pickles of protocol 5 say for an array. axes: in order "K", how to transpose it."""
    found = NumpyArray()
    found.fill((1, shape, kind, order == "F", buffer))
    if found.array is not None and order == "K" and axes is not None:
        found.array = found.array.transpose(axes)
    return found


def numpy_scalar(kind, data):
    found = kind.numbers(data)
    return Hollow("a NumPy scalar") if found is None else found[0].item()


def rebuild_tensor(block, *arguments):
    return tensor(block, *arguments[:3]) if isinstance(block, Storage) else block


def jax_array(function, arguments, state, *_):
    found = call(function, arguments)
    found.fill(state)
    return found


FUNCTIONS = {
    "collections.OrderedDict": mapping,
    "collections.Counter": mapping,
    "collections.defaultdict": lambda *_: {},
    "flax.core.frozen_dict.FrozenDict": mapping,
    "torch.Size": lambda sizes: tuple(sizes),
    "_codecs.encode": lambda text, *_: text.encode("latin-1"),  # how Python 3 writes bytes for Python 2
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_device_tensor_from_numpy": lambda data, *_: data,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": subclass,
    "numpy.dtype": lambda code, *_: NumpyType(code),
    "numpy.ndarray": lambda *_: NumpyArray(),
    "jax._src.array._reconstruct_array": jax_array,
}
for module in ("builtins", "__builtin__"):
    FUNCTIONS |= {f"{module}.set": listing, f"{module}.frozenset": listing, f"{module}.list": listing}
    FUNCTIONS |= {f"{module}.bytearray": lambda *arguments: arguments[0] if arguments else b""}
for module in ("numpy.core", "numpy._core"):
    FUNCTIONS |= {
        f"{module}.multiarray._reconstruct": lambda *_: NumpyArray(),
        f"{module}.multiarray.scalar": numpy_scalar,
        f"{module}.numeric._frombuffer": numpy_array,
    }


def storage(identity):
    """Return the Storage of a persistent id: ('storage', type, key, place, length[, view])."""
    kind, storage_type, key, _, length, *view = identity
    name = storage_type.name.rsplit(".", 1)[1]
    if kind != "storage" or not isinstance(key, str) or not isinstance(length, int):
        raise ValueError
    if view and view[0] is not None:
        _, start, length = view[0]
        return Storage(key, STORAGES.get(name, name), length, start)
    return Storage(key, STORAGES.get(name, name), length)
