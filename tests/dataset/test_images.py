"""The one reader of image files: bits and orientation."""

import numpy as np
from conftest import noise_image
from PIL import Image

from dataset.images import read_image


def test_sixteen_bits_are_scaled(tmp_path):
    levels = np.linspace(0, 65535, 32 * 40).reshape(32, 40).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert np.allclose(read_image(tmp_path / "deep.png")[:, :, 0], levels / 257, atol=0.01)


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned by 90 degrees
    Image.fromarray(noise_image(30, 50)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (50, 30, 3)
