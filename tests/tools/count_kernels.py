"""What a step of dreaming asks of a GPU: kernels, their traffic of memory, and the graph's shapes, without a GPU.

python tests/tools/count_kernels.py                      a step at 400 x 600 to inception4c, as on Metal
python tests/tools/count_kernels.py --size 200 300 --network resnet50 --layer layer3 --eager
python tests/tools/count_kernels.py --pooling-kernels  where a GPU takes those of models/kernels/pooling_kernels.py

graph_nodes.cpp reads the graph that MLX lays out; a C++ compiler builds it against MLX's headers (mx.compile needs one
on a CPU, too). A kernel is a node that computes (on Metal a pad is two, a concatenation one an input): views of arrays
are none, but where a node needs its input in one piece, a view is copied first. Traffic is what kernels read and write.
"""

import argparse
import collections
import ctypes
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

import models  # noqa: E402
from models.dreaming.targets import parse_targets  # noqa: E402
from models.kernels import pooling_gpu, pooling_kernels  # noqa: E402
from models.kernels.arrays import roll  # noqa: E402

import forced_gpu  # noqa: E402
import mlx  # noqa: E402
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402

import dream  # noqa: E402

VIEWS = {
    *("AsStrided", "Broadcast", "BroadcastAxes", "Copy", "CustomTransforms", "Depends", "ExpandDims", "Flatten"),
    *("Reshape", "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten", "View"),
}
CONVOLUTIONS = {"Convolution", "Matmul", "AddMM"}  # whose traffic is counted apart
IN_ONE_PIECE = {"Convolution", "Reshape", "Flatten", "Unflatten"}  # copy an input that is not


class Array(NamedTuple):
    id: int
    itemsize: int
    shape: tuple

    @property
    def nbytes(self):
        return self.itemsize * int(np.prod(self.shape))


class Node(NamedTuple):
    name: str
    inputs: list
    outputs: list


class Counts(NamedTuple):
    """Of one graph: kernels by name, bytes by name (without convolutions and products), the shapes of convolutions,
    bytes of memory at the peak."""

    kernels: dict
    traffic: dict
    shapes: set
    memory: int

    def __str__(self):
        kernels, traffic = sum(self.kernels.values()), sum(self.traffic.values()) / 1e9
        lines = [
            f"{kernels} kernels, {traffic:.2f} GB outside the convolutions, {self.memory / 1e6:.0f} MB at the peak"
        ]
        for name, count in sorted(self.kernels.items(), key=lambda item: -self.traffic.get(item[0], 0)):
            lines.append(f"{count:6} {self.traffic.get(name, 0) / 1e6:8.1f} MB  {name[:90]}")
        return "\n".join(lines)


@functools.cache
def graph_library():
    """Build and load graph_nodes.cpp."""
    root = Path(next(iter(mlx.__path__)))
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "graph_nodes.so"
        source = ["-shared", "-fPIC", "-std=c++20", f"-I{root / 'include'}", str(HERE / "graph_nodes.cpp")]
        link = [f"-L{root / 'lib'}", "-lmlx"]
        subprocess.run(["c++", "-O0", *source, *link, "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def nodes(output):
    """Return the Nodes behind an array that is laid out but not computed, each behind its inputs."""
    # nanobind keeps the C++ object inside the Python object, `offset` bytes behind its beginning
    offset = ctypes.c_int32.from_address(id(output) + 16).value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph"
        graph_library().write_graph(str(path).encode(), ctypes.c_void_p(id(output) + offset))
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [Node(name, [array(a) for a in inputs], [array(a) for a in outputs]) for name, inputs, outputs in lines]


def array(fields):
    return Array(*fields[:2], tuple(fields[2]))


def count(graph):
    """Return the Counts of nodes()."""
    kernels, traffic, shapes = collections.Counter(), collections.Counter(), set()
    roots, scattered = {}, set()  # {id of a view: the array behind it}; ids of arrays that are not in one piece

    def read(*arrays):
        """Count what is read of arrays: of one that is seen through several views, no byte twice."""
        wanted = collections.Counter()
        for array in arrays:
            wanted[roots.get(array.id, array)] += array.nbytes
        return sum(min(total, root.nbytes) for root, total in wanted.items())

    for name, inputs, outputs in graph:
        if name in IN_ONE_PIECE:
            for array in inputs:
                if array.id in scattered:
                    kernels["(copy)"] += 1
                    traffic["(copy)"] += read(array) + array.nbytes
                    scattered.discard(array.id)
                    roots.pop(array.id, None)
        if name in VIEWS:
            for array in outputs:
                roots[array.id] = roots.get(inputs[0].id, inputs[0])
                if is_scattered(name, inputs[0], array) or (name not in IN_ONE_PIECE and inputs[0].id in scattered):
                    scattered.add(array.id)
            continue
        kernels[name] += 1
        if name in CONVOLUTIONS:
            shapes.add(tuple(array.shape for array in inputs))
            continue
        traffic[name] += read(*inputs) + sum(array.nbytes for array in outputs)
    return Counts(dict(kernels), dict(traffic), shapes, peak(graph))


def peak(graph):
    """Return the bytes that nodes() hold at most, one computed after the other, each output on a buffer of its own."""
    roots, last = {}, {}  # {id of a view: that of the array behind it}; {id: the last node that reads it}
    for i, (name, inputs, outputs) in enumerate(graph):
        if name in VIEWS:
            roots |= {array.id: roots.get(inputs[0].id, inputs[0].id) for array in outputs}
        last |= {roots.get(array.id, array.id): i for array in (*inputs, *outputs)}
    held, most = {}, 0
    for i, (name, inputs, outputs) in enumerate(graph):
        held |= {array.id: array.nbytes for array in outputs if array.id not in roots}
        most = max(most, sum(held.values()) + (transformed(*inputs) if name == "Convolution" else 0))
        for array in (*inputs, *outputs):
            if last[roots.get(array.id, array.id)] == i:
                held.pop(roots.get(array.id, array.id), None)
    return most


def transformed(x, weight):
    """Return the bytes that Metal's Winograd takes for a convolution that goes its way (MLX's metal/conv.cpp)."""
    (n, height, width, channels), (outputs, *kernel, _) = x.shape, weight.shape
    if kernel != [3, 3] or channels % 32 or outputs % 32 or channels + outputs < 256 or n * height * width < 4096:
        return 0
    return 9 * n * height * width * (channels + outputs) + 4 * n * (height + 6) * (width + 6) * channels


def is_scattered(name, source, view):
    """Say whether a view of an array lies in more pieces than one, or in another order."""
    if source.nbytes == source.itemsize:
        return False
    if name == "Transpose":
        return [side for side in source.shape if side > 1] != [side for side in view.shape if side > 1]
    if name in ("Slice", "Split"):
        first = next((i for i, side in enumerate(source.shape) if side > 1), 0)
        return source.shape[first + 1 :] != view.shape[first + 1 :]
    return name in ("AsStrided", "Broadcast") and source.shape != view.shape


def step(gradient, move, image):
    """Lay out a step of gradient_ascent() on H x W x 3."""
    shifted = roll(image, 3, 5)
    return move(shifted, gradient(shifted))


def count_step(net, layer, height, width):
    """Return the Counts of a step on an image of that size that is not the first."""
    gradient = dream.gradient_function(net, parse_targets(net, [layer]))
    image = mx.array(np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32))

    move = dream.mover(1.5)
    mx.eval(step(gradient, move, image[:96, :96]))
    return count(nodes(step(gradient, move, image)))


def use_stand_ins():
    """Lay out one node of MLX's for each of our pooling kernels, of which a CPU makes none: they are counted rightly,
    their traffic is not, and what they compute is nothing.
    """

    def run(name, inputs, outputs, constants):
        first, second = (inputs[2], inputs[0]) if constants.get("PLUS") else inputs[:2]
        seen = mx.as_strided(first, outputs[0][0], (0, 0, 0, 1))
        return mx.divmod(seen, second.reshape(-1)[: seen.shape[-1]])[: len(outputs)]

    pooling_gpu.are_right = lambda *variant: True
    pooling_kernels.run = run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(400, 600), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--network", default="googlenet")
    parser.add_argument("--layer", help="(default: the network's own)")
    parser.add_argument("--eager", action="store_true", help="without mx.compile")
    parser.add_argument("--pooling-kernels", action="store_true", help="with kernels of our own")
    args = parser.parse_args()
    forced_gpu.force()
    if args.pooling_kernels:
        use_stand_ins()
    if args.eager:
        mx.disable_compile()
    net = models.weights_file.Metadata(args.network, 10).build().eval()
    mx.eval(net.parameters())
    print(count_step(net, args.layer or models.entry(args.network).default_layer, *args.size))


if __name__ == "__main__":
    main()
