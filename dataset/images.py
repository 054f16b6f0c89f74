"""Read and write image files: the one reader and the one writer.

An image is a float32 array H x W x 3, sRGB, 0..255.
"""

import math
import os
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dataset.cli import UserError
from dataset.decoding import decode
from dataset.files import atomic_write, check_place
from dataset.opening import ImageError, image_errors, opened

__all__ = ["ImageError", "read_image", "read_image_and_alpha", "read_rgb", "resize_image", "to_uint8", "write_image"]

# of files that are taken for images in a folder without a look into them; others are looked at
SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".gif", ".heic", ".heif", ".hif", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo"),
}
WRITABLE = {".png", ".jpg", ".jpeg", ".webp"}
BACKGROUND = 255  # white, where what is transparent has to be shown
GAP = 3  # a large image is reduced to not less than so many times what it is resized to
ENOUGH = 90_000_000  # pixels, up to 21 bytes each: where nobody asked for all of a larger image, it is halved


# --- Reading ---


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as float32 H x W x 3, sRGB, 0..255, upright; what is transparent is shown over white.

    Images of more than ENOUGH pixels are halved. Raises ImageError where there is no such file, or no whole image.
    """
    with image_errors(path):
        image, alpha = to_arrays(decode(path, at_most(ENOUGH)))
        return image if alpha is None else over_background(image, alpha)


def read_image_and_alpha(path, width=None, max_size=None):
    """Read (image, alpha): float32 H x W x 3 and H x W or None, both 0..255, as target_size() says.

    EXIF orientation is obeyed; palette, grey, 16-bit, CMYK and color-managed images become sRGB. A color that nobody
    sees, because its alpha is 0, is white.
    """

    def target(*size):
        return tuple(GAP * side for side in target_size(*size, width, max_size))

    with image_errors(path):
        decoded = decode(path, target)
        image, alpha = to_arrays(decoded)
        size = target_size(*decoded.size, width, max_size)[::-1]
        if size != image.shape[:2]:
            image, alpha = resize_with_alpha(image, alpha, size)
        if alpha is not None:
            image[alpha == 0] = BACKGROUND
        return image, alpha


def read_rgb(path, max_pixels=None):
    """Read what read_image() reads as an 8-bit RGB PIL image, which takes a quarter of the memory.

    max_pixels: what is larger is refused.
    """
    with image_errors(path):
        decoded = decode(path, at_most(ENOUGH), max_pixels)
        color = decoded.color
        if color.mode == "F":
            color = Image.fromarray(to_uint8(np.asarray(color))).convert("RGB")
        if decoded.alpha:
            white = Image.new("RGB", color.size, (BACKGROUND,) * 3)
            color = Image.composite(color, white, decoded.alpha)
        return color


def to_arrays(decoded):
    """Return (float32 H x W x 3, float32 H x W or None) of what decode() returns."""
    image = np.asarray(decoded.color, np.float32)
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    return image, None if decoded.alpha is None else np.asarray(decoded.alpha, np.float32)


def over_background(image, alpha):
    """Return H x W x 3 as it looks over white, where its alpha, H x W, is below 255."""
    return BACKGROUND + (image - BACKGROUND) * (alpha[:, :, None] / 255)


def at_most(pixels):
    """Return a target for decode(): the size halved until it has no more pixels than that."""

    def target(width, height):
        halvings = max(0, math.ceil(math.log2(width * height / pixels) / 2))
        return max(1, width >> halvings), max(1, height >> halvings)

    return target


def target_size(width, height, new_width=None, max_size=None):
    """Return the (width, height) to resize to: to `new_width`, or to a longest side of at most `max_size`."""
    if new_width:
        scale = new_width / width
    elif max_size and max(width, height) > max_size:
        scale = max_size / max(width, height)
    else:
        return width, height
    return max(1, round(width * scale)), max(1, round(height * scale))


# --- Resizing and writing ---


def resize_image(image, size):
    """Return H x W x C or H x W float32 resampled to `size` (height, width) by Lanczos, at full precision."""
    if image.ndim == 3:
        return np.dstack([resize_image(channel, size) for channel in np.moveaxis(image, 2, 0)])
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(resized), 0, 255)


def resize_to(image, alpha=None, width=None, max_size=None):
    """Return (image, alpha) at `width` pixels, or shrunk to `max_size` on the longest side; alpha may be None."""
    size = target_size(*image.shape[1::-1], width, max_size)[::-1]
    return (image, alpha) if size == image.shape[:2] else resize_with_alpha(image, alpha, size)


def resize_linear(image, size):
    """H x W x C, interpolated linearly to the first two numbers of `size`, exactly as the notebook of 2015.

    It computes scipy.ndimage.zoom(order=1), ten times as fast: rows first, then columns.
    """
    for axis, length in enumerate(size[:2]):
        last = image.shape[axis] - 1
        if length == last + 1:
            continue
        places = np.arange(length) * (last / max(length - 1, 1))  # the outermost samples stay the outermost
        before = np.minimum(places.astype(int), max(last - 1, 0))
        share = (places - before).astype(np.float32).reshape(-1, *[1] * (image.ndim - 1 - axis))
        image, after = image.take(before, axis), image.take(np.minimum(before + 1, last), axis)
        after -= image
        after *= share
        image += after
        if places[-1] > last:  # by rounding: SciPy's, and so the notebook's, last sample is then black
            image[(slice(None),) * axis + (-1,)] = 0
    return image


def resize_with_alpha(image, alpha, size):
    """Resize H x W x 3 and its alpha, H x W or None: colors weigh as much as they are seen."""
    if alpha is None:
        return resize_image(image, size), None
    weighed, alpha = resize_image(image * (alpha[:, :, None] / 255), size), resize_image(alpha, size)
    return np.clip(weighed * (255 / np.maximum(alpha, 1e-3))[:, :, None], 0, 255), alpha


def write_image(
    path: str | os.PathLike, image: np.ndarray, alpha: np.ndarray | None = None, quality: int = 95, **options
) -> None:
    """Write float32 H x W x 3 (0..255, rounded and clipped), with alpha H x W, or over white where the format has none.

    The suffix of `path` chooses PNG, JPEG or WebP; UserError otherwise. quality: 0..100, of JPEG and WebP.
    `options` go to Pillow's save().
    """
    path = Path(path)
    check_writable(path)
    levels = to_uint8(image)
    suffix = path.suffix.lower()
    if alpha is not None and suffix in (".jpg", ".jpeg"):
        levels = to_uint8(over_background(image, alpha))
    elif alpha is not None:
        levels = np.dstack([levels, to_uint8(alpha)])
    if suffix != ".png":
        options["quality"] = quality
    if suffix in (".jpg", ".jpeg"):
        options["subsampling"] = 0 if quality >= 90 else 2  # dreams live in saturated edges: keep their colour sharp
    with atomic_write(path) as temporary:
        Image.fromarray(levels).save(temporary, **options)


def check_writable(path):
    """Raise UserError now, before hours of work, if no image can be written under that name or in that place."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise UserError(f"{path}: cannot write {suffix or 'a picture without a suffix'}; use .png, .jpg or .webp")
    check_place(path)


def write_animation(path, frames, duration=100):
    """Write float32 H x W x 3 frames (0..255) as an animated .gif or .webp; each lasts `duration` ms, the last 2 s."""
    pictures = [Image.fromarray(to_uint8(frame)) for frame in frames]
    options = {"quality": 85} if Path(path).suffix.lower() == ".webp" else {"optimize": True}
    durations = [duration] * (len(pictures) - 1) + [2000]
    with atomic_write(path) as temporary:
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=durations, loop=0, **options)


def to_uint8(image):
    """Return floats of 0..255, rounded and clipped, as bytes."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


# The text that a picture carries: PNG text, or the EXIF comment of a JPEG or WebP

TEXT_KEY = "DeepDream-MLX"
MAX_TEXT = 1 << 20  # bytes
EXIF_IFD, USER_COMMENT, ASCII = 0x8769, 0x9286, b"ASCII\0\0\0"


def text_options(path, text):
    """Return what write_image(path, ...) takes as `options` to put a text into the file."""
    if Path(path).suffix.lower() == ".png":
        info = PngInfo()
        info.add_text(TEXT_KEY, text)
        return {"pnginfo": info}
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = ASCII + text.encode()
    return {"exif": exif.tobytes()}


def read_text(path):
    """Return the text in an image, "" where there is none. Raises ImageError where it is no image.

    No pixel is decoded for it: Pillow's `text` and getexif() of a PNG would look for what stands behind them.
    """
    with opened(path) as image:
        text = ""
        if image.format == "PNG":
            text = image.info.get(TEXT_KEY)
            text = text if isinstance(text, str) else text_behind_pixels(path)
        if not text and (image.format != "PNG" or "exif" in image.info):
            comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
            comment = comment.encode("latin-1", "replace") if isinstance(comment, str) else bytes(comment)
            text = comment.removeprefix(ASCII).decode("ascii", "replace")
    return text


def text_behind_pixels(path):
    """Return the text of a PNG from its last chunks, where other programs may have put it. Source: PNG, 11.3.3."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind not in (b"tEXt", b"iTXt") or length > MAX_TEXT:
                file.seek(length + 4, os.SEEK_CUR)
                continue
            name, _, rest = file.read(length).partition(b"\0")
            file.seek(4, os.SEEK_CUR)
            if name != TEXT_KEY.encode():
                continue
            if kind == b"tEXt":
                return rest.decode("latin-1")
            if rest[:1] == b"\0":  # iTXt that is not compressed: two numbers, the language, the translated name
                return rest[2:].split(b"\0", 2)[-1].decode("utf-8", "replace")
    return ""
