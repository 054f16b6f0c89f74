"""Gradients of large images, tile by tile."""

import models
from models.dreaming.targets import parse_targets
from models.dreaming.tiles import in_tiles, tile_edges, tile_size

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


@pytest.mark.parametrize("side, tile", [(100, 100), (10000, 64), (420, 256), (4000, 1250)])
def test_cuts_cover_a_side_and_move(side, tile):
    rng = np.random.default_rng(0)
    grids = [tile_edges(side, tile, rng) for _ in range(8)]
    for grid in grids:
        assert grid[0][0] == 0 and grid[-1][1] == side
        assert all(end == start for (_, end), (start, _) in zip(grid, grid[1:], strict=False))
        assert all(0 < end - start <= tile for start, end in grid)
    assert side <= tile or len(set(map(tuple, grids))) > 1
    assert {len(grid) for grid in grids} == {-(-(side + min(128, tile // 2)) // tile) if side > tile else 1}


def test_what_a_tile_sees_with_its_margins_is_not_cut():
    assert tile_edges(400, 256, np.random.default_rng(0)) == [(0, 400)]


@pytest.mark.parametrize("height, width, tile", [(900, 700, 256), (701, 333, 200), (1500, 100, 400)])
def test_all_pieces_that_are_seen_have_one_shape(height, width, tile):
    """Whatever the random cut: MLX keeps buffers for every size it meets, and never lets them go."""
    shapes = set()

    def gradient(seen):
        shapes.add(seen.shape)
        return seen

    image = mx.array(np.float32(noise_image(height, width)))
    rng = np.random.default_rng(0)
    for _ in range(5):
        tiled = in_tiles(gradient, tile, rng)(image)
        (seen,) = shapes
        assert mx.array_equal(tiled, image * (np.prod(seen) / image.size))  # every pixel where it was
    assert max(seen[:2]) <= tile + 128 + 63 or seen[:2] == (height, width)


def test_tiles_of_networks(monkeypatch):
    """As large as measured bytes allow: VGG's are smaller than ResNet-50's, which are about GoogLeNet's."""
    monkeypatch.setattr("models.dreaming.tiles.memory_available", lambda: 2**40)
    sides = {
        name: tile_size(models.weights_file.Metadata(name, 10).build()) for name in ("googlenet", "resnet50", "vgg16")
    }
    assert sides["googlenet"] > sides["resnet50"] > 0.7 * sides["googlenet"]
    assert sides["resnet50"] > sides["vgg16"] >= 256
