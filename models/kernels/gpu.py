"""Convolutions and max pooling as GPUs want them: few kernels, which mx.compile fuses, and nothing that scatters.

Arrays N x H x W x C; weights O x H x W x I. MLX's own gradients would flip the weights at every step, in a form that
its Winograd kernels refuse, and scatter with atomic additions, whose order and so whose sums differ from run to run.
On Metal, the first layer's own gradient would pad its 3 channels to 32 and take them at a stride, so that this layer
works on blocks of cells.
"""

import functools

import mlx.core as mx

from .blocks import depth_to_space, space_to_depth


def conv2d_gpu(x, weight, bias, stride, padding, cached, relu=False):
    """Convolve, add the bias, and with `relu` take max(.., 0); the gradient is an ordinary convolution."""

    @mx.custom_function
    def convolution(x, weight, bias=None):
        y = forward(x, weight, stride, padding)
        y = y if bias is None else y + bias
        return mx.maximum(y, 0) if relu else y

    @convolution.vjp
    def convolution_vjp(primals, dy, y):
        x = primals[0]
        dy = dy * mx.sign(y) if relu else dy
        gradients = (
            input_gradient(x, weight, dy, stride, padding, cached),
            mx.vjp(lambda w: forward(x, w, stride, padding), [weight], [dy])[1][0],
            dy.sum(axis=(0, 1, 2)),
        )
        return gradients[: len(primals)]  # what nobody asks for is never computed

    return convolution(x, weight) if bias is None else convolution(x, weight, bias)


def forward(x, weight, stride, padding):
    return (conv2d_of_blocks if in_blocks(weight, stride) else mx.conv2d)(x, weight, stride, padding)


def in_blocks(weight, stride):
    """Return whether a convolution is a network's first, on the pixels, whose gradient Metal would unfold."""
    return stride != (1, 1) and weight.shape[3] <= 4 and mx.metal.is_available()


def input_gradient(x, weight, dy, stride, padding, cached):
    """Compute the gradient for x: a convolution of dy with the flipped kernel."""
    if stride == (1, 1):
        padding = [k - 1 - p for k, p in zip(weight.shape[1:3], padding, strict=True)]
        if min(padding) >= 0:
            return mx.conv2d(dy, cached("flipped", flip, weight), padding=padding)
    if not in_blocks(weight, stride):
        return mx.vjp(lambda x: mx.conv2d(x, weight, stride, padding), [x], [dy])[1][0]
    flipped = cached("flipped", lambda w: flip(space_to_depth(w, stride)), weight)
    kernel = flipped.shape[1:3]
    dx = depth_to_space(mx.conv2d(dy, flipped, padding=[k - 1 for k in kernel]), stride, x.shape[-1])
    (ph, pw), (height, width) = padding, x.shape[1:3]
    beyond = [max(0, p + side - has) for p, side, has in zip(padding, x.shape[1:3], dx.shape[1:3], strict=True)]
    dx = mx.pad(dx, [(0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0)]) if any(beyond) else dx
    return dx[:, ph : ph + height, pw : pw + width]


def flip(weight):
    """Turn O x h x w x I into the I x h x w x O of the gradient."""
    return mx.contiguous(weight[:, ::-1, ::-1].transpose(3, 1, 2, 0))


def conv2d_of_blocks(x, weight, stride, padding):
    """Convolve with a stride, as mx.conv2d does, by a convolution of stride 1 on blocks of stride x stride cells."""
    rows, columns = (
        (side + 2 * p - k) // s + 1
        for side, p, k, s in zip(x.shape[1:3], padding, weight.shape[1:3], stride, strict=True)
    )
    x = mx.pad(x, [(0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)])
    y = mx.conv2d(space_to_depth(x, stride), space_to_depth(weight, stride))
    return y if y.shape[1:3] == (rows, columns) else y[:, :rows, :columns]


@functools.cache
def max_pool_gpu(k, s):
    """Return a function of N x H x W x C: maxima of windows of k x k cells, s apart.

    Its gradient goes to the first of equal maxima, as torch's, and is a gather: each cell sums what the windows give
    that it is the maximum of.
    """
    taps = [(i, j) for i in range(k) for j in range(k)]
    reach = -(-k // s)  # how many windows, along a side, a cell may lie in

    def seen(x, i, j):
        """Return what lies in cell (i, j) of each window."""
        rows, columns = ((side - k) // s * s + 1 for side in x.shape[1:3])
        return x[:, i : i + rows : s, j : j + columns : s]

    @mx.custom_function
    def maximum(x):
        return functools.reduce(mx.maximum, [seen(x, i, j) for i, j in taps])

    @maximum.vjp
    def maximum_vjp(x, dy, y):
        none = mx.array(k * k, mx.uint8)
        places = [mx.where(seen(x, i, j) == y, mx.array(i * k + j, mx.uint8), none) for i, j in taps]
        while len(places) > 1:  # in pairs: a chain of nine would be too deep to become one kernel
            pairs = zip(places[::2], places[1::2], strict=False)
            places = [mx.minimum(a, b) for a, b in pairs] + places[len(places) // 2 * 2 :]
        return gather(x, dy, places[0])

    def gather(x, dy, place):
        n, height, width, channels = x.shape
        rows, columns = -(-height // s), -(-width // s)  # of blocks of s x s cells
        ends = (rows - dy.shape[1], columns - dy.shape[2])
        edges = [(0, 0), (reach - 1, ends[0]), (reach - 1, ends[1]), (0, 0)]
        if any(any(edge) for edge in edges):
            dy, place = mx.pad(dy, edges), mx.pad(place, edges, constant_values=mx.array(k * k, mx.uint8))
        shares = []
        for up in range(reach):
            for left in range(reach):
                top, start = reach - 1 - up, reach - 1 - left
                window = (slice(None), slice(top, top + rows), None, slice(start, start + columns), None)
                shares.append(mx.where(place[window] == tap_numbers(k, s, up, left), dy[window], 0))
        dx = functools.reduce(mx.add, shares).reshape(n, rows * s, columns * s, channels)
        return dx[:, :height, :width]

    return maximum


def tap_numbers(k, s, up, left):
    """Return the number of the tap, s x 1 x s x 1, in which the window `up` rows and `left` columns of
    windows before sees each cell of a block; 255 where it sees it in none.
    """
    cells = [(a + s * up, b + s * left) for a in range(s) for b in range(s)]
    numbers = [i * k + j if max(i, j) < k else 255 for i, j in cells]
    return mx.array(numbers, mx.uint8).reshape(s, 1, s, 1) if s > 1 else mx.array(numbers[0], mx.uint8)
