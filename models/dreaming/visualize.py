"""Feature visualisation: what a class or a channel looks like, from nothing.

The image is optimised in a space where colors and frequencies are independent, while it is shifted, scaled and
rotated, so that no trick of single pixels pays. Source: Olah et al., Feature Visualization, 2017; tensorflow/lucid,
optvis/param/spatial.py, color.py and optvis/transform.py, whose numbers these are.
"""

import mlx.core as mx
import mlx.optimizers
import numpy as np

from dataset.color import normalize_matrix

from ..kernels.relu import redirected_relus
from .gradients import color_matrix
from .objectives import objective_function
from .targets import linear

PAD = 12
SCALES = [1 + (i - 5) / 50 for i in range(11)]
ANGLES = [*range(-10, 11), 0, 0, 0, 0, 0]  # degrees
REDIRECTED = 16  # steps at the start in which blocked ReLUs pass gradient on


def visualize(net, targets, height, width, steps=200, rate=0.05, seed=0, callback=None):
    """Climb to `targets` from noise by Adam at the learning rate `rate`; returns H x W x 3 float32, 0..255.

    callback: called after each step with a function that returns the image as it stands.
    """
    rng = np.random.default_rng(seed)
    spectrum = mx.array(rng.normal(0, 0.01, (2, height, width // 2 + 1, 3)).astype(np.float32))
    scale = frequency_scale(height, width)
    colors = mx.array(normalize_matrix(color_matrix(net)).astype(np.float32))
    objective = objective_function(net, linear(targets))

    def decode(spectrum):
        return 255 * mx.sigmoid(from_spectrum(spectrum * scale, height, width) @ colors.T)

    # of the objective, not of a loss: redirected ReLUs pass on what raises their input
    climb = mx.grad(lambda spectrum, transform: objective(transform(decode(spectrum))))
    adam = mlx.optimizers.Adam(rate, bias_correction=True)
    for step in range(steps):
        transform = random_transform(rng)
        if step < REDIRECTED:
            with redirected_relus():
                gradient = climb(spectrum, transform)
        else:
            gradient = climb(spectrum, transform)
        spectrum = adam.apply_gradients({"spectrum": -gradient}, {"spectrum": spectrum})["spectrum"]
        mx.eval(spectrum)
        if callback:
            callback(lambda spectrum=spectrum: np.array(decode(spectrum)))
    return np.array(decode(spectrum))


def frequency_scale(height, width):
    """Return the factor of each frequency, H x (W // 2 + 1) x 1: 1 / frequency, as photographs have it."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    scale = np.sqrt(height * width) / np.maximum(frequency, 1 / max(height, width))
    return mx.array(scale[..., None].astype(np.float32))


def from_spectrum(spectrum, height, width):
    """Transform 2 x H x (W // 2 + 1) x 3, real and imaginary parts, to H x W x 3; a quarter of it, as lucid has it."""
    return mx.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(height, width), axes=(0, 1)) / 4


def random_transform(rng):
    """Return a function image -> image: padded with grey, then shifted, scaled and rotated by what `rng` draws now."""
    first, second = rng.integers(0, 9, 2), rng.integers(0, 5, 2)
    scale, angle = rng.choice(SCALES), np.deg2rad(rng.choice(ANGLES))

    def transform(image):
        image = mx.pad(image, [(PAD, PAD), (PAD, PAD), (0, 0)], constant_values=mx.array(127.5))
        image = crop(image, first, 8)
        image = rotate_scale(image, scale, angle)
        return crop(image, second, 4)

    return transform


def crop(image, start, amount):
    """Cut `amount` rows and columns off H x W x 3: start[0] rows at the top, start[1] columns at the left."""
    height, width = (side - amount for side in image.shape[:2])
    return image[int(start[0]) :, int(start[1]) :][:height, :width]


def rotate_scale(image, scale, angle):
    """Scale and rotate (radians) H x W x C about its centre by linear interpolation; the border goes on outside."""
    height, width, channels = image.shape
    rows, columns = round(height * scale), round(width * scale)
    y = (np.arange(rows)[:, None] - (rows - 1) / 2) / scale
    x = (np.arange(columns)[None, :] - (columns - 1) / 2) / scale
    source_y = np.clip(np.cos(angle) * y - np.sin(angle) * x + (height - 1) / 2, 0, height - 1)
    source_x = np.clip(np.sin(angle) * y + np.cos(angle) * x + (width - 1) / 2, 0, width - 1)
    top, left = np.minimum(source_y.astype(int), height - 2), np.minimum(source_x.astype(int), width - 2)
    down, right = (source_y - top)[..., None], (source_x - left)[..., None]
    pixels, rotated = image.reshape(-1, channels), 0
    for dy, part_y in ((0, 1 - down), (1, down)):
        for dx, part_x in ((0, 1 - right), (1, right)):
            weight = mx.array((part_y * part_x).astype(np.float32))
            rotated = rotated + weight * pixels[mx.array((top + dy) * width + left + dx)]
    return rotated
