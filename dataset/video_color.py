"""From what a video decoder gives to an image: upright, square pixels, sRGB, 0..255.

HDR is tone-mapped: PQ and HLG (ITU-R BT.2100) are brought to 8-bit sRGB by the curve of ITU-R BT.2390.
"""

import functools
import struct

import numpy as np

from dataset.colorspace import encode_srgb
from dataset.images import over_background, resize_image

# FFmpeg's numbers, which are those of ITU-T H.273
UNSPECIFIED = 2
BT2020, DCI_P3, DISPLAY_P3 = 9, 11, 12  # primaries
LINEAR, PQ, HLG = 8, 16, 18  # transfer characteristics
HDR_NAMES = {PQ: "PQ", HLG: "HLG"}

# linear RGB to linear BT.709. Source: the primaries of ITU-R BT.2020 and SMPTE EG 432-1, white D65
TO_BT709 = {
    BT2020: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    DISPLAY_P3: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}
TO_BT709[DCI_P3] = TO_BT709[DISPLAY_P3]
LUMA_BT2020 = (0.2627, 0.6780, 0.0593)

HDR_PEAK = 1000  # nits; brighter light is white
# nits that become level 255: then the white of paper, 203 nits (ITU-R BT.2408), becomes level 236, and grey of 18 %, 26
# nits, becomes 117, as in SDR
SDR_PEAK = 145
HLG_PEAK, HLG_GAMMA = 1000, 1.2  # nits of the display that HLG is defined for, and its system gamma


# --- Geometry ---


def orientation_of(frame):
    """Return (transposed, flipped left to right, flipped upside down): how a decoded frame becomes upright.

    From the display matrix, of which the first four numbers turn and mirror: (x, y) goes to (ax + cy, bx + dy).
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None or len(bytes(data)) < 36:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
    across, along = min(abs(b), abs(c)), min(abs(a), abs(d))
    if across > 4 * max(abs(a), abs(d)):
        return True, c < 0, b < 0
    if along > 4 * max(abs(b), abs(c)):
        return False, a < 0, d < 0
    return False, False, False  # by another angle: it is shown as it is


def rotation_of(orientation):
    """Return the degrees, counter-clockwise, that an orientation turns by; 0 where it mirrors, too."""
    return {(False, True, True): 180, (True, True, False): -90, (True, False, True): 90}.get(orientation, 0)


def set_upright(image, orientation):
    """Return an image, H x W x 3, transposed and flipped as orientation_of() says."""
    transposed, flipped, upside_down = orientation
    image = image.swapaxes(0, 1) if transposed else image
    image = image[:, ::-1] if flipped else image
    return image[::-1] if upside_down else image


def square_size(height, width, shape):
    """Return (height, width) with square pixels of an image whose pixels are `shape` times as wide as high."""
    if shape > 1:
        return height, max(1, round(width * shape))
    return max(1, round(height / shape)), width


# --- Color ---


def to_image(frame, size, orientation, square=None):
    """Return a decoded frame as float32 H x W x 3, sRGB, 0..255, upright.

    size: (height, width) that the frame is brought to first, since those of a video can change on the way.
    square: (height, width) of the upright image with square pixels; None: its pixels keep their shape.
    """
    if frame.color_trc in HDR_NAMES:
        levels = tone_map(to_rgb(frame, size, "rgb48le"), frame.color_trc, frame.color_primaries)
    elif any(component.is_alpha for component in frame.format.components):
        levels = to_rgb(frame, size, "rgba").astype(np.float32)
        levels = over_background(levels[..., :3], levels[..., 3])
    else:
        levels = to_rgb(frame, size, "rgb24")
    if frame.color_trc not in HDR_NAMES and (frame.color_trc == LINEAR or frame.color_primaries in TO_BT709):
        levels = to_srgb(levels, frame.color_trc == LINEAR, frame.color_primaries)
    image = np.ascontiguousarray(set_upright(levels, orientation), np.float32)
    return image if square in (None, image.shape[:2]) else resize_image(image, square)


def to_rgb(frame, size, pixels):
    """Return a frame as RGB of a pixel format, by the matrix and range that it names, or that players guess."""
    guess = "ITU709" if frame.width >= 1280 or frame.height > 576 else "ITU601"
    if frame.color_trc in HDR_NAMES:
        guess = "BT2020"
    height, width = size
    if frame.colorspace != UNSPECIFIED:
        try:
            return frame.to_ndarray(format=pixels, width=width, height=height)
        except Exception:  # a matrix that FFmpeg does not know
            pass
    return frame.to_ndarray(format=pixels, width=width, height=height, src_colorspace=guess)


def to_srgb(levels, linear, primaries):
    """Return levels 0..255 of other primaries, or of linear light, in sRGB."""
    light = levels.astype(np.float32) / 255
    if not linear:
        light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    if primaries in TO_BT709:
        light = light @ np.float32(TO_BT709[primaries]).T
    return 255 * encode_srgb(np.clip(light, 0, 1))


def tone_map(code, transfer, primaries=BT2020):
    """Return uint16 RGB of PQ or HLG as sRGB, 0..255.

    The brightest channel of each pixel is brought down by the curve, the others with it, so that the hue stays.
    """
    light = light_table(transfer)[code]
    if transfer == HLG:  # scene light; a display makes it brighter the brighter it is
        luma = light @ np.float32(LUMA_BT2020)
        light *= (HLG_PEAK * luma ** np.float32(HLG_GAMMA - 1))[..., None]
    brightest = light.max(axis=2, keepdims=True)
    nits, mapped = rolloff_table()
    ratio = np.interp(brightest, nits, mapped).astype(np.float32) / np.maximum(brightest, 1e-4)
    matrix = TO_BT709.get(BT2020 if primaries == UNSPECIFIED else primaries)
    if matrix:
        light = light @ np.float32(matrix).T
    return 255 * encode_srgb(np.clip(light * ratio / SDR_PEAK, 0, 1))


@functools.cache
def light_table(transfer):
    """Return the light of each of 65536 signal levels: nits for PQ, 0..1 of the scene's for HLG. Source: BT.2100."""
    signal = np.arange(65536) / 65535
    if transfer == PQ:
        return pq_to_nits(signal).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


@functools.cache
def rolloff_table():
    """Return (nits, nits that they become on an SDR display). Source: ITU-R BT.2390, 5.4 (Hermite spline in PQ)."""
    source, target = nits_to_pq(HDR_PEAK), nits_to_pq(SDR_PEAK)
    signal = np.linspace(0, 1, 4096)
    highest = target / source
    knee = 1.5 * highest - 0.5
    t = np.clip((signal - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * highest
    return pq_to_nits(signal * source), pq_to_nits(np.where(signal < knee, signal, spline) * source)


# SMPTE ST 2084
M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def pq_to_nits(signal):
    """Return the nits of PQ signals 0..1."""
    power = np.asarray(signal, np.float64) ** (1 / M2)
    return 10000 * (np.maximum(power - C1, 0) / (C2 - C3 * power)) ** (1 / M1)


def nits_to_pq(nits):
    """Return the PQ signal, 0..1, of nits."""
    power = (np.asarray(nits, np.float64) / 10000) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2
