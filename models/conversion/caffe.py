""".caffemodel: Protocol Buffers, of which a message is a sequence of (field number, wire type, value)."""

import math

import numpy as np

from dataset.cli import UserError

from .tensors import OPERATIONS, Checkpoint, sizes

NET_LAYER, NET_V1_LAYER = 100, 2  # fields of NetParameter (caffe.proto): layers of today, and those of 2014
INNER_PRODUCT = (b"InnerProduct", 14)  # the type of a fully connected layer in either


def read_caffemodel(path, data):
    """Read a NetParameter of caffe.proto. Blob 0 of a layer is LAYER.weight, blob 1 LAYER.bias."""
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
    """Read a BlobProto: floats or doubles, packed or not, and their shape in either of its forms."""
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
    """Return (array, end) of a number and those that follow it, each behind the same one-byte tag."""
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
