"""Colors that a file says are not sRGB, by its ICC profile or its gamma, converted to sRGB."""

import functools
import io
import struct

import numpy as np
from PIL import Image, ImageCms

GAMMA_TOLERANCE = 0.1  # of gamma times 2.2: nearer to 1, the difference from sRGB cannot be seen
PLAIN_MODES = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK", "LAB ": "LAB", "Lab ": "LAB"}


def to_srgb(image):
    """Return a PIL image of 8 bits and without alpha as RGB in sRGB.

    Its profile counts, or, in a PNG without one, its gamma. Without either, the numbers are taken as they are.
    """
    profile = read_profile(image.info)
    if profile is not None:
        converted = apply_profile(image, profile)
        if converted is not None:
            return converted
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), srgb(), outputMode="RGB")
    rgb = image.convert("RGB")
    gamma = None if profile is not None else file_gamma(image.info)
    if gamma:
        curve = np.rint(255 * encode_srgb((np.arange(256) / 255) ** (1 / gamma))).astype(int).tolist()
        rgb = rgb.point(curve * 3)
    return rgb


def grey_to_srgb(levels, info):
    """Return grey float32 H x W, 0..255, in sRGB: as to_srgb(), of more than 8 bits."""
    profile = read_profile(info)
    if profile is not None:
        curve = grey_curve(info["icc_profile"])
        if curve is None:
            ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
            converted = apply_profile(ramp, profile)
            if converted is None:
                return levels
            return np.interp(levels, np.arange(256), np.asarray(converted)[0, :, 1]).astype(np.float32)
        linear = np.interp(levels / 255, np.linspace(0, 1, len(curve)), curve)
    elif gamma := file_gamma(info):
        linear = (levels / 255) ** (1 / gamma)
    else:
        return levels
    return (255 * encode_srgb(linear)).astype(np.float32)


def encode_srgb(linear):
    """Return the sRGB values, 0..1, of linear light 0..1 (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


# --- ICC profiles ---


@functools.cache
def srgb():
    return ImageCms.createProfile("sRGB")


def read_profile(info):
    """Return the ICC profile of an image as ImageCms has it, or None where there is none or it is broken."""
    data = info.get("icc_profile")
    if not data:
        return None
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(data))
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None


def apply_profile(image, profile):
    """Return the image converted from its profile to sRGB, RGB; None where the profile does not fit it."""
    mode = PLAIN_MODES.get(profile.profile.xcolor_space)
    if mode is None or (mode != image.mode and (mode, image.mode) not in (("L", "1"), *RGB_FROM)):
        return None
    if image.mode != mode:
        image = image.convert(mode)
    try:
        return ImageCms.profileToProfile(image, profile, srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


# modes whose colors a profile of RGB can be about
RGB_FROM = tuple(("RGB", mode) for mode in ("P", "L", "1", "YCbCr", "RGBX"))


def grey_curve(data):
    """Return the curve of a grey ICC profile, linear light 0..1 of evenly spaced values, or None.

    Source: ICC.1:2022, 10.6 (curveType) and 10.18 (parametricCurveType).
    """
    try:
        if data[16:20] != b"GRAY":
            return None
        (count,) = struct.unpack_from(">I", data, 128)
        tags = {data[at : at + 4]: struct.unpack_from(">II", data, at + 4) for at in range(132, 132 + 12 * count, 12)}
        offset, length = tags[b"kTRC"]
        return decode_curve(data[offset : offset + length])
    except (KeyError, struct.error, ValueError, ZeroDivisionError):
        return None


def decode_curve(tag):
    x = np.linspace(0, 1, 4096)
    kind, (count,) = tag[:4], struct.unpack_from(">I", tag, 8)
    if kind == b"curv":
        if count == 0:
            return x
        values = np.array(struct.unpack_from(f">{count}H", tag, 12))
        return x ** (values[0] / 256) if count == 1 else values / 65535
    if kind != b"para":
        return None
    function = struct.unpack_from(">H", tag, 8)[0]
    count = (1, 3, 4, 5, 7)[function]
    g, a, b, c, d, e, f = [v / 65536 for v in struct.unpack_from(f">{count}i", tag, 12)] + [0.0] * (7 - count)
    if function == 0:
        return x**g
    if function in (1, 2):
        return np.where(x >= -b / a, np.maximum(a * x + b, 0) ** g, 0) + (c if function == 2 else 0)
    return np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)


# --- PNG's gamma ---


def file_gamma(info):
    """Return a PNG's gamma where it makes a visible difference from sRGB, or None. Source: PNG, 11.3.2.2 (gAMA)."""
    gamma = info.get("gamma")
    if not gamma or "srgb" in info or not 0.05 < gamma < 20 or abs(gamma * 2.2 - 1) < GAMMA_TOLERANCE:
        return None
    return gamma
