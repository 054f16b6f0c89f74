"""Drift: what happens to color, contrast and detail where frames feed on one another, and how to hold them."""

import numpy as np

from dataset.camera import each_channel


def statistics(image):
    """Return (mean, standard deviation) of each channel of H x W x 3."""
    return image.mean((0, 1), dtype=np.float64), image.std((0, 1), dtype=np.float64)


def match_statistics(image, mean, std):
    """Shift and scale each channel of an image to the mean and standard deviation given."""
    own_mean, own_std = statistics(image)
    gain = std / np.maximum(own_std, 1e-3)
    return image * np.float32(gain) + np.float32(mean - own_mean * gain)


def restore_detail(dreamed, image, detail):
    """Strengthen the finest structures of a dream, up to twice, until those of the frame deviate by `detail`.

    Every zoom takes the frame's finest detail away, and a few steps do not dream all of it anew. What is enhanced is
    this frame's dream, not the frame: sharpening a frame again and again draws lines through the centre of the zoom.
    """
    old, new = high_pass(image), high_pass(dreamed - image)
    # the root of mean (old + k new)^2 = detail^2
    a, b, c = np.mean(new * new) + 1e-9, np.mean(old * new), np.mean(old * old) - detail**2
    k = (np.sqrt(max(b * b - a * c, 0)) - b) / a
    return dreamed + np.float32(np.clip(k, 1, 2) - 1) * new


def high_pass(image):
    """Return what is finer than a pixel or two: H x W x 3 less its Gaussian blur."""
    from scipy import ndimage

    return image - each_channel(ndimage.gaussian_filter, image, 1, truncate=3)
