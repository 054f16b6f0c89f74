"""Features of a folder's images: of each the mean over positions of a layer's output; kept for the next time."""

import os
from pathlib import Path

import mlx.core as mx
import numpy as np

from dataset.cli import UserError, log
from dataset.features import compute_features, fingerprint
from dataset.folder import ImageFolder, find_images

IMAGE_SIZE = 160  # pixels, the side of the square that the network sees of an image
LEAST_SIDE = 32  # pixels; smaller images show nothing
BATCH_SIZE = 16
CACHE = Path("runs/.cache")
MOST_LINES = 5  # that are told about images that cannot be used


def list_images(path):
    """Return the paths of the images that `path` means: those of a folder, at any depth, or itself.

    Raises UserError where there is none.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file or folder")
    paths = find_images(path) if os.path.isdir(path) else [str(path)]
    if not paths:
        raise UserError(f"{path}: there is no image in this folder")
    return paths


def image_features(net, paths, layers, quiet=False):
    """Return {layer: N x C} of images, one row an image, each seen as training sees it for validation.

    Images that cannot be read, or are too small, are told and left out. UserError where none is left.
    """
    file = CACHE / f"{images_digest(paths, net.weights_sha256, IMAGE_SIZE, layers)}.npy"
    unusable = []

    def means(images):
        activations = net.activations(images, layers)
        rows = [activations[layer].reshape(len(images), -1, net.layer_info[layer][0]).mean(axis=1) for layer in layers]
        return np.array(mx.concatenate(rows, axis=1))

    try:
        options = {"batch_size": BATCH_SIZE, "least_side": LEAST_SIDE, "report": unusable.append, "quiet": quiet}
        options["optional"] = True  # a concept can be had where nothing may be written
        rows = compute_features(as_folder(paths), means, IMAGE_SIZE, 1, file, **options)[:, 0]
    except UserError as error:
        raise UserError(f"{unusable[0]}{more(unusable[1:])}" if unusable else str(error)) from None
    for line in unusable[:MOST_LINES]:
        log(line, quiet)
    if unusable[MOST_LINES:]:
        log(f"... and {len(unusable) - MOST_LINES} more", quiet)
    rows = rows[~np.isnan(rows[:, 0])]
    ends = np.cumsum([net.layer_info[layer][0] for layer in layers])
    return dict(zip(layers, np.split(rows, ends[:-1], axis=1), strict=True))


def more(lines):
    return f"; and {len(lines)} more like it" if lines else ""


def images_digest(paths, *settings):
    """Return a short name for what is made of images (told by their paths, sizes and times) under some settings."""
    return fingerprint(as_folder(map(os.path.abspath, paths)), {}, *settings)


def as_folder(paths):
    """Return images as an ImageFolder of one class."""
    paths = tuple(paths)
    return ImageFolder(("",), paths, np.zeros(len(paths), np.int32))
