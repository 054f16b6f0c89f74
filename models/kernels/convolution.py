"""Convolutions, in the form that is fastest where they run. Arrays N x H x W x C; weights O x H x W x I.

On a GPU, those of gpu.py.

On a CPU, MLX's own unfolds the image and takes gradients in loops, so there a convolution is made of matrix
products on what is in memory already:
- kernels of 3x3 between many channels by Winograd's algorithm, with a quarter of the multiplications;
- others as a sum over the taps of the kernel: with the padded image laid out as a list of cells, what a tap sees
  of it is a contiguous piece, and nothing is copied;
- a gradient at stride s as one at stride 1 on blocks of s x s cells.
"""

import mlx.core as mx
import numpy as np

from . import relu as relu_kernels
from .arrays import on_cpu, overlap_add
from .blocks import depth_to_space, space_to_depth
from .gpu import conv2d_gpu

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


def uncached(name, make, *sources):
    return make(*sources)


def conv2d_relu(x, weight, bias=None, stride=(1, 1), padding=(0, 0), cached=uncached):
    """Return relu(conv2d(...)), on a GPU as one function whose gradient is a convolution."""
    if on_cpu() or relu_kernels.redirected:
        return relu_kernels.relu(conv2d(x, weight, bias, stride, padding, cached))
    x, stride = strided(x, weight, stride)
    return conv2d_gpu(x, weight, bias, stride, padding, cached, relu=True)


def strided(x, weight, stride):
    """Return (x, stride), a stride of 1 x 1 kernels being applied to x."""
    if weight.shape[1:3] == (1, 1) and stride != (1, 1):
        return x[:, :: stride[0], :: stride[1]], (1, 1)
    return x, stride


def conv2d(x, weight, bias=None, stride=(1, 1), padding=(0, 0), cached=uncached):
    """Convolve N x H x W x C with O x h x w x C, and add the bias.

    cached: keeps what is derived from the weights; see Conv2d.cached. Raises ValueError where the kernel is larger than
    its padded input.
    """
    x, stride = strided(x, weight, stride)
    if not on_cpu():
        return conv2d_gpu(x, weight, bias, stride, padding, cached)

    factors = cached("factors", matrix_factors, weight) if stride == (1, 1) else None

    @mx.custom_function
    def convolution(x, weight, bias=None):
        if stride == (1, 1):
            return correlate(x, factors, weight.shape[1:3], padding, bias)
        y = mx.conv2d(x, weight, stride, padding)
        return y if bias is None else y + bias

    @convolution.vjp
    def convolution_vjp(primals, dy, _):
        x = primals[0]  # the weights come as other objects, for which cached() would keep nothing
        gradients = (
            input_gradient(x, weight, dy, stride, padding, cached),
            weight_gradient(x, weight, dy, stride, padding),
            dy.sum(axis=(0, 1, 2)),
        )
        return gradients[: len(primals)]  # what nobody asks for is never computed

    return convolution(x, weight) if bias is None else convolution(x, weight, bias)


def matrix_factors(weight):
    """Return the matrices that correlate() multiplies with, C x O each: one a tap, or Winograd's 36."""
    outputs, h, w, channels = weight.shape
    taps = weight.transpose(1, 2, 3, 0)
    if by_winograd(weight):
        taps = mx.tensordot(mx.array(WINOGRAD_KERNEL, mx.float32), taps.reshape(9, channels, outputs), axes=1)
    return mx.contiguous(taps.reshape(-1, channels, outputs))


def by_winograd(weight):
    """Return whether winograd() is the fastest form of a convolution of stride 1 with these weights."""
    return weight.shape[1:3] == (3, 3) and min(weight.shape[0], weight.shape[3]) >= 32


def correlate(x, factors, kernel, padding, bias=None):
    """Convolve N x H x W x C at stride 1 by matrix_factors() of the weights."""
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


def winograd(x, factors, padding, rows, columns, bias):
    """Convolve N x H x W x C with kernels of 3 x 3 by Winograd's 36 products; returns N x rows x columns x O."""
    n, outputs = len(x), factors.shape[2]
    down, across = -(-rows // 4), -(-columns // 4)  # tiles
    products = winograd_tiles(x, padding, down, across) @ factors
    y = mx.array(WINOGRAD_OUTPUT, mx.float32) @ products.reshape(36, -1)
    y = y.reshape(4, 4, n, down, across, outputs).transpose(2, 3, 0, 4, 1, 5)
    y = y if bias is None else y + bias
    return y.reshape(n, 4 * down, 4 * across, outputs)[:, :rows, :columns]


def winograd_tiles(x, padding, down, across):
    """Cut the padded x into overlapping tiles and transform them: 36 x tiles x C."""
    n, height, width, channels = x.shape
    (ph, pw), height_, width_ = padding, 4 * down + 2, 4 * across + 2
    x = mx.pad(x, [(0, 0), (ph, height_ - height - ph), (pw, width_ - width - pw), (0, 0)])
    row = width_ * channels
    tiles = mx.as_strided(
        x, (6, 6, n, down, across, channels), (row, channels, height_ * row, 4 * row, 4 * channels, 1)
    )
    return (mx.array(WINOGRAD_INPUT, mx.float32) @ tiles.reshape(36, -1)).reshape(36, -1, channels)


def winograd_weight_gradient(x, dy, padding):
    """Compute the gradient of winograd() for its weights: the same 36 products, each summed over the tiles."""
    n, rows, columns, outputs = dy.shape
    down, across = -(-rows // 4), -(-columns // 4)
    dy = mx.pad(dy, [(0, 0), (0, 4 * down - rows), (0, 4 * across - columns), (0, 0)])
    dy = dy.reshape(n, down, 4, across, 4, outputs).transpose(2, 4, 0, 1, 3, 5).reshape(16, -1)
    products = (mx.array(WINOGRAD_OUTPUT.T, mx.float32) @ dy).reshape(36, -1, outputs)
    taps = products.transpose(0, 2, 1) @ winograd_tiles(x, padding, down, across)
    taps = mx.array(WINOGRAD_KERNEL.T, mx.float32) @ taps.reshape(36, -1)
    return taps.reshape(3, 3, outputs, -1).transpose(2, 0, 1, 3)


def input_gradient(x, weight, dy, stride, padding, cached):
    """Compute the gradient for x: a convolution of dy with the kernel flipped."""

    def flipped(weight):
        return matrix_factors(space_to_depth(weight, stride)[:, ::-1, ::-1].transpose(3, 1, 2, 0))

    kernel = [-(-k // s) for k, s in zip(weight.shape[1:3], stride, strict=True)]  # its size in blocks
    if stride == (1, 1):
        factors = cached("flipped", flipped, weight)
        return correlate(dy, factors, kernel, [k - 1 - p for k, p in zip(kernel, padding, strict=True)])
    if x.shape[-1] <= 4:
        blocks = conv_transpose(dy, cached("planes", lambda w: mx.contiguous(space_to_depth(w, stride)), weight))
    else:
        blocks = correlate(dy, cached("flipped", flipped, weight), kernel, [k - 1 for k in kernel])
    dx = depth_to_space(blocks, stride, x.shape[-1])
    (ph, pw), (height, width) = padding, x.shape[1:3]
    beyond = [max(0, p + side - has) for p, side, has in zip(padding, x.shape[1:3], dx.shape[1:3], strict=True)]
    return mx.pad(dx, [(0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0)])[:, ph : ph + height, pw : pw + width]


def conv_transpose(dy, weight):
    """Compute a transposed convolution of stride 1 to few channels: one product for all taps, added where they belong.

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


def weight_gradient(x, weight, dy, stride, padding):
    """Compute the gradient for the weights, O x h x w x C."""
    if stride == (1, 1) and by_winograd(weight):
        return winograd_weight_gradient(x, dy, padding)
    if stride == (1, 1) and weight.shape[1:3] == (1, 1) and padding == (0, 0):
        return (dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])).reshape(weight.shape)
    return mx.vjp(lambda w: mx.conv2d(x, w, stride, padding), [weight], [dy])[1][0]
