""".t7: Torch7's binary serialization (torch7's File.lua): a type, and what belongs to it."""

import struct
from dataclasses import dataclass

import numpy as np

from dataset.cli import UserError

from .tensors import OPERATIONS, Checkpoint, Storage, strided, tensor

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
    """Read a .t7: tensors in tables keep their keys, joined by dots; those of nn modules come in the layers' order."""
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
            self.read_table(table, depth)
            return table
        return self.object(index, depth)

    def read_table(self, table, depth):
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
    """Return the items of a table: the array part by its index, then the rest in the file's order."""
    items = list(table.items()) if isinstance(table, dict) else []
    return sorted((i for i in items if isinstance(i[0], (int, float))), key=lambda i: i[0]) + [
        i for i in items if isinstance(i[0], str)
    ]
