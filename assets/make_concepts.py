"""Draw things that no network was taught, dream of them, and put both into assets/concepts.jpg for the README.

python assets/make_concepts.py                  # a minute or two
python assets/make_concepts.py dataset/drawn    # only draw: dataset/drawn/spirals/00.png and so on
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import ndimage

ASSETS = Path(__file__).parent
sys.path.insert(0, str(ASSETS.parent))

from dataset.images import read_image, resize_image, write_image  # noqa: E402

SIDE = 192  # pixels of a drawing
COUNT = 20  # drawings of a thing
INNER = 0.42  # radius between the tips of a star whose tips lie at 1


def fractal(rng, side, coarsest=64):
    """Soft noise side x side, 0..1."""
    total = np.zeros((side, side))
    scale = coarsest
    while scale >= 4:
        grid = rng.random((side // scale + 3, side // scale + 3))
        total += scale * ndimage.zoom(grid, scale, order=3)[:side, :side]
        scale //= 2
    return (total - total.min()) / np.ptp(total)


def ground(rng):
    """A soft, two-colored surface to draw on."""
    first, second = rng.uniform(30, 225, (2, 3))
    share = fractal(rng, SIDE)[..., None]
    return first + (second - first) * share + rng.normal(0, 6, (SIDE, SIDE, 1))


def disc(rng, least=0.3, most=0.46):
    """(x, y, inside): coordinates -1..1 over a disc somewhere in the drawing, and its soft mask."""
    radius = rng.uniform(least, most) * SIDE
    center = rng.uniform(0.42, 0.58, 2) * SIDE
    rows, columns = np.mgrid[:SIDE, :SIDE]
    y, x = (rows - center[0]) / radius, (columns - center[1]) / radius
    return x, y, np.clip((1 - np.hypot(x, y)) * radius, 0, 1)[..., None]


def checkered_ball(rng):
    """A ball with a chessboard painted on it, lit from above."""
    x, y, inside = disc(rng)
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    u, v, w = np.tensordot(turn, np.stack([x, y, z]), 1)
    fields = rng.integers(4, 7)
    longitude, latitude = np.arctan2(v, u) / np.pi * fields, np.arcsin(np.clip(w, -1, 1)) / np.pi * fields
    board = np.sign(np.sin(np.pi * longitude) * np.sin(np.pi * latitude))
    colors = np.array([[245, 240, 230], rng.choice([[20, 20, 24], [180, 30, 30], [30, 50, 150]])])
    light = np.clip(0.35 + 0.75 * (0.5 * z - 0.6 * y - 0.3 * x), 0.15, 1.1)[..., None]
    ball = colors[(board > 0).astype(int)] * light
    return ground(rng) * (1 - inside) + ball * inside


def spiral(rng):
    """A disc with a spiral of two colors."""
    x, y, inside = disc(rng)
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    turns, way = rng.uniform(2.5, 4), rng.choice([-1, 1])
    wave = np.sin(way * angle + 2 * np.pi * turns * radius + rng.uniform(0, 6.3))
    colors = rng.uniform(0, 70, 3), rng.uniform(190, 255, 3)
    share = np.clip(0.5 + 4 * wave, 0, 1)[..., None]
    return ground(rng) * (1 - inside) + (colors[0] + (colors[1] - colors[0]) * share) * inside


def star(rng):
    """A five-pointed star of one color, with a dark rim."""
    x, y, _ = disc(rng)
    angle = np.arctan2(y, x) + rng.uniform(0, 6.3)
    tip = np.abs((angle / (2 * np.pi) * 5) % 1 - 0.5) * 2 * np.pi / 5  # from the nearest tip, radians
    limit = INNER * np.sin(np.pi / 5) / (np.sin(tip) + INNER * np.sin(np.pi / 5 - tip))  # the outline's radius there
    radius = np.hypot(x, y)
    inside = np.clip((limit - radius) * 40, 0, 1)[..., None]
    filled = np.clip((limit * 0.85 - radius) * 40, 0, 1)[..., None]
    color = rng.choice([[250, 210, 40], [235, 60, 50], [240, 240, 240]]) * (1 - 0.25 * y[..., None])
    return ground(rng) * (1 - inside) + (color * filled + 20 * (1 - filled)) * inside


THINGS = {"checkered-balls": checkered_ball, "spirals": spiral, "stars": star}


def draw(folder):
    """Write COUNT drawings of each thing into a folder of its own."""
    for name, thing in THINGS.items():
        for i in range(COUNT):
            rng = np.random.default_rng((2015, i, *name.encode()))
            write_image(folder / name / f"{i:02}.png", thing(rng))


def dream_and_show(folder):
    """Dream of each thing on the sample by the README's command; a column shows four drawings above their dream."""
    columns = []
    for name in THINGS:
        out = folder / f"{name}.png"
        words = ["assets/sample.jpg", "--max-size", "420", "--concept", str(folder / name), "-o", str(out)]
        subprocess.run([sys.executable, "dream.py", *words], cwd=ASSETS.parent, check=True)
        dreamed = read_image(out)
        side = dreamed.shape[1] // 4
        drawings = [resize_image(read_image(folder / name / f"{i:02}.png"), (side, side)) for i in range(4)]
        columns.append(np.vstack([np.hstack(drawings), dreamed]))
    write_image(ASSETS / "concepts.jpg", np.hstack(columns), quality=85)


if __name__ == "__main__":
    if sys.argv[1:]:
        draw(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as place:
            draw(Path(place))
            dream_and_show(Path(place))
