"""Make assets/stages.jpg: what each stage of the bundled network dreams of, on assets/sample.jpg.

python assets/make_strip.py
"""

import sys
from pathlib import Path

ASSETS = Path(__file__).parent
sys.path.insert(0, str(ASSETS.parent))

import models  # noqa: E402

from dataset.cli import progress, run  # noqa: E402
from dataset.images import read_image, resize_to, write_image  # noqa: E402
from dataset.plots import contact_sheets  # noqa: E402
from dream import deepdream  # noqa: E402

STAGES = ("conv2", "conv3", *(f"inception{block}" for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")))


def main():
    net = models.load("googlenet", weights=models.STARTER)
    photo, _ = resize_to(read_image(ASSETS / "sample.jpg"), max_size=300)
    cells = [("the picture", photo)]
    cells += [(layer, deepdream(net, photo, layers=[layer])) for layer in progress(iterable=STAGES, unit="dream")]
    (sheet,) = contact_sheets(cells, width=240, columns=4)
    write_image(ASSETS / "stages.jpg", sheet)


if __name__ == "__main__":
    run(main)
