"""From what a decoder gives to one kind of image: upright, sRGB, 8 bits or floating-point grey, alpha apart."""

import math
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from dataset.colorspace import grey_to_srgb, to_srgb
from dataset.opening import ImageError, opened

MEMORY_LIMIT = 2_000_000_000  # bytes; what takes more while it is decoded is not unpacked, in any script
# measured, at most, of large images that are reduced in bands: 4.8 of a PNG or BMP, 6.3 of a progressive JPEG
BYTES_PER_PIXEL = 6
MORE_BYTES = {"AVIF": 12, "HEIF": 12, "WEBP": 8}  # 10.2, and 7.5 with alpha by FFmpeg
MOVING_BYTES = 32  # of Pillow's decoders of animations
PILLOW_WEBP_BYTES = 22  # of Pillow's for WebP, for it is ready for animations
LARGE = 16_000_000  # pixels; larger images are reduced while they are decoded, where they are going to be shrunk
BAND = 1 << 22  # pixels of a large image that are converted at a time

ORIENTATION = 0x0112
TURNS = {  # EXIF orientation: how to set the image upright
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
DEEP_MODES = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}  # Pillow's grey of more than 8 bits

# TIFF tags and values. Source: TIFF 6.0
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0


@dataclass
class Decoded:
    """color: PIL image of mode RGB, or of mode F with grey levels 0..255; alpha: mode L, or None where all is opaque.

    size: (width, height) of the upright image in the file, of which these may be a reduced copy.
    """

    color: Image.Image
    alpha: Image.Image | None
    size: tuple


def decode(path, target=None, max_pixels=None):
    """Read an image file to its last pixel; returns Decoded.

    target: a function (width, height) -> (width, height) of what the caller needs at least: LARGE images are reduced
    to not less than that while they are decoded. max_pixels: what is larger is refused.
    Raises ImageError where there is no such file, it is no whole image, or it takes more than MEMORY_LIMIT.
    """
    with opened(path) as image:
        size = upright_size(image)
        check_pixels(path, size, max_pixels)
        factor = start_reduced(image, size, target) if target and math.prod(size) > LARGE else 1
        check_memory(path, image, size, MOVING_BYTES if image.format == "WEBP" and is_animated(image) else None)
        rawmode = image.tile[0].args if image.tile else None
        low_bytes = read_low_bytes(path) if rawmode == "RGB;16B" and "transparency" in image.info else None
        orientation = read_orientation(image)
        if image.format == "WEBP" and (factor > 1 or math.prod(image.size) * PILLOW_WEBP_BYTES > MEMORY_LIMIT):
            reduced = read_reduced_webp(path, image, factor)
            image, factor = (reduced, 1) if reduced else (image, factor)
        image.load()
        orientation = {"TIFF": 1, "PNG": read_orientation(image)}.get(image.format, orientation)
        color, alpha = convert(image, rawmode, low_bytes, factor)
        if orientation in TURNS:
            color = color.transpose(TURNS[orientation])
            alpha = alpha.transpose(TURNS[orientation]) if alpha else None
        size = size if (size[0] < size[1]) == (color.width < color.height) else size[::-1]
        return Decoded(color, alpha, size)


def decode_frames(path):
    """Yield (Decoded, milliseconds that it is shown) of each frame of an animation. Raises ImageError."""
    with opened(path) as image:
        check_memory(path, image, image.size, MOVING_BYTES)
        first = 1 if image.info.get("default_image") else 0  # of an APNG: what is shown where nothing moves
        for n in range(first, image.n_frames):
            image.seek(n)
            image.load()
            color, alpha = convert(image, None, None, 1)
            yield Decoded(color, alpha, color.size), float(image.info.get("duration", 0))


def is_animation(path):
    """Return whether an image file holds more than one frame to be shown in turn. Raises ImageError."""
    with opened(path) as image:
        return is_animated(image)


def is_animated(image):
    try:
        return image.format in ("GIF", "PNG", "WEBP", "AVIF") and image.is_animated
    except Exception:  # a broken second frame
        return False


# --- Orientation and size ---


def read_orientation(image):
    """Return EXIF's orientation, 1 to 8, whatever else is wrong with the EXIF.

    In a PNG it may stand behind the pixels, and is known only after they are loaded.
    """
    if image.format == "PNG" and image.tile and "exif" not in image.info:
        return 1  # getexif() would load them
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
        if image.format == "HEIF" and image.info.get("original_orientation"):
            orientation = exif_orientation_of_heif(image)
        orientation = int(orientation)  # some write text, or a fraction
    except Exception:
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def exif_orientation_of_heif(image):
    """Return the EXIF orientation of a HEIC, which counts where the file has no transformation of its own (ISO/IEC
    23008-12, 6.5.10 and 6.5.12); pillow-heif has done what that says."""
    start = image.fp.tell()
    image.fp.seek(0)
    boxes = image.fp.read(1 << 16)
    image.fp.seek(start)
    return 1 if b"irot" in boxes or b"imir" in boxes else image.info["original_orientation"]


def upright_size(image):
    """Return (width, height) as the image will be shown; of a TIFF Pillow tells no other."""
    return image.size[::-1] if read_orientation(image) > 4 and image.format != "TIFF" else image.size


def start_reduced(image, size, target):
    """Return the whole number by which to reduce a large image, after libjpeg has been told to do what it can."""
    wanted = target(*size)
    turned = upright_size(image) != image.size
    if image.format in ("JPEG", "MPO"):  # decoded at a half, a quarter or an eighth
        image.draft(image.mode, wanted[::-1] if turned else wanted)
    sides = zip(sorted(image.size), sorted(wanted), strict=True)
    return max(1, min(have // max(1, need) for have, need in sides))


def check_pixels(path, size, max_pixels):
    if max_pixels and math.prod(size) > max_pixels:
        message = f"{size[0]} x {size[1]} is more than {max_pixels:,} pixels; it is not read"
        raise ImageError(path, "too large", message)


def check_memory(path, image, size, each=None):
    """Raise ImageError where decoding takes more than MEMORY_LIMIT; each: bytes a pixel, if not those of the format."""
    # a progressive JPEG is kept whole until its last pixel, however small it is drafted
    decoded = size if image.info.get("progressive") else image.size
    each = each or MORE_BYTES.get(image.format, BYTES_PER_PIXEL)
    if image.format == "TIFF" and image.info.get("compression", "raw") != "raw":  # libtiff maps the file
        each += os.path.getsize(path) / max(1, math.prod(decoded))
    if math.prod(decoded) * each > MEMORY_LIMIT:
        message = f"{size[0]} x {size[1]} are too many pixels: of such a picture at most "
        message += f"{MEMORY_LIMIT / each / 1e6:.0f} megapixels are read; shrink it with another program first"
        raise ImageError(path, "too large", message)


def read_reduced_webp(path, image, factor):
    """Return a large WebP reduced by FFmpeg, or None where that does not read it.

    Raises ImageError where Pillow's decoder would take too much, too.
    """
    import av  # 0.1 s

    try:
        with open(path, "rb") as file, av.open(file, format="webp_pipe") as container:
            frame = next(container.decode(video=0))
            kind = "rgba" if "a" in frame.format.name else "rgb24"
            size = [-(-side // factor) for side in image.size]
            reduced = frame.reformat(*size, kind, interpolation="AREA").to_ndarray()
    except Exception:  # an animation, say
        check_memory(path, image, image.size, PILLOW_WEBP_BYTES)
        return None
    return keep_info(Image.fromarray(reduced), image)


# --- Converting ---


def convert(image, rawmode, low_bytes, factor):
    """Return (color, alpha) of a loaded PIL image, as Decoded has them, reduced by a whole `factor`.

    In bands, so that a large image is never there twice.
    """
    scale = deep_scale(image, rawmode) if image.mode in DEEP_MODES else None
    if low_bytes:
        image = with_deep_key(image, low_bytes)
    rows = image.height if factor == 1 else max(factor, BAND // image.width // factor * factor)
    pieces = []
    for top in range(0, image.height, rows):
        band = image if factor == 1 else image.crop((0, top, image.width, min(top + rows, image.height)))
        band.format = image.format
        color, alpha = split_alpha(band, rawmode)
        color = grey_levels(color, scale) if scale else to_srgb(color)
        pieces.append(reduce_band(color, alpha, factor))
    color = stack([color for color, _ in pieces])
    if pieces[0][1] is None:
        return color, None
    alpha = stack([alpha for _, alpha in pieces])
    least, most = alpha.getextrema()
    unused = least == 255 or (image.format == "BMP" and most == 0)  # programs that know no alpha leave zeros there
    return color, (None if unused else alpha)


def reduce_band(color, alpha, factor):
    if factor == 1:
        return color, alpha
    if alpha is None or color.mode == "F":
        return color.reduce(factor), alpha and alpha.reduce(factor)
    color.putalpha(alpha)
    small = color.reduce(factor)  # colors weighed by their alpha
    return small.convert("RGB"), small.getchannel("A")


def stack(bands):
    if len(bands) == 1:
        return bands[0]
    image = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    top = 0
    for band in bands:
        image.paste(band, (0, top))
        top += band.height
    return image


def split_alpha(image, rawmode):
    """Return (image without alpha, alpha of mode L or None), whichever way the format tells what is transparent."""
    mode, key = image.mode, image.info.get("transparency")
    if mode in ("RGBa", "La"):
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[mode])
    elif mode == "PA" or (mode == "P" and image.has_transparency_data):
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA"):
        color = keep_info(image.convert("RGB" if image.mode == "RGBA" else "L"), image)
        return color, image.getchannel("A")
    if key is None or mode == "P":
        return image, None
    return image, alpha_of_key(image, key, rawmode)


def keep_info(converted, image):
    converted.info = {name: value for name, value in image.info.items() if name != "transparency"}
    converted.format = image.format
    return converted


def alpha_of_key(image, key, rawmode):
    """Return the alpha of an image in which one color is transparent, or None. Source: PNG, 11.3.1.1 (tRNS)."""
    levels = np.asarray(image)
    if image.mode == "RGB" and isinstance(key, tuple) and len(key) == 3:
        if max(key) > 255:
            key = tuple(value >> 8 for value in key)
        transparent = (levels == np.array(key, np.uint8)).all(axis=2)
    elif image.mode in ("1", "L", "I", *DEEP_MODES) and isinstance(key, int):
        # the key counts in the file's levels, of which there may be 2, 4 or 16
        key *= {"L;2": 85, "L;4": 17}.get(rawmode, 1)
        transparent = levels.astype(np.uint8) * 255 == key if image.mode == "1" else levels == key
    else:
        return None
    return Image.fromarray(np.where(transparent, np.uint8(0), np.uint8(255)))


def with_deep_key(image, low_bytes):
    """Return RGBA of a PNG of 3 x 16 bits in which one color is transparent; the image holds their upper 8 bits."""
    key = np.array(image.info["transparency"], np.uint16)
    transparent = ((np.asarray(image) == key >> 8) & (np.asarray(low_bytes) == key & 255)).all(axis=2)
    rgba = keep_info(image.copy(), image)
    rgba.putalpha(Image.fromarray(np.where(transparent, np.uint8(0), np.uint8(255))))
    return rgba


def read_low_bytes(path):
    """Decode a PNG of 3 x 16 bits to the lower byte of each value; Pillow's own decoding keeps the upper."""
    with open(path, "rb") as file, Image.open(file, formats=("PNG",)) as image:
        image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
        image.load()
        return image


def deep_scale(image, rawmode):
    """Return (a, b): level 0..255 = a * value + b of grey of more than 8 bits."""
    if image.format == "PNG":
        return 255 / 65535, 0
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, (16,))[0]
    if image.mode != "F" and 8 < bits < 16:
        return 255 / (2**bits - 1), 0
    step = max(1, BAND // image.width)
    highest = 0
    for top in range(0, image.height, step):
        band = np.asarray(image.crop((0, top, image.width, min(top + step, image.height))), np.float32)
        highest = max(highest, float(band[np.isfinite(band)].max(initial=0)))
    if image.mode == "F" and highest <= 2:  # 0..1, and perhaps a little beyond
        scale = 255
    elif highest <= 255:
        scale = 1
    else:
        scale = 1 / 257 if highest <= 65535 else 255 / highest
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and image.mode.startswith("I;16"):
        return -scale, 65535 * scale if scale < 1 else 255
    return scale, 0


def grey_levels(image, scale):
    """Return grey of more than 8 bits as a PIL image of mode F, 0..255, sRGB."""
    levels = np.nan_to_num(np.asarray(image, np.float32), posinf=np.finfo(np.float32).max)
    levels = np.clip(levels * np.float32(scale[0]) + np.float32(scale[1]), 0, 255)
    return Image.fromarray(grey_to_srgb(levels, image.info))
