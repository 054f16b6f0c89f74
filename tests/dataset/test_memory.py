"""dataset/decoding.py: no picture takes more than 2 GB, and what would is told by its header."""

import resource
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from conftest import ROOT, noise_image, smooth_image
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dataset.decoding import BYTES_PER_PIXEL
from dataset.images import TEXT_KEY, ImageError, read_image, read_image_and_alpha, read_rgb, read_text

PEAK = """
import resource, sys
import av, scipy.ndimage
from dataset.images import read_image_and_alpha
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
read_image_and_alpha(sys.argv[1], max_size=256)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before)
"""


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width=30000, height=30000, *others, behind=()):
    """A PNG whose pixels are not there."""
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *others]
    parts += [chunk(b"IDAT", b"no pixels"), *behind, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def huge_tiff():
    tags = {256: 30000, 257: 30000, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 30000, 279: 100}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + rows + bytes(200)


def huge_webp():
    """An animation of 16,000 x 16,000 pixels, without a frame."""
    side = struct.pack("<I", 15999)[:3]
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + side + side
    anim = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body = b"WEBP" + extended + anim
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("make", [huge_png, huge_tiff, huge_webp])
def test_a_header_of_a_huge_picture_is_one_line_at_once(tmp_path, make):
    path = tmp_path / "huge"
    path.write_bytes(make())
    for read in (read_image, read_rgb, lambda path: read_image_and_alpha(path, max_size=64)):
        began = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ImageError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
        assert time.perf_counter() - began < 2
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.jpg"])
def test_a_large_picture_takes_no_more_than_is_said(tmp_path, name):
    image = Image.fromarray(smooth_image(4400, 4400))
    image.save(tmp_path / name, **({"compress_level": 1} if name == "a.png" else {}))
    said = subprocess.check_output([sys.executable, "-c", PEAK, str(tmp_path / name)], cwd=ROOT, timeout=60)
    assert int(said) < BYTES_PER_PIXEL * 4400 * 4400 + (40 << 20)  # as much for bands, however large it is


def test_a_recipe_is_read_without_the_pixels(tmp_path):
    """Before and behind the pixels, as text of Latin letters and of all, of a picture too large to be decoded."""
    latin, other = chunk(b"tEXt", TEXT_KEY.encode() + b"\0recipe \xe9"), "recipe \u4e2d"
    other = chunk(b"iTXt", TEXT_KEY.encode() + b"\0\0\0\0\0" + other.encode())
    for before, behind, text in (
        ([latin], [], "recipe \u00e9"),
        ([other], [], "recipe \u4e2d"),
        ([], [latin], "recipe \u00e9"),
        ([], [chunk(b"tEXt", b"other\0text"), other], "recipe \u4e2d"),
        ([], [], ""),
    ):
        (tmp_path / "a.png").write_bytes(huge_png(30000, 30000, *before, behind=behind))
        assert read_text(tmp_path / "a.png") == text


def test_a_recipe_in_the_exif_of_a_png_is_read(tmp_path):
    """That of a JPEG, say, after another program has made a PNG of it."""
    exif = Image.Exif()
    exif[0x0112] = 1
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0recipe"
    Image.fromarray(noise_image(8, 8)).save(tmp_path / "a.png", exif=exif)
    assert read_text(tmp_path / "a.png") == "recipe"
    info = PngInfo()
    info.add_text(TEXT_KEY, "own")
    Image.fromarray(noise_image(8, 8)).save(tmp_path / "b.png", exif=exif, pnginfo=info)
    assert read_text(tmp_path / "b.png") == "own"


def test_large_webp_is_read_by_ffmpeg_whole_too(tmp_path, monkeypatch):
    """Where Pillow's decoder would take too much, and nobody wants it smaller."""
    from dataset import decoding

    image = smooth_image(200, 300)
    Image.fromarray(image).save(tmp_path / "a.webp", quality=95)
    Image.fromarray(image).save(
        tmp_path / "moving.webp", save_all=True, append_images=[Image.fromarray(image[::-1].copy())]
    )
    monkeypatch.setattr(decoding, "MEMORY_LIMIT", 200 * 300 * 10)
    assert np.abs(read_image(tmp_path / "a.webp") - image).mean() < 8
    with pytest.raises(ImageError, match="too many pixels"):
        read_image(tmp_path / "moving.webp")
