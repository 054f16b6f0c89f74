"""Max pooling and its gradient as two kernels for GPUs, each a text for Metal's compiler, for CUDA's, and for C++'s,
with which tests/models/test_pooling_kernels.py tries them. Arrays N x H x W x C, windows of K x K cells, S apart.

A thread makes a cell of the output: its number is `cell`.
"""

import functools
import math

import mlx.core as mx

LARGEST = 2**31 - 2**10  # cells of an array: an int numbers them, and the threads of a last group beyond them

BLOCKED = 254  # the place of a window whose maximum a ReLU blocks

CELL = {
    "metal": "int cell = thread_position_in_grid.x;",
    "cuda": "int cell = blockIdx.x * blockDim.x + threadIdx.x;",
}

# sizes: rows and columns of windows, the padding above and at the left. A place is the number of a window's first cell
# that has its maximum; with RELU, y is max(maximum + bias, 0), and the place BLOCKED where that is 0
POOL = """
    int height = x_shape[1], width = x_shape[2], channels = x_shape[3];
    int rows = sizes[0], columns = sizes[1], top = sizes[2], left = sizes[3];
    if (cell >= x_shape[0] * rows * columns * channels) return;
    int channel = cell % channels, column = cell / channels % columns;
    int row = cell / channels / columns % rows, image = cell / channels / columns / rows;
    T best = T(0);
    int place = -1;
    for (int i = 0; i < K; i++) {
        int down = row * S - top + i;
        for (int j = 0; j < K; j++) {
            int across = column * S - left + j;
            if (down < 0 || down >= height || across < 0 || across >= width) continue;
            T value = x[((image * height + down) * width + across) * channels + channel];
            if (place < 0 || value > best) {
                best = value;
                place = i * K + j;
            }
        }
    }
    if (RELU) {
        best = best + bias[channel];
        if (!(best > T(0))) {
            best = T(0);
            place = BLOCKED;
        }
    }
    y[cell] = best;
    places[cell] = place;
"""

# sizes: rows and columns of the map, the padding above and at the left. A cell sums what the windows give that it is
# the maximum of; with PLUS, to what another gradient gives it
GRADIENT = """
    int rows = dy_shape[1], columns = dy_shape[2], channels = dy_shape[3];
    int height = sizes[0], width = sizes[1], top = sizes[2], left = sizes[3];
    if (cell >= dy_shape[0] * height * width * channels) return;
    int channel = cell % channels, across = cell / channels % width + left;
    int down = cell / channels / width % height + top, image = cell / channels / width / height;
    float sum = PLUS ? float(plus[cell]) : 0.0f;
    for (int i = down % S; i < K && i <= down; i += S) {
        int row = (down - i) / S;
        for (int j = across % S; j < K && j <= across; j += S) {
            int column = (across - j) / S;
            if (row >= rows || column >= columns) continue;
            int window = ((image * rows + row) * columns + column) * channels + channel;
            if (places[window] == i * K + j) sum += float(dy[window]);
        }
    }
    dx[cell] = T(sum);
"""

KERNELS = {  # name: (inputs, outputs, text)
    "pool": (("x", "bias", "sizes"), ("y", "places"), POOL),
    "gradient": (("dy", "places", "plus", "sizes"), ("dx",), GRADIENT),
}


def pool(windows, x, bias=None, relu=False):
    """Return (y, places) of a map x; bias: C numbers, with `relu` alone."""
    size = windows.size(x.shape)
    sizes = mx.array([*size, windows.rows[0], windows.columns[0]], mx.int32)
    shape = (x.shape[0], *size, x.shape[3])
    constants = {"T": x.dtype, "K": windows.k, "S": windows.s, "RELU": relu, "BLOCKED": BLOCKED}
    return run("pool", [x, x if bias is None else bias, sizes], [(shape, x.dtype), (shape, mx.uint8)], constants)


def gradient(windows, dy, places, shape, plus=None):
    """Return the gradient for a map of that shape, and the sum of it and `plus`, where that is given."""
    sizes = mx.array([*shape[1:3], windows.rows[0], windows.columns[0]], mx.int32)
    constants = {"T": dy.dtype, "K": windows.k, "S": windows.s, "PLUS": plus is not None}
    inputs = [dy, places, dy if plus is None else plus, sizes]
    return run("gradient", inputs, [(tuple(shape), dy.dtype)], constants)[0]


def run(name, inputs, outputs, constants):
    """Run a kernel, a thread a cell of its first output. outputs: the shape and dtype of each."""
    shapes, dtypes = zip(*outputs, strict=True)
    return built(name)(
        inputs=inputs,
        template=list(constants.items()),
        grid=(math.prod(shapes[0]), 1, 1),
        threadgroup=(256, 1, 1),
        output_shapes=list(shapes),
        output_dtypes=list(dtypes),
    )


@functools.cache
def built(name):
    """Return MLX's function for a kernel, which it compiles once for each set of constants."""
    inputs, outputs, text = KERNELS[name]
    make, cell = (mx.fast.metal_kernel, "metal") if mx.metal.is_available() else (mx.fast.cuda_kernel, "cuda")
    return make(name=f"max_pool_{name}", input_names=inputs, output_names=outputs, source=CELL[cell] + text)
