"""Make assets/gallery/: a sample of every look, from assets/sample.jpg or from noise.

python assets/make_gallery.py            all of them
python assets/make_gallery.py subtle     some of them
"""

import sys
from pathlib import Path

ASSETS = Path(__file__).parent
sys.path.insert(0, str(ASSETS.parent))

from models.dreaming.presets import PRESETS  # noqa: E402

import dream  # noqa: E402
from dataset.cli import UsageError, run, suggest  # noqa: E402

PHOTO = [str(ASSETS / "sample.jpg"), "--max-size", "480"]
LOOKS = {
    "default": PHOTO[:1],
    **{name: [*PHOTO, "--preset", name] for name in PRESETS},
    "king-penguin": [*PHOTO, "--class", "king penguin"],
    "castle": [*PHOTO, "--visualize", "--class", "castle"],
    "monarch": ["--visualize", "--class", "monarch", "--noise", "480x320"],
}


def main():
    for name in sys.argv[1:] or LOOKS:
        if name not in LOOKS:
            raise UsageError(f"there is no look {name!r}: {suggest(name, LOOKS)}")
        dream.main([*LOOKS[name], "-o", str(ASSETS / "gallery" / f"{name}.jpg")])


if __name__ == "__main__":
    run(main)
