"""Charts, and sheets of images."""

import numpy as np
from conftest import sky_image

from dataset import plots


def test_sheets_have_pages():
    cells = [(f"a rather long name of the cell number {i}", sky_image()) for i in range(7)]
    sheets = list(plots.contact_sheets(cells, width=40, columns=2, rows=2))
    assert len(sheets) == 2 and sheets[0].shape[1] == 2 * 48 + 8 and sheets[0].std() > 10


def test_charts():
    lines = {"training": [2.0, 1.0, None], "held out": [2.5, 2.0, 1e30]}
    assert plots.curves([("loss", lines), ("flat", {"": [3.0] * 3})], [1, 2, 3], "epoch").shape == (300, 880, 3)
    assert plots.curves([("a rate that stays", {"": [0.0002] * 3})], [1, 2, 3], "epoch").shape == (300, 440, 3)
    picture = plots.confusion(np.array([[3, 1], [0, 4]]), ["ants", "a very long name of a class indeed"])
    assert picture.min() < 60 and (picture[:, -20:] == 255).all()
    black = np.zeros((20, 30, 3))
    strip = plots.strip({"ants": [black, None], "bees": [black, black]}, ["untrained", "epoch 1"])
    assert strip.shape[0] == 24 + 2 * 24 and 68 + 20 < strip.shape[1] < 68 + 80
    corners = {(y, x): strip[y, -x].max() for y in (24, 43, 48, 67) for x in (34, 5, 68, 39)}
    assert {place for place, level in corners.items() if level} == {(24, 34), (24, 5), (43, 34), (43, 5)}
