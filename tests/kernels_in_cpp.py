"""The GPU kernels of models/kernels/pooling_kernels.py as C++: what they say, without the GPU that they say it to."""

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

from models.kernels import pooling_kernels

import mlx.core as mx
import numpy as np

# what a text needs to be C++: arrays that know where they end, and a loop over the threads
FRAME = """
#include <cstdint>
static long outside;
template <typename V> struct Array {
    V* cells; long size; V spare;
    V& operator[](long i) {
        if (i >= 0 && i < size) return cells[i];
        outside++;
        return spare;
    }
};
static void make(int cell, %s) { %s }
extern "C" long run(int threads, void** memory, long* lengths, int** shapes) {
    %s
    outside = 0;
    for (int cell = 0; cell < threads; cell++) make(cell, %s);
    return outside;
}
"""
TYPES = {"float32": "float", "uint8": "uint8_t", "int32": "int"}


@functools.cache
def library(name, text, types, constants):
    """Build a kernel for arrays of these C++ types."""
    inputs, outputs, _ = pooling_kernels.KERNELS[name]
    parameters, arguments, names = [], [], []
    for i, (array, cpp) in enumerate(zip((*inputs, *outputs), types, strict=True)):
        names += [array, f"{array}_shape"]
        parameters += [f"Array<{cpp}>& {array}", f"int* {array}_shape"]
        arguments.append(
            f"Array<{cpp}> {array}{{({cpp}*)memory[{i}], lengths[{i}]}}; int* {array}_shape = shapes[{i}];"
        )
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        source.write_text(FRAME % (", ".join(parameters), text, "\n".join(arguments), ", ".join(names)))
        defines = [f"-D{key}={value}" for key, value in constants]
        subprocess.run(["c++", "-std=c++14", "-O1", "-shared", "-fPIC", *defines, source, "-o", built], check=True)
        return ctypes.CDLL(str(built))


def run(name, inputs, outputs, constants):
    """Do what pooling_kernels.run() does; AssertionError where a thread touches a cell that no array has."""
    arrays = [np.array(array) for array in inputs]
    arrays += [np.empty(shape, np.uint8 if dtype == mx.uint8 else np.float32) for shape, dtype in outputs]
    values = tuple((key, int(value)) for key, value in constants.items() if key != "T")
    types = tuple(TYPES[array.dtype.name] for array in arrays)
    kernel = library(name, pooling_kernels.KERNELS[name][2], types, (*values, ("T", "float")))
    shapes = [np.array(array.shape, np.int32) for array in arrays]
    threads = arrays[len(inputs)].size + 5  # a GPU rounds up to whole groups
    lengths = (ctypes.c_long * len(arrays))(*(array.size for array in arrays))
    assert kernel.run(threads, pointers(arrays), lengths, pointers(shapes)) == 0
    return [mx.array(array) for array in arrays[len(inputs) :]]


def pointers(arrays):
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
