"""What a file of another framework holds, and what the readers of such files share: tensors within their bounds."""

import math
import struct
from dataclasses import dataclass, field

import numpy as np

OPERATIONS = 1_000_000  # of one pickle; those of the networks here take some ten thousand
# What a reader may stumble on in a broken file; formats.read() makes one line of any of them.
DAMAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, struct.error, RecursionError)


@dataclass
class Checkpoint:
    """What a file holds: {name: array} by its own names, and what else it says in plain values.

    in_order: the names say nothing (Torch7's modules have none); the order of the layers does.
    """

    arrays: dict
    extra: dict = field(default_factory=dict)
    in_order: bool = False


def sizes(shape):
    """Check a shape from a file: at most 8 sizes, none negative. Raises ValueError."""
    shape = list(shape)
    if len(shape) > 8 or not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise ValueError
    return shape


@dataclass
class Storage:
    """A block of numbers that follows the pickle, or a part of one."""

    key: str
    dtype: str
    length: int
    start: int = 0


@dataclass
class Tensor:
    """Where in a storage the numbers of an array lie; offset and strides in numbers."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


def tensor(block, offset, shape, strides):
    """Make a Tensor, if it lies within its storage and is no larger. Raises ValueError."""
    numbers = [offset, *shape, *strides]
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or len(shape) != len(strides) or len(shape) > 8:
        raise ValueError
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    size = math.prod(shape)
    if size > block.length or (size and last >= block.length):
        raise ValueError
    return Tensor(block, offset, tuple(shape), tuple(strides))


def strided(flat, tensor):
    """Make the array of a Tensor from the numbers of its storage: a view, in the machine's byte order."""
    strides = [stride * flat.itemsize for stride in tensor.strides]
    array = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
