"""Paint a wide landscape whose clouds spell the project's name, dream on it, and write assets/deepdream_header.jpg.

python assets/make_banner.py
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

ASSETS = Path(__file__).parent
sys.path.insert(0, str(ASSETS.parent))

import models  # noqa: E402

from make_sample import colour, mix, noise, rng, smoothstep  # noqa: E402

from dataset.images import write_image  # noqa: E402
from dream import deepdream  # noqa: E402

WIDTH, HEIGHT, HORIZON = 1600, 480, 330
TEXT = "DEEPDREAM"


def letters(text, size, top):
    """The text as a mask HEIGHT x WIDTH, 0..1, centred, its capitals beginning at row `top`."""
    font = ImageFont.load_default(size)
    sheet = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(sheet)
    spaced = [font.getlength(letter) + 14 for letter in text]
    x = (WIDTH - sum(spaced) + 14) / 2
    for letter, width in zip(text, spaced, strict=True):
        draw.text((x, top), letter, 255, font, stroke_width=9, stroke_fill=255, anchor="lt")
        x += width
    return np.asarray(sheet) / 255.0


def cloud(mask, field, grain):
    """Density 0..1 of a cloud that fills `mask` and frays at its edge."""
    inside = ndimage.distance_transform_edt(mask > 0.5)
    outside = ndimage.distance_transform_edt(mask <= 0.5)
    depth = inside - outside
    return smoothstep(depth + 26 * (field - 0.5) + 10 * (grain - 0.5), -5, 9)


def sky():
    """A morning sky, H x W x 3, with thin clouds and those that spell the name."""
    rows = np.linspace(0, 1, HEIGHT)[:, None] * np.ones(WIDTH)
    image = mix(colour(30, 74, 150), colour(222, 226, 224), smoothstep(rows, 0, HORIZON / HEIGHT))
    field, grain = noise(HEIGHT, WIDTH, 60, octaves=5), noise(HEIGHT, WIDTH, 14, octaves=4)
    wisps = noise(HEIGHT, WIDTH * 2, 120, octaves=7, roughness=0.55)[:, ::2]
    thin = smoothstep(wisps, 0.52, 0.8) * 0.55 * smoothstep(rows, 0.02, 0.4)
    image = mix(image, colour(238, 238, 240), thin)
    mask = letters(TEXT, 210, 70)
    density = cloud(mask, field, grain)
    soft = ndimage.gaussian_filter(density, 9)
    lit = 0.62 + 2.2 * (soft - ndimage.shift(soft, (9, 7), order=1)) + 0.9 * (field - 0.5) + 0.35 * (grain - 0.5)
    body = mix(colour(150, 160, 184), colour(255, 252, 244), np.clip(lit, 0, 1))
    return mix(image, body, density)


def hills(image):
    """Lay wooded ridges over an image, the nearest last."""
    ridges = [
        (HORIZON - 16, 62, colour(134, 152, 180)),
        (HORIZON + 14, 56, colour(92, 122, 130)),
        (HORIZON + 52, 46, colour(62, 98, 70)),
        (HORIZON + 96, 40, colour(58, 84, 40)),
    ]
    rows = np.arange(HEIGHT)[:, None]
    for i, (base, height, tint) in enumerate(ridges):
        profile = base - height * (noise(8, WIDTH, 240 - 35 * i, octaves=6)[4] - 0.5) * 2
        woods = noise(HEIGHT, WIDTH, 10 + 8 * i, octaves=4, roughness=0.75) - 0.5
        inside = smoothstep(rows - profile[None, :] + 5 * i * woods, -1, 1)
        haze = np.clip((rows - profile[None, :]) / 130, 0, 1)
        shade = 1 + (0.25 + 0.28 * i) * woods * 1.6 - 0.22 * (1 - haze)
        image = mix(image, tint * shade[..., None], inside)
    return image


if __name__ == "__main__":
    image = hills(sky()) + rng.normal(0, 2.5, (HEIGHT, WIDTH))[..., None]  # grain
    image = np.clip(image, 0, 255).astype(np.float32)
    dreamed = deepdream(models.load("googlenet", weights=models.STARTER), image, layers=["inception4b"])
    write_image(ASSETS / "deepdream_header.jpg", dreamed, quality=85)
