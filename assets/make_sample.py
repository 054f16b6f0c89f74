"""Paint assets/sample.jpg: clouds over hills, which DeepDream loves, from noise alone.

python assets/make_sample.py
"""

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

ASSETS = Path(__file__).parent
sys.path.insert(0, str(ASSETS.parent))

from dataset.images import write_image  # noqa: E402

WIDTH, HEIGHT, HORIZON = 768, 512, 300
rng = np.random.default_rng(2015)


def noise(height, width, scale, octaves=7, roughness=0.5):
    """Fractal noise, 0..1: smooth random fields, each twice as fine as the one before and `roughness` as strong."""
    total, weight = np.zeros((height, width)), 1.0
    for _ in range(octaves):
        coarse = rng.random((max(4, int(height / scale) + 4), max(4, int(width / scale) + 4)))
        factors = (height / (coarse.shape[0] - 3), width / (coarse.shape[1] - 3))
        total += weight * ndimage.zoom(coarse, factors, order=3)[:height, :width]
        scale, weight = max(scale / 2, 1.0), weight * roughness
    return (total - total.min()) / np.ptp(total)


def smoothstep(x, low, high):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a, b, t):
    return a + (b - a) * t[..., None]


def colour(*levels):
    return np.array(levels, np.float64)


def sky():
    """A blue that pales towards the horizon, and clouds that flatten towards it, lit from the upper left."""
    rows = np.linspace(0, 1, HEIGHT)[:, None] * np.ones(WIDTH)
    image = mix(colour(48, 98, 172), colour(205, 222, 232), smoothstep(rows, 0, HORIZON / HEIGHT))
    field = noise(900, 2700, 90, octaves=7, roughness=0.55)
    depth = 1 / (1.15 - np.arange(HORIZON) / HORIZON)  # clouds lie on a plane overhead
    y = (depth[:, None] * 120) * np.ones(WIDTH)
    x = 1350 + (np.arange(WIDTH) - WIDTH / 2)[None, :] * depth[:, None] * 0.5
    cover = ndimage.map_coordinates(field, [y, x], order=1)
    lit = ndimage.map_coordinates(field, [y - 9, x - 9], order=1, mode="nearest")
    density = smoothstep(cover, 0.44, 0.6)
    light = np.clip(0.72 + 3.2 * (cover - lit), 0, 1)
    clouds = mix(colour(128, 140, 160), colour(255, 250, 242), light)
    image[:HORIZON] = mix(image[:HORIZON], clouds, density)
    return image


def hills(image):
    """Ridges from far and blue to near and green, each wooded more coarsely than the one behind."""
    ridges = [(HORIZON - 62, 60, colour(128, 152, 178)), (HORIZON - 28, 52, colour(92, 122, 128)),
              (HORIZON + 14, 44, colour(66, 98, 68)), (HORIZON + 66, 40, colour(58, 84, 40))]  # fmt: skip
    rows = np.arange(HEIGHT)[:, None]
    for i, (base, height, tint) in enumerate(ridges):
        profile = base - height * (noise(8, WIDTH, 180 - 25 * i, octaves=6)[4] - 0.5) * 2
        woods = noise(HEIGHT, WIDTH, 10 + 8 * i, octaves=4, roughness=0.75) - 0.5
        inside = smoothstep(rows - profile[None, :] + 5 * i * woods, -1, 1)
        haze = np.clip((rows - profile[None, :]) / 130, 0, 1)
        shade = 1 + (0.25 + 0.28 * i) * woods * 1.6 - 0.22 * (1 - haze)
        image = mix(image, tint * shade[..., None], inside)
    return image


def meadow(image):
    """Grass in front, streaked sideways and brighter where the sun falls, with flowers."""
    top = 412 + 16 * (noise(8, WIDTH, 240, octaves=4)[4] - 0.5)
    depth = np.clip((np.arange(HEIGHT)[:, None] - top[None, :]) / (HEIGHT - 412), 0, 1)
    blades = ndimage.gaussian_filter(rng.random((HEIGHT, WIDTH)), (2.6, 0.7))
    blades = (blades - blades.mean()) / blades.std()
    patches = noise(HEIGHT, WIDTH, 90, octaves=5)
    grass = mix(colour(74, 98, 38), colour(158, 164, 74), smoothstep(patches, 0.25, 0.75))
    grass = grass * (1 + (0.08 + 0.2 * depth) * blades)[..., None]
    image = mix(image, grass, smoothstep(depth, 0, 0.03))
    for _ in range(420):
        y = int(rng.uniform(0.08, 1) ** 0.7 * (HEIGHT - 424)) + 422
        x, radius = rng.integers(WIDTH), 0.6 + 2.2 * (y - 420) / (HEIGHT - 420)
        tint = [colour(238, 232, 220), colour(232, 196, 60), colour(196, 70, 62)][rng.integers(3)]
        ys, xs = np.ogrid[:HEIGHT, :WIDTH]
        disc = np.exp(-((((ys - y) / radius) ** 2 + ((xs - x) / (radius * 1.3)) ** 2) ** 2))
        image = mix(image, tint, disc)
    return image


if __name__ == "__main__":
    picture = meadow(hills(sky()))
    picture += rng.normal(0, 2.5, picture.shape[:2])[..., None]  # film grain, which dreams grow from
    write_image(ASSETS / "sample.jpg", picture, quality=92)
