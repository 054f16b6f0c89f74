"""The sizes at which an image is dreamed on."""

from models.dreaming.targets import parse_targets

import pytest

import dream
from dataset.cli import UserError


def test_octaves_that_are_too_small_are_left_out(net):
    targets = parse_targets(net, ["inception4c"])
    assert dream.octave_sizes(net, (40, 56, 3), targets, 4, 1.4) == [(40, 56), (29, 40), (21, 29)]
    with pytest.raises(UserError, match="too few"):
        dream.octave_sizes(net, (1, 1, 3), targets, 4, 1.4)


def test_any_number_of_octaves_ends_at_the_smallest(net):
    targets = parse_targets(net, ["inception4c"])
    assert dream.octave_sizes(net, (40, 56, 3), targets, 2**31 - 1, 1.4) == [(40, 56), (29, 40), (21, 29)]
    assert dream.octave_sizes(net, (40, 56, 3), targets, 4, 1e30) == [(40, 56)]
