"""dataset/images.py: what files hold becomes one kind of image, and what is wrong with them is told."""

import numpy as np
import pytest
from conftest import noise_image
from PIL import Image

from dataset.images import ImageError, read_image, read_rgb, resize_linear, write_image


def test_read_rgb_agrees_with_read_image(tmp_path):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (5, 7, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    Image.fromarray(rgba[:, :, :3]).quantize(8).save(tmp_path / "palette.gif")
    Image.fromarray(rgba[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(rgba[:, :, :3]).convert("CMYK").save(tmp_path / "print.tif")
    for path in tmp_path.iterdir():
        assert np.abs(np.asarray(read_rgb(path)) - read_image(path)).max() <= 0.51, path.name


def test_what_is_wrong_with_a_file_is_told(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    write_image(tmp_path / "cut.png", np.random.default_rng(0).uniform(0, 255, (20, 24, 3)))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    write_image(tmp_path / "large.png", np.zeros((20, 24, 3)))
    for name, reason in (("text.jpg", "not a picture"), ("cut.png", "broken"), ("large.png", "too large")):
        with pytest.raises(ImageError) as caught:
            read_rgb(tmp_path / name, max_pixels=100)
        assert caught.value.reason == ("too large" if name != "text.jpg" else reason)
    with pytest.raises(ImageError) as caught:
        read_rgb(tmp_path / "cut.png")
    assert caught.value.reason == "broken"


def test_only_formats_of_pictures_are_opened(tmp_path):
    """Pillow would hand an EPS to Ghostscript, whatever its name; phones' two-frame JPEGs (MPO) are pictures."""
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    image.save(tmp_path / "program.jpg", format="EPS")
    with pytest.raises(ImageError, match="not a picture"):
        read_rgb(tmp_path / "program.jpg")
    image.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[image])
    assert read_rgb(tmp_path / "phone.jpg").size == (8, 8)


def test_sixteen_bits_are_scaled(tmp_path):
    levels = np.linspace(0, 65535, 32 * 40).reshape(32, 40).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert np.allclose(read_image(tmp_path / "deep.png")[:, :, 0], levels / 257, atol=0.01)


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned by 90 degrees
    Image.fromarray(noise_image(30, 50)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (50, 30, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (40, 31), (57, 83), (64, 86), (140, 200)])
@pytest.mark.parametrize("shape", [(57, 83, 3), (1, 5, 1), (2, 2, 3), (89, 121, 3)])
def test_linear_resizing_is_scipys(shape, size):
    from scipy import ndimage

    image = np.random.default_rng(0).uniform(-255, 255, shape).astype(np.float32)
    before = image.copy()
    resized = resize_linear(image, size)
    expected = ndimage.zoom(image, (size[0] / shape[0], size[1] / shape[1], 1), order=1)
    assert resized.dtype == np.float32 and resized.shape == expected.shape
    assert np.abs(resized - expected).max() < 1e-4
    assert np.array_equal(image, before)
