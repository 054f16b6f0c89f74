"""What the architectures share. Arrays are N x H x W x C; convolution weights O x H x W x I."""

import contextlib
import functools
import os

import mlx.core as mx
import mlx.nn as nn
import numpy as np

redirected = False  # set by redirected_relus()


def relu(x):
    """Every ReLU of the networks."""
    return redirected_relu(x) if redirected else plain_relu(x)


@mx.custom_function
def plain_relu(x):
    return mx.maximum(x, 0)


@plain_relu.vjp
def plain_relu_vjp(x, cotangent, output):
    return cotangent * mx.sign(output)  # a third of the passes over memory that the maximum's own gradient makes


@contextlib.contextmanager
def redirected_relus():
    """While it lasts, a ReLU that blocks the whole gradient of an image passes on what would raise its input.

    A target that is dead all over the picture can be climbed to in no other way. Source: tensorflow/lucid,
    misc/redirected_relu_grad.py.
    Whatever computes a ReLU by other means than relu() must leave those aside while `redirected` is true.
    """
    global redirected
    redirected = True
    try:
        yield
    finally:
        redirected = False


@mx.custom_function
def redirected_relu(x):
    return mx.maximum(x, 0)


@redirected_relu.vjp
def redirected_relu_vjp(x, cotangent, output):
    passed = mx.where(output > 0, cotangent, 0)
    blocked = (passed == 0).all(axis=tuple(range(1, x.ndim)), keepdims=True)
    return mx.where(blocked, mx.maximum(cotangent, 0), passed)


class Conv2d(nn.Conv2d):
    """Convolution, in the form that is fastest where it runs (see conv2d)."""

    def __call__(self, x):
        return conv2d(x, self.weight, self.get("bias"), self.stride, self.padding, self.remember)

    def remember(self, name, make, *sources):
        """make(*sources), computed again only when one of the arrays `sources` is not the one of the last call.

        So that what dreaming derives from the weights (folded, transposed) is derived once, and no array that was
        trained or loaded since is ever met by what belonged to the old one.
        """
        kept_sources, kept = self.get("_" + name, ((), None))
        if len(kept_sources) != len(sources) or any(a is not b for a, b in zip(kept_sources, sources, strict=True)):
            kept = make(*sources)
            if not self.training:
                self["_" + name] = (sources, kept)
        return kept


class BasicConv2d(nn.Module):
    """torchvision's BasicConv2d: convolution without bias, batch norm with eps 1e-3, ReLU."""

    def __init__(self, inputs, outputs, kernel_size, stride=1, padding=0):
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm(outputs, eps=1e-3)

    def __call__(self, x):
        return relu(conv_bn(self.conv, self.bn, x))


def conv_bn(conv, bn, x):
    """Convolution, then batch norm; with fixed statistics the two are one convolution."""
    if bn.training:
        return bn(conv(x))

    def fold(weight, scale, shift, mean, variance):
        scale = scale * mx.rsqrt(variance + bn.eps)
        return weight * scale[:, None, None, None], shift - mean * scale

    folded = conv.remember("folded", fold, conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var)
    return conv2d(x, *folded, conv.stride, conv.padding, conv.remember)


class ReLU(nn.Module):
    def __call__(self, x):
        return relu(x)


# --- Convolution ---
#
# On a GPU, MLX's own; but on Metal a gradient at a stride unfolds the whole image (ml-explore/mlx#3082), 13 GB in the
# first layer at 1024 x 1024, so that layer works on blocks there.
#
# On a CPU, MLX's own unfolds the image and takes gradients in loops, so there a convolution is made of matrix
# products on what is in memory already:
# - kernels of 3x3 between many channels by Winograd's algorithm, with a quarter of the multiplications;
# - others as a sum over the taps of the kernel: with the padded image laid out as a list of cells, what a tap sees
#   of it is a contiguous piece, and nothing is copied;
# - a gradient at stride s as one at stride 1 on blocks of s x s cells.


def on_cpu():
    return mx.default_device() == mx.Device(mx.cpu)


def conv2d(x, weight, bias=None, stride=(1, 1), padding=(0, 0), remember=lambda name, make, *sources: make(*sources)):
    """Convolution of N x H x W x C with O x h x w x C. `remember` keeps what is derived from the weights."""
    if weight.shape[1:3] == (1, 1) and stride != (1, 1):
        x, stride = x[:, :: stride[0], :: stride[1]], (1, 1)
    if not on_cpu():
        first = stride != (1, 1) and weight.shape[3] <= 4  # of a network, on the pixels
        y = (conv2d_of_blocks if first and mx.metal.is_available() else mx.conv2d)(x, weight, stride, padding)
        return y if bias is None else y + bias

    factors = remember("factors", matrix_factors, weight) if stride == (1, 1) else None

    @mx.custom_function
    def convolution(x, weight, bias=None):
        if stride == (1, 1):
            return correlate(x, factors, weight.shape[1:3], padding, bias)
        y = mx.conv2d(x, weight, stride, padding)
        return y if bias is None else y + bias

    @convolution.vjp
    def convolution_vjp(primals, dy, _):
        x, weight = primals[:2]
        gradients = (
            input_gradient(x, weight, dy, stride, padding, remember),
            weight_gradient(x, weight, dy, stride, padding),
            dy.sum(axis=(0, 1, 2)),
        )
        return gradients[: len(primals)]  # what nobody asks for is never computed

    return convolution(x, weight) if bias is None else convolution(x, weight, bias)


def matrix_factors(weight):
    """What correlate() multiplies with: a C x O matrix for each of the h w taps, or for Winograd's 36 products."""
    outputs, h, w, channels = weight.shape
    taps = weight.transpose(1, 2, 3, 0)
    if by_winograd(weight):
        taps = mx.tensordot(mx.array(WINOGRAD_KERNEL, mx.float32), taps.reshape(9, channels, outputs), axes=1)
    return mx.contiguous(taps.reshape(-1, channels, outputs))


def by_winograd(weight):
    """Whether a convolution of stride 1 is one for winograd()."""
    return weight.shape[1:3] == (3, 3) and min(weight.shape[0], weight.shape[3]) >= 32


def correlate(x, factors, kernel, padding, bias=None):
    """Convolution of stride 1 of N x H x W x C by matrix_factors() of its weights."""
    n, height, width, channels = x.shape
    (kh, kw), (ph, pw) = kernel, padding
    rows, columns = height + 2 * ph - kh + 1, width + 2 * pw - kw + 1
    if min(rows, columns) < 1:
        raise ValueError(f"a kernel of {kh} x {kw} is larger than its padded input")
    if len(factors) != kh * kw:
        return winograd(x, factors, padding, rows, columns, bias)
    if len(factors) == 1 and ph == pw == 0:
        y = x.reshape(-1, channels) @ factors[0]
        return (y if bias is None else y + bias).reshape(n, rows, columns, -1)
    # a row more than the padding, so that the last taps find their piece as long as the others
    height, width = height + 2 * ph + 1, width + 2 * pw
    cells = mx.pad(x, [(0, 0), (ph, ph + 1), (pw, pw), (0, 0)]).reshape(-1, channels)
    count = ((n - 1) * height + rows) * width
    y = bias
    for tap in range(kh * kw):
        start = tap // kw * width + tap % kw
        piece = cells[start : start + count]
        y = piece @ factors[tap] if y is None else mx.addmm(y, piece, factors[tap])
    # sums that run over the right border or from one image into the next belong to no window
    outputs = factors.shape[2]
    strides = (height * width * outputs, width * outputs, outputs, 1)
    return mx.as_strided(y, (n, rows, columns, outputs), strides)


# Winograd's F(4x4, 3x3): tiles of 6 x 6 cells, 4 apart, make 4 x 4 outputs with 36 products instead of 144. The
# matrices for two dimensions are Kronecker products of those for one. In float32 the error is 1e-5 of the largest
# output. Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.
WINOGRAD_INPUT = np.array(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
)  # fmt: skip
WINOGRAD_KERNEL = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
) / 24  # fmt: skip
WINOGRAD_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)  # fmt: skip
WINOGRAD_INPUT, WINOGRAD_KERNEL, WINOGRAD_OUTPUT = (
    np.kron(matrix, matrix) for matrix in (WINOGRAD_INPUT, WINOGRAD_KERNEL, WINOGRAD_OUTPUT)
)


def winograd(x, factors, padding, rows, columns, bias):
    n, outputs = len(x), factors.shape[2]
    down, across = -(-rows // 4), -(-columns // 4)  # tiles
    products = winograd_tiles(x, padding, down, across) @ factors
    y = mx.array(WINOGRAD_OUTPUT, mx.float32) @ products.reshape(36, -1)
    y = y.reshape(4, 4, n, down, across, outputs).transpose(2, 3, 0, 4, 1, 5)
    y = y if bias is None else y + bias
    return y.reshape(n, 4 * down, 4 * across, outputs)[:, :rows, :columns]


def winograd_tiles(x, padding, down, across):
    """The transformed tiles of the padded x: 36 x tiles x C."""
    n, height, width, channels = x.shape
    (ph, pw), height_, width_ = padding, 4 * down + 2, 4 * across + 2
    x = mx.pad(x, [(0, 0), (ph, height_ - height - ph), (pw, width_ - width - pw), (0, 0)])
    row = width_ * channels
    tiles = mx.as_strided(
        x, (6, 6, n, down, across, channels), (row, channels, height_ * row, 4 * row, 4 * channels, 1)
    )
    return (mx.array(WINOGRAD_INPUT, mx.float32) @ tiles.reshape(36, -1)).reshape(36, -1, channels)


def winograd_weight_gradient(x, dy, padding):
    """The transpose of winograd() in its kernel: the same 36 products, each summed over the tiles."""
    n, rows, columns, outputs = dy.shape
    down, across = -(-rows // 4), -(-columns // 4)
    dy = mx.pad(dy, [(0, 0), (0, 4 * down - rows), (0, 4 * across - columns), (0, 0)])
    dy = dy.reshape(n, down, 4, across, 4, outputs).transpose(2, 4, 0, 1, 3, 5).reshape(16, -1)
    products = (mx.array(WINOGRAD_OUTPUT.T, mx.float32) @ dy).reshape(36, -1, outputs)
    taps = products.transpose(0, 2, 1) @ winograd_tiles(x, padding, down, across)
    taps = mx.array(WINOGRAD_KERNEL.T, mx.float32) @ taps.reshape(36, -1)
    return taps.reshape(3, 3, outputs, -1).transpose(2, 0, 1, 3)


def input_gradient(x, weight, dy, stride, padding, remember):
    """The gradient with respect to x: a convolution of dy with the kernel turned around."""

    def turned(weight):
        return matrix_factors(to_blocks(weight, stride)[:, ::-1, ::-1].transpose(3, 1, 2, 0))

    kernel = [-(-k // s) for k, s in zip(weight.shape[1:3], stride, strict=True)]  # its size in blocks
    if stride == (1, 1):
        factors = remember("turned", turned, weight)
        return correlate(dy, factors, kernel, [k - 1 - p for k, p in zip(kernel, padding, strict=True)])
    if x.shape[-1] <= 4:
        blocks = scattered(dy, remember("planes", lambda w: mx.contiguous(to_blocks(w, stride)), weight))
    else:
        blocks = correlate(dy, remember("turned", turned, weight), kernel, [k - 1 for k in kernel])
    dx = from_blocks(blocks, stride, x.shape[-1])
    (ph, pw), (height, width) = padding, x.shape[1:3]
    beyond = [max(0, p + side - has) for p, side, has in zip(padding, x.shape[1:3], dx.shape[1:3], strict=True)]
    return mx.pad(dx, [(0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0)])[:, ph : ph + height, pw : pw + width]


def scattered(dy, weight):
    """The transpose of a convolution of stride 1 to few channels: one product for all taps, added where they belong.

    dy: N x h x w x O; weight: O x kh x kw x C. Returns N x (h + kh - 1) x (w + kw - 1) x C. The products are laid out
    channel by channel, since rows of pixels add up faster than a few channels do.
    """
    n, height, width, outputs = dy.shape
    _, kh, kw, channels = weight.shape
    planes = weight.reshape(outputs, -1).T @ dy.reshape(-1, outputs).T
    planes = planes.reshape(kh, kw, channels * n, height, width)
    rows = [overlap_add(2, [planes[i, j] for j in range(kw)], width + kw - 1) for i in range(kh)]
    total = overlap_add(1, rows, height + kh - 1)
    return total.reshape(channels, n, *total.shape[1:]).transpose(1, 2, 3, 0)


def conv2d_of_blocks(x, weight, stride, padding):
    """mx.conv2d with a stride, as one of stride 1 on blocks of stride x stride cells: the same numbers."""
    rows, columns = (
        (side + 2 * p - k) // s + 1
        for side, p, k, s in zip(x.shape[1:3], padding, weight.shape[1:3], stride, strict=True)
    )
    x = mx.pad(x, [(0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)])
    return mx.conv2d(to_blocks(x, stride), to_blocks(weight, stride))[:, :rows, :columns]


def weight_gradient(x, weight, dy, stride, padding):
    if stride == (1, 1) and by_winograd(weight):
        return winograd_weight_gradient(x, dy, padding)
    if stride == (1, 1) and weight.shape[1:3] == (1, 1) and padding == (0, 0):
        return (dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])).reshape(weight.shape)
    return mx.vjp(lambda w: mx.conv2d(x, w, stride, padding), [weight], [dy])[1][0]


def to_blocks(x, stride):
    """N x H x W x C to N x H/s x W/s x (s s C), zeros filling up the last blocks."""
    n, height, width, channels = x.shape
    sh, sw = stride
    x = mx.pad(x, [(0, 0), (0, -height % sh), (0, -width % sw), (0, 0)])
    x = x.reshape(n, x.shape[1] // sh, sh, x.shape[2] // sw, sw, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, x.shape[1], x.shape[3], -1)


def from_blocks(x, stride, channels):
    """The inverse of to_blocks."""
    n, height, width, _ = x.shape
    x = x.reshape(n, height, width, *stride, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, height * stride[0], width * stride[1], channels)


# --- Pooling ---


class MaxPool2d(nn.Module):
    """Max pooling with torch's rules, ceil mode included."""

    def __init__(self, kernel_size, stride, padding=0, ceil_mode=False):
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def __call__(self, x):
        return max_pool(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)


def max_pool(x, kernel_size, stride, padding=0, ceil_mode=False):
    """Max pooling as torch does it: in ceil mode the last window may hang over the right and lower border, if it
    starts inside the image or its left padding. Raises ValueError where no window fits.
    """
    k, s, p = kernel_size, stride, padding
    if ceil_mode or p:
        ends = [overhang(size, k, s, p) if ceil_mode else p for size in x.shape[1:3]]
        x = mx.pad(x, [(0, 0), (p, ends[0]), (p, ends[1]), (0, 0)], constant_values=-float("inf"))
    if min(x.shape[1:3]) < k:  # MLX would make an empty map of it
        raise ValueError(f"a window of {k} x {k} is larger than its input, {x.shape[1]} x {x.shape[2]}")
    if not on_cpu():
        return nn.MaxPool2d(k, s)(x)
    return max_along(2, k, s)(max_along(1, k, s)(x))


@functools.cache
def max_along(axis, k, s):
    """A function of N x H x W x C: maxima of windows of k cells, s apart, along axis 1 or 2.

    Its gradient goes to the first of equal maxima, as torch's, by comparing: MLX's own scatters.
    """

    @mx.custom_function
    def maximum(x):
        return functools.reduce(mx.maximum, [seen(x, i) for i in range(k)])

    @maximum.vjp
    def maximum_vjp(x, dy, y):
        return in_lanes(gradient, 3 - axis, x, dy, y)

    def seen(x, i):
        """What cell i of each window sees."""
        count = (x.shape[axis] - k) // s + 1
        return along(axis, x, i, i + (count - 1) * s + 1, s)

    def gradient(x, dy, y):
        shares = []  # of each window's gradient, for its first cell, its second, ...
        for i in range(k - 1):
            rest = dy * mx.sign(y - seen(x, i))  # 0 where cell i is the maximum; cheaper than a comparison
            shares.append(dy - rest)
            dy = rest
        shares.append(dy)
        length = -(-x.shape[axis] // s)
        phases = [overlap_add(axis, shares[phase::s], length) for phase in range(s)]
        if s == 1:
            return phases[0]
        n, height, width, channels = phases[0].shape
        if axis == 1:
            dx = mx.stack(phases, axis=2).reshape(n, height * s, width, channels)
        else:
            dx = mx.concatenate(phases, axis=-1).reshape(n, height, width * s, channels)
        return along(axis, dx, 0, x.shape[axis])

    return maximum


def along(axis, x, start, stop, step=1):
    """A slice of an axis: 1 or 2."""
    cells = slice(start, stop, step)
    return x[:, cells] if axis == 1 else x[:, :, cells]


def overlap_add(axis, parts, length):
    """The sum of `parts`, each a cell further along `axis` than the one before, in an array of `length`."""
    count = parts[0].shape[axis]
    cuts = sorted({0, length} | {min(end, length) for i in range(len(parts)) for end in (i, i + count)})
    pieces = []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        here = [along(axis, part, start - i, stop - i) for i, part in enumerate(parts) if i <= start < i + count]
        here = here or [mx.zeros_like(along(axis, parts[0], 0, stop - start))]
        pieces.append(functools.reduce(mx.add, here))
    return mx.concatenate(pieces, axis=axis)


def in_lanes(function, axis, *arrays):
    """function(*arrays), computed piece by piece along `axis`, each piece by a thread of its own: MLX computes what is
    no matrix product on one thread a stream.
    """
    streams = lanes()
    if arrays[0].nbytes < 2**20 or arrays[0].shape[axis] < len(streams):
        return function(*arrays)
    cuts = [arrays[0].shape[axis] * i // len(streams) for i in range(len(streams) + 1)]
    pieces = []
    for stream, start, stop in zip(streams, cuts, cuts[1:], strict=False):
        with mx.stream(stream):
            pieces.append(function(*(along(axis, array, start, stop) for array in arrays)))
    return mx.concatenate(pieces, axis=axis)


@functools.cache
def lanes():
    return [mx.new_stream(mx.cpu) for _ in range(min(4, os.cpu_count() or 1))]


def overhang(size, k, s, p):
    """How far ceil mode pads the end of a side, which is `size` long and has p in front (torch's formula)."""
    count = -(-(size + 2 * p - k) // s) + 1
    if (count - 1) * s >= size + p:
        count -= 1
    return max((count - 1) * s + k - size - p, 0)


def avg_pool_3x3(x):
    """3x3 averages at stride 1, over a border of zeros that count: torch's avg_pool2d(x, 3, stride=1, padding=1)."""
    x = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) * (1 / 9)


def adaptive_avg_pool(x, size, kernel_size=1, stride=1):
    """Average pooling whose windows are laid out on a map of size x size, and scaled to the map at hand.

    A window [a, b) goes from floor(a H / size) to ceil(b H / size). Single cells make torch's AdaptiveAvgPool2d; on a
    map of that very size it is ordinary pooling with `kernel_size` and `stride`.
    """
    rows, columns = (windows(length, size, kernel_size, stride, x.dtype) for length in x.shape[1:3])
    x = mx.tensordot(rows, x, axes=[[1], [1]])  # rows x N x W x C
    x = mx.tensordot(columns, x, axes=[[1], [2]])  # columns x rows x N x C
    return x.transpose(2, 1, 0, 3)


def windows(length, size, kernel_size, stride, dtype):
    """The matrix that averages `length` cells over the windows of adaptive_avg_pool."""
    matrix = []
    for first in range(0, size - kernel_size + 1, stride):
        start, end = first * length // size, -(-(first + kernel_size) * length // size)
        matrix.append([1 / (end - start) if start <= i < end else 0.0 for i in range(length)])
    return mx.array(matrix, dtype)


class LRN(nn.Module):
    """Local response normalisation across channels, as Caffe's: x / (1 + alpha / 5 * sum of 5 squares) ** 0.75
    (Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, 3.3).
    """

    def __init__(self, alpha=1e-4):
        super().__init__()
        self.alpha = alpha

    def __call__(self, x):
        channels = x.shape[-1]
        squares = mx.pad(x * x, [(0, 0), (0, 0), (0, 0), (2, 2)])
        total = sum(squares[..., i : i + channels] for i in range(5))
        root = mx.rsqrt(1 + self.alpha / 5 * total)
        return x * root * mx.sqrt(root)  # a power of -3/4 by way of roots, several times faster


def flatten_chw(x):
    """N x H x W x C to N x CHW, the order in which torch's and Caffe's classifiers flatten."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
