"""Random changes that make a small set of images larger: plain functions of an image and a numpy Generator.

An image is float32 H x W x 3, 0..255.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dataset.color import LUMA
from dataset.images import resize_image, to_uint8


@dataclass(frozen=True)
class Augmentation:
    """What training does to an image, in this order; the defaults are torchvision's, rotation and color off."""

    scale: tuple = (0.08, 1.0)  # the crop's share of the image's area, lowest and highest
    ratio: tuple = (3 / 4, 4 / 3)  # the crop's width / height before it is resized to a square
    flip: float = 0.5  # probability of mirroring left and right
    rotation: float = 0.0  # degrees, at most, either way
    colour: float = 0.0  # brightness, contrast, saturation: each times 1 - colour .. 1 + colour. Old runs know the name

    def __call__(self, image, rng, size):
        image = random_resized_crop(image, rng, size, self.scale, self.ratio)
        image = random_flip(image, rng, self.flip)
        image = random_rotation(image, rng, self.rotation)
        return color_jitter(image, rng, self.colour)


def random_resized_crop(image, rng, size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """Return a rectangle of random area and shape, resized to size x size: Szegedy et al. 2014, section 6, the way
    Inception was trained. After ten rectangles that do not fit, it is the largest central one of an allowed shape."""
    height, width = image.shape[:2]
    for _ in range(10):
        area = rng.uniform(*scale) * height * width
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return resize_image(image[top : top + h, left : left + w], (size, size))
    w, h = min(width, max(1, round(height * ratio[1]))), min(height, max(1, round(width / ratio[0])))
    top, left = (height - h) // 2, (width - w) // 2
    return resize_image(image[top : top + h, left : left + w], (size, size))


def random_flip(image, rng, probability=0.5):
    """Return the image, or its mirror image, left and right exchanged."""
    return image[:, ::-1] if rng.random() < probability else image


def random_rotation(image, rng, degrees=5.0):
    """Turn an image about its center by up to `degrees` either way.

    What comes in at the corners is the image mirrored at its edge: a network would learn black corners and dream them.
    """
    if not degrees:
        return image
    angle = rng.uniform(-degrees, degrees)
    height, width = image.shape[:2]
    margin = math.ceil(math.sin(math.radians(min(abs(angle), 90))) * max(height, width) / 2) + 1
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    turned = Image.fromarray(to_uint8(padded)).rotate(angle, Image.Resampling.BILINEAR)
    return np.asarray(turned, np.float32)[margin : margin + height, margin : margin + width]


def color_jitter(image, rng, strength=0.1):
    """Change brightness, then contrast about the mean grey, then saturation, each by a random factor near 1, and clip.

    Grey is weighed as Rec. 601 does, as in Pillow and torchvision.
    """
    if not strength:
        return image
    brightness, contrast, saturation = rng.uniform(max(0.0, 1 - strength), 1 + strength, 3).astype(np.float32)
    image = np.clip(image * brightness, 0, 255)
    image = np.clip(image * contrast + (1 - contrast) * np.mean(image @ LUMA), 0, 255)
    grey = (image @ LUMA)[:, :, None]
    return np.clip(image * saturation + (1 - saturation) * grey, 0, 255)


def center_crop(image, size):
    """Return what a network is evaluated on: the central square, the shorter side being size * 8 / 7 (256 for 224)."""
    height, width = image.shape[:2]
    factor = size * 8 / 7 / min(height, width)
    height, width = max(size, round(height * factor)), max(size, round(width * factor))
    top, left = (height - size) // 2, (width - size) // 2
    return resize_image(image, (height, width))[top : top + size, left : left + size]
