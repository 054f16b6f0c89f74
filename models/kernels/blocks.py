"""Blocks of cells as channels, and back: how a convolution with a stride becomes one without."""

import mlx.core as mx


def space_to_depth(x, stride):
    """Turn blocks of s x s cells into channels, N x H/s x W/s x (s s C); zeros fill up the last blocks."""
    n, height, width, channels = x.shape
    sh, sw = stride
    if height % sh or width % sw:
        x = mx.pad(x, [(0, 0), (0, -height % sh), (0, -width % sw), (0, 0)])
    x = x.reshape(n, x.shape[1] // sh, sh, x.shape[2] // sw, sw, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, x.shape[1], x.shape[3], -1)


def depth_to_space(x, stride, channels):
    """Invert space_to_depth()."""
    n, height, width, _ = x.shape
    x = x.reshape(n, height, width, *stride, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, height * stride[0], width * stride[1], channels)
