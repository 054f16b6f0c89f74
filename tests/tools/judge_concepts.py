"""Ask a network that had no part in a dream what is in it.

python tests/tools/judge_concepts.py googlenet_bvlc_mlx.npz dream.png other.png --class bee

The answer is the probability of the class on the best of eleven crops, each resized to 224 x 224: the whole image, four
full-height squares from left to right, six squares of two thirds of the height; and what is surest on any of them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import models
from models.dreaming.targets import parse_class

import numpy as np

from dataset.images import read_image, resize_image

SIDE = 224  # pixels
SQUARES = 4


def crops(image):
    """Return what is judged of an image H x W x 3, landscape: 11 x 224 x 224 x 3."""
    height, width = image.shape[:2]
    small = height * 2 // 3
    boxes = [(0, 0, height, width)]
    boxes += [(0, round(left), height, height) for left in np.linspace(0, width - height, SQUARES)]
    tops, lefts = (0, height - small), np.linspace(0, width - small, 3)
    boxes += [(top, round(left), small, small) for top in tops for left in lefts]
    return np.stack([resize_image(image[y : y + h, x : x + w], (SIDE, SIDE)) for y, x, h, w in boxes])


def probabilities(judge, image):
    """Return what the judge makes of each crop: 11 x classes, every row's sum 1."""
    logits = np.array(judge(crops(image)), np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judge", help="weights of the network that is asked")
    parser.add_argument("dreams", nargs="+", help="images, wider than high")
    parser.add_argument("--class", dest="wanted", required=True, help="a class of the judge's, by name or number")
    args = parser.parse_args()
    judge = models.load(weights=args.judge)
    (number,) = parse_class(judge, args.wanted).channels
    for dream in args.dreams:
        table = probabilities(judge, read_image(dream))
        crop, best = np.unravel_index(table.argmax(), table.shape)
        name = judge.classes[best] if judge.classes else f"class {best}"
        print(f"{args.wanted} {table[:, number].max():.3f}, surest {name} {table[crop, best]:.3f}: {dream}")


if __name__ == "__main__":
    main()
