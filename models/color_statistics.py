"""Color statistics of a set of images: mean, standard deviation, covariance, and the 3x3 matrix of its principal axes.

The sums and products of an image are exact: MLX adds them up as int64. calc_cm.py and train_dream.py call
read_moments(), combine() and color_matrix(); the formulas stand at the top of calc_cm.py.
"""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from dataset.cli import UserError
from dataset.workers import Workers

from .kernels.arrays import on_cpu

BLOCK = 1 << 15  # pixels added up at a time on a CPU: their products stay in its cache
BLOCK_GPU = 1 << 22  # elsewhere: 300 MB of products
PAIRED = mx.array([1, 2, 0])  # red times green, green times blue, blue times red


@dataclass(frozen=True)
class ColorStatistics:
    """Of `count` images, RGB, 0..1, float64: mean and std (3,), covariance (3, 3), `pooled` or within images."""

    count: int
    mean: np.ndarray
    std: np.ndarray
    covariance: np.ndarray
    pooled: bool

    @property
    def matrix(self):
        return color_matrix(self.covariance)

    @property
    def correlation(self):
        """Of the channels, (3, 3): the covariance with each channel's variance made 1; 0 where one never varies."""
        deviation = np.sqrt(np.diag(self.covariance))
        deviation = np.where(deviation > 0, deviation, np.inf)
        return self.covariance / np.outer(deviation, deviation)


def read_moments(paths, workers):
    """Yield (problem, moments, pixels) for each path, in order: None or why it cannot be read; image_moments();
    uint8 N x 3. Worker processes decode."""
    with Workers("dataset.loader:pixel_reader", None, min(workers, len(paths))) as team:
        for problem, pixels in team.map(paths):
            yield problem, None if problem else image_moments(pixels), pixels


def image_moments(image):
    """Return (number of pixels, mean (3,), sum of (x - mean)(x - mean)^T (3, 3)), in 0..1, of an image of whole levels
    0..255, H x W x 3 or N x 3."""
    pixels = np.asarray(image).reshape(-1, 3)
    count, block, totals = len(pixels), BLOCK if on_cpu() else BLOCK_GPU, np.zeros((3, 3), np.int64)
    for start in range(0, count, block):
        totals += np.array(block_sums(mx.array(pixels[start : start + block])))
    sums, (rr, gg, bb), (rg, gb, br) = totals.astype(object)  # Python's integers, which have no largest
    products = np.array([[rr, rg, br], [rg, gg, gb], [br, gb, bb]])
    scatter = (count * products - np.outer(sums, sums)).astype(np.float64) / (count * 255.0**2)
    return count, (sums / (count * 255)).astype(np.float64), scatter


def block_sums(pixels):
    """Return int64 3 x 3 of pixels N x 3: the sums of the channels, of their squares, and of their PAIRED products."""
    channels = mx.contiguous(pixels.T.astype(mx.int64))
    return mx.stack([terms.sum(axis=1) for terms in (channels, channels * channels, channels * channels[PAIRED])])


def combine(all_moments, pooled=False):
    """Return the ColorStatistics of images from their image_moments(). Raises UserError if there is none."""
    count, mean, outer, within, unbiased = 0, np.zeros(3), np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((3, 3))
    for pixels, own_mean, scatter in all_moments:
        count += 1
        mean += own_mean
        outer += np.outer(own_mean, own_mean)
        within += scatter / pixels
        unbiased += scatter / max(1, pixels - 1)
    if not count:
        raise UserError("no picture to take statistics of")
    mean /= count
    total = within / count + outer / count - np.outer(mean, mean)
    covariance = total if pooled else unbiased / count
    return ColorStatistics(count, mean, np.sqrt(np.maximum(np.diag(total), 0)), covariance, pooled)


def statistics(images, pooled=False):
    """Return the ColorStatistics of an iterable of images H x W x 3, whole levels 0..255. UserError if none."""
    return combine(map(image_moments, images), pooled)


def color_matrix(covariance):
    """Return M (3, 3) with M M^T = covariance: its principal axes as columns, times their standard deviations."""
    variances, axes = np.linalg.eigh(covariance)
    matrix = (axes * np.sqrt(np.maximum(variances, 0)))[:, ::-1]
    for column in matrix.T:  # an axis has no sign of its own: red positive, or green where there is no red
        leading = column[np.abs(column) > 1e-9 * np.abs(matrix).max()]
        if len(leading) and leading[0] < 0:
            column *= -1
    return matrix
