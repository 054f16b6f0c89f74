"""Gradients of an image, transformed before a step: Laplacian-pyramid normalisation, smoothing, decorrelated colors.

Every function takes and returns H x W x 3.
"""

import mlx.core as mx
import numpy as np

from dataset.color import normalize_matrix

from ..kernels.arrays import sum_of

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)

# Columns: the principal axes of ImageNet's colors within an image, as long as the standard deviation along them,
# RGB 0..1. Source: tensorflow/lucid, optvis/param/color.py.
IMAGENET_COLORS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


def gradient_transform(lapnorm=0, smooth=0, colors=None):
    """Return a function (gradient, step, steps) -> gradient that does what is asked for, or None for nothing at all.

    lapnorm: levels. smooth: sigma, pixels. colors: a matrix of calc_cm.py.
    """
    if not lapnorm and not smooth and colors is None:
        return None
    product = None if colors is None else mx.array(color_product(colors))

    def transform(gradient, step, steps):
        if lapnorm:
            gradient = laplacian_normalise(gradient, lapnorm)
        if smooth:
            gradient = cascade_gaussian(gradient, smooth + 2 * (step + 1) / steps)
        return gradient if product is None else gradient @ product

    return transform


def color_matrix(net, decorrelate=True):
    """Return the matrix that `decorrelate` asks for: itself; for True the network's own, else ImageNet's; or None.

    The network's own is that of the images it was trained on, where its weights file knows it.
    """
    if decorrelate is None or decorrelate is False:
        return None
    return (net.metadata.color_matrix or IMAGENET_COLORS) if decorrelate is True else decorrelate


def color_product(matrix):
    """Return Mn Mn^T, float32, Mn being the color matrix divided by its largest column norm.

    With pixel = Mn t, a step along the gradient of the decorrelated color t moves the pixel by Mn Mn^T times its own
    gradient: brightness, in which images vary most, moves most, and saturated hues least.
    """
    matrix = normalize_matrix(matrix)
    return (matrix @ matrix.T).astype(np.float32)


def laplacian_normalise(gradient, levels):
    """Divide each band of the gradient's Laplacian pyramid by its root mean square, and put them together again.

    The coarse bands, which a network's gradient hardly has, then count as much as the fine ones.
    Source: tensorflow/examples, deepdream.ipynb (lap_normalize), whose kernel is the 5 x 5 binomial one.
    """
    bands = []
    for _ in range(levels):
        if min(gradient.shape[:2]) < 2:
            break
        low = blur(gradient, BINOMIAL)[::2, ::2]
        bands.append(gradient - expand(low, gradient.shape))
        gradient = low
    image = unit_rms(gradient)
    for band in reversed(bands):
        image = expand(image, band.shape) + unit_rms(band)
    return image


def unit_rms(x):
    """Divide an array by its root mean square."""
    return x / mx.maximum(mx.sqrt((x * x).mean()), 1e-10)


def expand(low, shape):
    """Double the size of H x W x C, cropped to `shape`: zeros between the pixels, then 4 times the binomial kernel."""
    height, width, channels = low.shape
    apart = mx.zeros((height, 2, width, 2, channels), low.dtype)
    apart[:, 0, :, 0] = low
    apart = apart.reshape(2 * height, 2 * width, channels)[: shape[0], : shape[1]]
    return 4 * blur(apart, BINOMIAL)


def cascade_gaussian(gradient, sigma):
    """Return the mean of three Gaussian blurs, sigma / 2, sigma and 2 sigma wide: gordicaleksa/pytorch-deepdream's."""
    return sum_of(blur(gradient, gaussian(width)) for width in (sigma / 2, sigma, 2 * sigma)) / 3


def gaussian(sigma):
    """Return a Gaussian kernel that sums to 1 and reaches out to three sigma (pixels)."""
    radius = max(1, round(3 * sigma))
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma * sigma))
    return tuple((weights / weights.sum()).tolist())


def blur(image, kernel):
    """Convolve H x W x C with an odd, symmetric kernel along both axes, over a border of zeros."""
    weights, radius = mx.array(kernel, image.dtype), len(kernel) // 2
    planes = image.transpose(2, 0, 1)[..., None]  # the channels as a batch: a convolution of one channel
    planes = mx.conv2d(planes, weights.reshape(1, -1, 1, 1), padding=(radius, 0))
    planes = mx.conv2d(planes, weights.reshape(1, 1, -1, 1), padding=(0, radius))
    return planes[..., 0].transpose(1, 2, 0)
