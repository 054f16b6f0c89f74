"""Show what each stage of a GoogLeNet dreams of, on assets/sample.jpg, for the README.

python assets/make_strip.py                   the bundled network: assets/stages.jpg
python assets/make_strip.py googlenet_bvlc    the network of 2015, where it has been downloaded: assets/stages_2015.jpg
"""

import sys
from pathlib import Path

ASSETS = Path(__file__).parent
sys.path.insert(0, str(ASSETS.parent))

import models  # noqa: E402

from dataset.cli import UsageError, progress, run  # noqa: E402
from dataset.images import read_image, resize_to, write_image  # noqa: E402
from dataset.plots import contact_sheets  # noqa: E402
from dream import deepdream  # noqa: E402

STAGES = ("conv2", "conv3", *(f"inception{block}" for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")))
FILES = {"googlenet": "stages.jpg", "googlenet_bvlc": "stages_2015.jpg"}


def main(name="googlenet"):
    if name not in FILES:
        raise UsageError(f"there is no strip of {name}: take {' or '.join(FILES)}")
    net = models.load(name, weights=models.STARTER if name == "googlenet" else None)
    photo, _ = resize_to(read_image(ASSETS / "sample.jpg"), max_size=300)
    cells = [("the picture", photo)]
    cells += [(layer, deepdream(net, photo, layers=[layer])) for layer in progress(iterable=STAGES, unit="dream")]
    (sheet,) = contact_sheets(cells, width=240, columns=4)
    write_image(ASSETS / FILES[name], sheet)


if __name__ == "__main__":
    run(lambda: main(*sys.argv[1:]))
