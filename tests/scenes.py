"""Random images that tests write."""

import numpy as np
from PIL import Image


def scene(seed, width=120, height=90):
    """A smooth random PIL image with edges, that no other seed gives."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    for _ in range(4):
        box = rng.integers(0, (width, height), (2, 2))
        left, top = np.minimum(*box)
        picture.paste(tuple(rng.integers(0, 256, 3).tolist()), (int(left), int(top), int(left) + 20, int(top) + 15))
    return picture
