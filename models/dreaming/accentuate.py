"""Feature accentuation: what a network looks for in a photograph, drawn into it.

The photograph's spectrum is climbed, coarse shapes first, while the network sees random crops of the image. Source:
Hamblin et al., Feature Accentuation, 2024. With as many passes through the network as a dream of a class has, it makes
fewer, larger and better drawn bodies.
"""

import mlx.core as mx
import numpy as np

from dataset.color import normalize_matrix

from ..kernels.relu import redirected_relus
from .gradients import color_matrix
from .objectives import objective_function
from .targets import linear

CROP = 224  # pixels: the side of what the network sees
SHARES = (0.6, 1.0)  # least and largest side of a crop, of the image's shorter one
SPREAD = 0.15  # standard deviation of a crop's centre about the image's, of its sides
NOISE = 0.05 * 255  # standard deviation of the grain on every crop
FALL = 1.5  # the gradient of a frequency is divided by its power: coarse shapes move first


def accentuate(net, targets, image, steps=80, rate=0.05, seed=0, callback=None):
    """Draw `targets` into an image H x W x 3, 0..255; returns one like it.

    rate: mean change in a step, in the space of decorrelated colors, where the sigmoid's middle has a slope of 1/4.
    callback: called after each step with a function that returns the image as it stands.
    """
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    matrix = normalize_matrix(color_matrix(net)).astype(np.float32)
    spectrum = mx.array(encode(image, matrix))
    damping, colors = mx.array(frequency_damping(height, width)), mx.array(matrix)

    def to_pixels(spectrum):
        return mx.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(height, width), axes=(0, 1))

    def decode(spectrum):
        return 255 * mx.sigmoid(to_pixels(spectrum) @ colors.T)

    def ascent(targets):
        objective = objective_function(net, targets)
        return mx.grad(lambda spectrum, crop: objective(crop(decode(spectrum))))

    climb, revive = ascent(targets), ascent(linear(targets))
    blocked = True  # until a step has shown that some gradient reaches the image
    for _ in range(steps):
        crop = random_crop(rng, height, width)
        gradient = climb(spectrum, crop)
        blocked = blocked and not mx.any(gradient).item()
        if blocked:
            with redirected_relus():
                gradient = revive(spectrum, crop)
        gradient = gradient * damping
        spectrum = spectrum + rate / mx.maximum(mx.abs(to_pixels(gradient)).mean(), 1e-30) * gradient
        mx.eval(spectrum)
        if callback:
            callback(lambda spectrum=spectrum: np.array(decode(spectrum)))
    return np.array(decode(spectrum))


def encode(image, matrix):
    """Return the spectrum of an image in decorrelated colors before the sigmoid, 2 x H x (W // 2 + 1) x 3."""
    levels = np.clip(image / 255, 0.01, 0.99)
    spectrum = np.fft.rfft2(np.log(levels / (1 - levels)) @ np.linalg.inv(matrix).T, axes=(0, 1))
    return np.stack([spectrum.real, spectrum.imag]).astype(np.float32)


def frequency_damping(height, width):
    """Return the factor of each frequency's gradient, H x (W // 2 + 1) x 1, 1 for the lowest."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    lowest = 1 / max(height, width)
    return ((lowest / np.maximum(frequency, lowest)) ** FALL)[..., None].astype(np.float32)


def random_crop(rng, height, width):
    """Return a function image -> a square of it that `rng` draws now, at CROP x CROP, with grain."""
    side = min(height, width) * rng.uniform(*SHARES)
    centre = rng.normal(0.5, SPREAD, 2) * (height, width)
    top, left = np.clip(centre - side / 2, 0, np.array([height, width]) - side)
    rows, columns = (start + (np.arange(CROP) + 0.5) * side / CROP - 0.5 for start in (top, left))
    grain = mx.array(rng.normal(0, NOISE, (CROP, CROP, 3)).astype(np.float32))
    return lambda image: sample(sample(image, rows, 0), columns, 1) + grain


def sample(image, positions, axis):
    """Interpolate H x W x 3 linearly at `positions` along an axis; the border goes on outside."""
    positions = np.clip(positions, 0, image.shape[axis] - 1)
    first = np.minimum(positions.astype(int), max(0, image.shape[axis] - 2))
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    share = mx.array((positions - first).astype(np.float32)).reshape(shape)
    after = np.minimum(first + 1, image.shape[axis] - 1)
    return mx.take(image, mx.array(first), axis) * (1 - share) + mx.take(image, mx.array(after), axis) * share
