"""Pictures to arrays and back: the one reader and the one writer of image files.

An image is a float32 array H x W x 3, sRGB, 0..255.
"""

import warnings
from pathlib import Path

import numpy as np

from dataset.cli import UserError
from dataset.files import atomic_write

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".heif"}
# Pillow knows more; among them EPS, for which it runs Ghostscript, whatever the file is called
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
WRITABLE = {".png", ".jpg", ".jpeg", ".webp"}
GREY_LEVELS = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}  # Pillow's modes of more than 8 bits
MAX_PIXELS = 1_000_000_000  # more than any camera; beyond it a file is taken for a decompression bomb


class PictureError(UserError):
    """A file that is no whole picture; `reason` says in a word or two what is wrong, without its path."""

    def __init__(self, path, reason, detail):
        super().__init__(f"{path}: {detail}")
        self.reason = reason


def read_image(path, max_pixels=MAX_PIXELS):
    """The picture at `path` as float32 H x W x 3, 0..255; alpha, if any, is left out.

    Raises PictureError where there is no such file, or it is no whole picture.
    """
    return read_image_and_alpha(path, max_pixels)[0]


def read_image_and_alpha(path, max_pixels=MAX_PIXELS):
    """(image, alpha): float32 H x W x 3 and H x W or None, both 0..255.

    EXIF orientation is obeyed; palette, grey, 16-bit, CMYK and colour-managed pictures become sRGB.
    """
    picture = open_picture(path, max_pixels)
    alpha = None
    if has_alpha(picture):
        rgba = picture.convert("RGBA")
        alpha = np.asarray(rgba.getchannel("A"), np.float32)
        picture = rgba.convert("RGB")
        alpha = None if alpha.min() == 255 else alpha
    elif picture.mode in GREY_LEVELS:
        return np.repeat(grey_levels(picture)[:, :, None], 3, axis=2), None
    return np.asarray(picture.convert("RGB"), np.float32), alpha


def read_picture(path, max_pixels=MAX_PIXELS):
    """What read_image reads, as an 8-bit RGB PIL image: a quarter of the memory."""
    from PIL import Image

    picture = open_picture(path, max_pixels)
    if picture.mode in GREY_LEVELS:
        return Image.fromarray(np.rint(grey_levels(picture)).astype(np.uint8)).convert("RGB")
    if has_alpha(picture):
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def has_alpha(picture):
    return picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info


def open_picture(path, max_pixels=MAX_PIXELS):
    """A PIL image, decoded to the last pixel, upright, in sRGB if it said what its colours were."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    path, formats = Path(path), FORMATS
    if path.suffix.lower() in (".heic", ".heif"):
        register_heif(path)
        formats = (*FORMATS, "HEIF")
    Image.MAX_IMAGE_PIXELS = None  # our own limit below; PIL's would warn at 89 megapixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF is not worth a warning: the pixels count
            picture = Image.open(path, formats=formats)
            width, height = picture.size
            if width * height > max_pixels:
                raise PictureError(
                    path, "too large", f"{width} x {height} is more than {max_pixels:,} pixels; it is not read"
                )
            picture.load()
            return ImageOps.exif_transpose(to_srgb(picture))
    except FileNotFoundError:
        raise PictureError(path, "no such file", "no such file") from None
    except IsADirectoryError:
        raise PictureError(path, "not a picture", "is a folder, not a picture") from None
    except PermissionError:
        raise PictureError(path, "no permission", "no permission to read it") from None
    except UnidentifiedImageError:
        raise PictureError(path, "not a picture", "not a picture that can be read") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError, OverflowError) as error:
        # what Pillow's decoders raise on broken files; the text is theirs
        raise PictureError(path, "broken", f"broken picture: {error}") from None


def register_heif(path):
    try:
        import pillow_heif
    except ImportError:
        raise PictureError(path, "needs pillow-heif", "HEIC pictures need `pip install pillow-heif`") from None
    pillow_heif.register_heif_opener()


def to_srgb(picture):
    """Colours of another profile (Display P3 from a phone, Adobe RGB, CMYK) converted to sRGB."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in ("RGB", "RGBA", "CMYK"):
        return picture
    import io

    from PIL import ImageCms

    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        return picture  # a broken profile: take the numbers as they are
    converted.info.pop("icc_profile", None)
    return converted


def grey_levels(picture):
    """0..255 float32 from 16-bit, 32-bit or floating-point grey."""
    levels = np.asarray(picture, np.float32)
    if picture.mode == "F":
        levels = np.nan_to_num(levels)
        return np.clip(levels * (255 if levels.max() <= 1 else 1), 0, 255)
    return np.clip(levels / (257 if levels.max() > 255 else 1), 0, 255)


def resize_image(image, size):
    """H x W x C or H x W float32, resampled to `size` (height, width) by Lanczos, without a detour through 8 bits."""
    from PIL import Image

    if image.ndim == 3:
        return np.dstack([resize_image(channel, size) for channel in np.moveaxis(image, 2, 0)])
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.clip(np.asarray(resized), 0, 255)


def resize_to(image, alpha=None, width=None, max_size=None):
    """Return (image, alpha) at `width` pixels, or shrunk to `max_size` on the longest side; alpha may be None."""
    longest = max(image.shape[:2])
    if width:
        scale = width / image.shape[1]
    elif max_size and longest > max_size:
        scale = max_size / longest
    else:
        return image, alpha
    size = [max(1, round(side * scale)) for side in image.shape[:2]]
    return resize_image(image, size), None if alpha is None else resize_image(alpha, size)


def resize_linear(image, size):
    """H x W x C, interpolated linearly to the first two numbers of `size`, exactly as the notebook of 2015."""
    from scipy import ndimage

    if image.shape[:2] == tuple(size[:2]):
        return image
    return ndimage.zoom(image, (size[0] / image.shape[0], size[1] / image.shape[1], 1), order=1)


def write_image(path, image, alpha=None, quality=95, **options):
    """Write float32 H x W x 3 (0..255, rounded and clipped), with alpha H x W where the format has it.

    The suffix of `path` chooses PNG, JPEG or WebP; UserError otherwise. `options` go to Pillow's save().
    """
    from PIL import Image

    path = Path(path)
    check_writable(path)
    levels = to_uint8(image)
    suffix = path.suffix.lower()
    if alpha is not None and suffix not in (".jpg", ".jpeg"):
        levels = np.dstack([levels, to_uint8(alpha)])
    if suffix != ".png":
        options["quality"] = quality
    if suffix in (".jpg", ".jpeg"):
        options["subsampling"] = 0 if quality >= 90 else 2  # dreams live in saturated edges: keep their colour sharp
    with atomic_write(path) as temporary:
        Image.fromarray(levels).save(temporary, **options)


def check_writable(path):
    """Raise UserError now, before hours of work, if no picture can be written under that name."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise UserError(f"{path}: cannot write {suffix or 'a picture without a suffix'}; use .png, .jpg or .webp")


def write_animation(path, frames, duration=100):
    """Write float32 H x W x 3 frames (0..255) as an animated .gif or .webp; each lasts `duration` ms, the last 2 s."""
    from PIL import Image

    pictures = [Image.fromarray(to_uint8(frame)) for frame in frames]
    options = {"quality": 85} if Path(path).suffix.lower() == ".webp" else {"optimize": True}
    durations = [duration] * (len(pictures) - 1) + [2000]
    with atomic_write(path) as temporary:
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=durations, loop=0, **options)


def to_uint8(image):
    """Floats of 0..255, rounded and clipped, as bytes."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


# The text that a picture carries: PNG text, or the EXIF comment of a JPEG or WebP

TEXT_KEY = "DeepDream-MLX"
EXIF_IFD, USER_COMMENT, ASCII = 0x8769, 0x9286, b"ASCII\0\0\0"


def text_options(path, text):
    """Return what write_image(path, ...) takes as `options` to put a text into the file."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if Path(path).suffix.lower() == ".png":
        info = PngInfo()
        info.add_text(TEXT_KEY, text)
        return {"pnginfo": info}
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = ASCII + text.encode()
    return {"exif": exif.tobytes()}


def read_text(path):
    """Return the text in a picture, "" where there is none. Raises UserError where it is no picture."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            text = getattr(picture, "text", {}).get(TEXT_KEY)
            if text is None:
                comment = picture.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
                comment = comment.encode("latin-1") if isinstance(comment, str) else bytes(comment)
                text = comment.removeprefix(ASCII).decode("ascii", "replace")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, TypeError, EOFError):
        raise UserError(f"{path}: not a picture that can be read") from None
    return text
