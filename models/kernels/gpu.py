"""Convolutions as GPUs want them: few kernels, which mx.compile fuses. Arrays N x H x W x C; weights O x H x W x I.

MLX's own gradients would flip the weights at every step, in a form that its Winograd kernels refuse. On Metal, the
first layer's own gradient would pad its 3 channels to 32 and take them at a stride, so that this layer works on blocks
of cells.
"""

import mlx.core as mx

from .blocks import depth_to_space, space_to_depth


def conv2d_gpu(x, weight, bias, stride, padding, cached, relu=False):
    """Convolve, add the bias, and with `relu` take max(.., 0); the gradient is an ordinary convolution."""
    blocks = None
    if in_blocks(weight, stride):
        blocks = cached("blocks", lambda w: weight_blocks(w, stride, padding), weight)

    @mx.custom_function
    def convolution(x, _, bias=None):  # the weights come as other objects, for which cached() would keep nothing
        y = forward(x, weight, stride, padding, blocks)
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


def forward(x, weight, stride, padding, blocks=None):
    return (
        conv2d_of_blocks(x, weight, stride, padding, blocks)
        if in_blocks(weight, stride)
        else mx.conv2d(x, weight, stride, padding)
    )


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
    flipped = cached("flipped", lambda w: flip(weight_blocks(w, stride, padding)), weight)
    low, high = borders(x.shape[1:3], weight, stride, padding)
    ends = [[side - 1 - end for side, end in zip(flipped.shape[1:3], edge, strict=True)] for edge in (low, high)]
    dx = depth_to_space(mx.conv_general(dy, flipped, padding=tuple(ends)), stride, x.shape[-1])
    return dx if dx.shape == x.shape else dx[:, : x.shape[1], : x.shape[2]]


def flip(weight):
    """Turn O x h x w x I into the I x h x w x O of the gradient."""
    return mx.contiguous(weight[:, ::-1, ::-1].transpose(3, 1, 2, 0))


def conv2d_of_blocks(x, weight, stride, padding, blocks=None):
    """Convolve with a stride, as mx.conv2d does, by a convolution of stride 1 on blocks of stride x stride cells.

    blocks: weight_blocks(), where they are known.
    """
    blocks = weight_blocks(weight, stride, padding) if blocks is None else blocks
    return mx.conv_general(space_to_depth(x, stride), blocks, padding=borders(x.shape[1:3], weight, stride, padding))


def weight_blocks(weight, stride, padding):
    """Return weights O x h x w x I in blocks, behind zeros: these let windows that begin in the padding, and so perhaps
    within a block, begin with it.
    """
    zeros = [(-p % s, 0) for p, s in zip(padding, stride, strict=True)]
    return space_to_depth(mx.pad(weight, [(0, 0), *zeros, (0, 0)]), stride)


def borders(sides, weight, stride, padding):
    """Return by how many blocks a map of blocks is padded at its low and high ends, for as many windows as its cells
    have; negative where the last blocks are in none.
    """
    low, high = [], []
    for side, k, s, p in zip(sides, weight.shape[1:3], stride, padding, strict=True):
        windows, kernel = (side + 2 * p - k) // s + 1, -(-(k + -p % s) // s)
        low.append(-(-p // s))
        high.append(windows - 1 + kernel - low[-1] - -(-side // s))
    return low, high
