"""Writes tiny files in other frameworks' formats, by their specifications, for the tests of the readers."""

import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from itertools import accumulate
from unittest import mock

import numpy as np

# .caffemodel: Protocol Buffers, with the field numbers of caffe.proto


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def message(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def integer(number, value):
    return varint(number << 3) + varint(value)


def blob(array, packed=True, shape="new", double=False):
    """shape: "new" (BlobShape), "unpacked" (BlobShape, a tag a size), or "old": num, channels, height, width."""
    array = np.asarray(array)
    if shape == "old":
        out = b"".join(integer(i, size) for i, size in enumerate([1] * (4 - array.ndim) + list(array.shape), 1))
    elif shape == "unpacked":
        out = message(7, b"".join(integer(1, size) for size in array.shape))
    else:
        out = message(7, message(1, b"".join(varint(size) for size in array.shape)))
    number, wire, dtype = (8, 1, "<f8") if double else (5, 5, "<f4")
    array = array.astype(dtype)
    if packed:
        return out + message(number, array.tobytes())
    tagged = np.empty(array.size, [("tag", "u1"), ("value", dtype)])
    tagged["tag"], tagged["value"] = number << 3 | wire, array.ravel()
    return out + tagged.tobytes()


V1_TYPES = {"Convolution": 4, "InnerProduct": 14, "ReLU": 18, "Pooling": 17}


def caffemodel(layers, v1=False, **blob_options):
    """layers: [(name, type, [array, ...]), ...]; v1: the encoding of 2014 (`layers`, types by number)."""
    out = message(1, b"a net")
    for name, kind, arrays in layers:
        blobs = [blob(array, **blob_options) for array in arrays]
        if v1:
            body = b"".join(message(6, b) for b in blobs)
            out += message(2, message(4, name.encode()) + integer(5, V1_TYPES[kind]) + body)
        else:
            body = message(1, name.encode()) + message(2, kind.encode())
            out += message(100, body + b"".join(message(7, b) for b in blobs))
    return out


# A Caffe network of two layers, for OpenCV and for the tests
PROTOTXT = """
input: "data"
input_dim: 1 input_dim: 3 input_dim: 5 input_dim: 6
layer { name: "conv/3x3" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 2 } }
"""


def caffe_layers():
    rng = np.random.default_rng(0)
    conv = [rng.standard_normal((4, 3, 3, 3), np.float32), rng.standard_normal(4, np.float32)]
    fc = [rng.standard_normal((2, 48), np.float32), rng.standard_normal(2, np.float32)]
    return [("conv/3x3", "Convolution", conv), ("relu", "ReLU", []), ("fc", "InnerProduct", fc)]


def caffe_input():
    return np.random.default_rng(1).standard_normal((1, 3, 5, 6), np.float32)


# .safetensors


def safetensors(arrays, metadata=None):
    names = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8", "bool": "BOOL"}
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, array in arrays.items():
        end = len(data) + array.nbytes
        kind = "BF16" if array.dtype.kind == "V" else names[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


# .t7: Torch7's binary serialization


class Module:
    """An object of an nn class, for t7()."""

    def __init__(self, kind, **table):
        self.kind, self.table = kind, table


class Function:
    """A Lua function, for t7()."""


def t7(value):
    """The bytes of a value: None, bool, number, str, dict, list, float or double array, Module, Function."""
    return Torch7Writer().value(value)


class Torch7Writer:
    def __init__(self):
        self.indices, self.kept = {}, []

    def index(self, value, part=""):
        """(the index of an object or of a part of it, whether it is new)"""
        key = (id(value), part)
        new = key not in self.indices
        self.kept.append(value)  # so that no other object gets its id
        return struct.pack("<i", self.indices.setdefault(key, len(self.indices) + 1)), new

    def string(self, text):
        return struct.pack("<i", len(text)) + text.encode("latin-1")

    def value(self, value):
        if value is None:
            return struct.pack("<i", 0)
        if isinstance(value, bool):
            return struct.pack("<ii", 5, value)
        if isinstance(value, (int, float)):
            return struct.pack("<id", 1, value)
        if isinstance(value, str):
            return struct.pack("<i", 2) + self.string(value)
        index, new = self.index(value)
        if isinstance(value, Function):
            return struct.pack("<i", 8) + index + (self.string("\x1bLua") + self.value({"_ENV": 1}) if new else b"")
        if isinstance(value, (dict, list)):
            items = value if isinstance(value, dict) else dict(enumerate(value, 1))
            if not new:
                return struct.pack("<i", 3) + index
            body = b"".join(self.value(k) + self.value(v) for k, v in items.items())
            return struct.pack("<i", 3) + index + struct.pack("<i", len(items)) + body
        if isinstance(value, Module):
            return (
                self.torch(index, value.kind, lambda: self.value(value.table)) if new else struct.pack("<i", 4) + index
            )
        kind = {"f4": "Float", "f8": "Double", "i8": "Long"}[value.dtype.str[1:]]
        if not new:
            return struct.pack("<i", 4) + index
        return self.torch(index, f"torch.{kind}Tensor", lambda: self.tensor(value, kind))

    def torch(self, index, kind, body):
        return struct.pack("<i", 4) + index + self.string("V 1") + self.string(kind) + body()

    def tensor(self, array, kind):
        """Its storage is the array's base where it has one, so that views stay views."""
        base = array if array.base is None else array.base.reshape(-1)
        start = (array.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // array.itemsize
        out = struct.pack("<i", array.ndim) + np.array(array.shape, "<i8").tobytes()
        out += (np.array(array.strides, "<i8") // array.itemsize).tobytes() + struct.pack("<q", start + 1)
        index, new = self.index(array if array.base is None else array.base, "storage")
        if not new:
            return out + struct.pack("<i", 4) + index
        storage = struct.pack("<q", base.size) + base.tobytes()
        return out + self.torch(index, f"torch.{kind}Storage", lambda: storage)


# PyTorch: what torch.save writes, without torch. Arrays stand for tensors.


class Named:
    """Something that a pickle refers to by its name alone: named("torch.float32"), a function of torch's, a class."""

    def __init__(self, module, name):
        self.__module__, self.name = module, name

    def __reduce__(self):
        return self.name

    def __call__(self, *_):
        raise AssertionError("never called")


NAMES = {}


def named(path):
    return NAMES.setdefault(path, Named(*path.rsplit(".", 1)))


class Call:
    """The result of calling what is named so, as a pickle asks for it: Call("torch.device", "cpu")."""

    def __init__(self, path, *arguments):
        self.function, self.arguments = named(path), arguments

    def __reduce__(self):
        return self.function, self.arguments


class Storage:
    def __init__(self, array):
        self.array = array


class TorchPickler(pickle.Pickler):
    """Arrays become tensors, strides and all; those of one base share a storage."""

    kinds = {"f2": "HalfStorage", "f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage"}

    def __init__(self, file, protocol):
        super().__init__(file, protocol)
        self.storages = {}

    def reducer_override(self, value):
        if not isinstance(value, np.ndarray):
            return NotImplemented
        base = value
        while isinstance(base.base, np.ndarray):
            base = base.base
        storage = self.storages.setdefault(id(base), Storage(base))
        offset = value.__array_interface__["data"][0] - base.__array_interface__["data"][0]
        strides = tuple(stride // value.itemsize for stride in value.strides)
        arguments = (storage, offset // value.itemsize, value.shape, strides, False, OrderedDict())
        return named("torch._utils._rebuild_tensor_v2"), arguments

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        keys = list(self.storages.values())
        kind = named(f"torch.{self.kinds[value.array.dtype.str[1:]]}")
        return ("storage", kind, str(keys.index(value)), "cpu", value.array.size)


def pickled(value, protocol=2, pickler=TorchPickler):
    """(the pickle of a value, the pickler)"""
    for kind in TorchPickler.kinds.values():
        named(f"torch.{kind}")
    named("torch._utils._rebuild_tensor_v2")
    modules = {}
    for path, name in NAMES.items():
        module = path.rsplit(".", 1)[0]
        for parent in accumulate(module.split("."), "{}.{}".format):
            modules.setdefault(parent, types.ModuleType(parent))
        setattr(modules[module], name.name, name)
    out = io.BytesIO()
    with mock.patch.dict(sys.modules, modules):
        writer = pickler(out, protocol)
        writer.dump(value)
    return out.getvalue(), writer


def torch_save(path, value, protocol=2):
    """Write what torch.save(value, path) writes."""
    data, pickler = pickled(value, protocol)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", data)
        for key, storage in enumerate(pickler.storages.values()):
            file.writestr(f"x/data/{key}", np.ascontiguousarray(storage.array).tobytes())
    return path
