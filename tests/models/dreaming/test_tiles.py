"""Gradients of large images, tile by tile."""

from models.dreaming.targets import parse_targets
from models.dreaming.tiles import in_tiles, tile_edges

import mlx.core as mx
import numpy as np
import pytest
from conftest import noise_image

import dream


def test_tiles_have_the_gradient_of_the_whole(net):
    image = mx.array(np.float32(noise_image(300, 420)))
    gradient = dream.gradient_function(net, parse_targets(net, ["inception3a"]))
    whole = gradient(image)
    tiled = in_tiles(gradient, 200, np.random.default_rng(0))(image)
    assert tiled.shape == whole.shape
    assert mx.abs(tiled - whole).max() < 0.05 * mx.abs(whole).max()
    assert mx.abs(tiled - whole).mean() < 0.02 * mx.abs(whole).mean()  # cells at the rim are counted whole


@pytest.mark.parametrize("side, tile", [(100, 100), (101, 100), (1000, 64), (257, 256)])
def test_cuts_cover_a_side_and_move(side, tile):
    rng = np.random.default_rng(0)
    grids = [tile_edges(side, tile, rng) for _ in range(8)]
    for grid in grids:
        assert grid[0][0] == 0 and grid[-1][1] == side
        assert all(end == start for (_, end), (start, _) in zip(grid, grid[1:], strict=False))
        assert all(0 < end - start <= tile for start, end in grid)
    assert side <= tile or len(set(map(tuple, grids))) > 1
