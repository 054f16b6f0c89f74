"""prove.py mutations pictures: whatever a damaged image file holds, reading it gives an image or one line."""

import contextlib
import io

import numpy as np
from PIL import Image, ImageCms

from dataset.cli import UserError
from dataset.images import read_image_and_alpha, read_rgb, read_text, text_options


def samples():
    """Return {name: bytes} of small image files of every format and mode, drawn from one seed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((48, 36), Image.Resampling.BICUBIC)
    rgba = rgb.copy()
    rgba.putalpha(rgb.getchannel(0))
    grey16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a maker", 72.0
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0a comment"
    said = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    moving = {"save_all": True, "append_images": [rgb.rotate(180)]}
    kinds = {
        "JPEG": [(rgb, said), (rgb.convert("L"), {}), (rgb.convert("CMYK"), {}), (rgb, {"progressive": True})],
        "PNG": [
            (rgb, said | text_options("a.png", "a recipe")),
            (rgba, {}),
            (grey16, {"transparency": 257}),
            (rgb.quantize(16), {"transparency": b"\x40\x80"}),
            (rgb.convert("1"), {}),
            (rgb, moving),
        ],
        "WEBP": [(rgb, said), (rgba, {"lossless": True}), (rgb, moving)],
        "TIFF": [
            (rgb, said),
            (rgba, {"compression": "tiff_lzw"}),
            (grey16, {}),
            (rgb.convert("F"), {}),
            (rgb.convert("CMYK"), {"compression": "tiff_adobe_deflate"}),
            (rgb.convert("1"), {"compression": "group4"}),
            (rgb, {"compression": "jpeg"}),
            (rgb, moving),
        ],
        "GIF": [(rgb, {}), (rgb, moving)],
        "BMP": [(rgb, {}), (rgb.quantize(16), {}), (rgb.convert("1"), {})],
        "PPM": [(rgb, {}), (rgb.convert("L"), {})],
        "AVIF": [(rgb, said), (rgba, {})],
        "HEIF": [(rgb, said)],
        "MPO": [(rgb, moving)],
    }
    found = {}
    for kind, images in kinds.items():
        for number, (image, options) in enumerate(images):
            if kind in Image.SAVE:
                buffer = io.BytesIO()
                image.save(buffer, format=kind, **options)
                found[f"{kind.lower()}{number}"] = buffer.getvalue()
    return found


def attempt(path):
    """Read a file in every way; returns "an image" or "one line". Whatever else happens is an AssertionError."""
    ways = (lambda: read_image_and_alpha(path, max_size=64), lambda: (np.asarray(read_rgb(path)), None))
    outcomes = []
    for read in ways:
        try:
            image, alpha = read()
        except UserError as error:
            line = " ".join(str(error).split())
            assert line.startswith(f"{path}: ") and len(line) > len(f"{path}: "), line
            outcomes.append("one line")
            continue
        assert image.ndim == 3 and image.shape[2] == 3 and min(image.shape) > 0, image.shape
        assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 255
        assert alpha is None or alpha.shape == image.shape[:2]
        outcomes.append("an image")
    with contextlib.suppress(UserError):
        assert isinstance(read_text(path), str)
    assert outcomes[0] == outcomes[1], outcomes
    return outcomes[0]
