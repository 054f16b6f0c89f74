"""Looks by name."""

import models
from models.dreaming.presets import PRESETS, SUCCESSORS, preset
from models.dreaming.targets import parse_targets
from models.weights_file import Metadata

import pytest

import dream
from dataset.cli import UsageError


@pytest.mark.parametrize("model", models.REGISTRY)
def test_presets_name_what_there_is(model):
    """With names of classes and, where a preset dreams of classes, of the layers without them."""
    names = vars(dream.build_parser().parse_args([]))
    for num_classes in (None, 2):
        net = Metadata(model, num_classes).build()
        classes = net.classes
        for name in PRESETS:
            options = preset(name, net)
            assert options.keys() <= names.keys() and parse_targets(net, options.get("layers"), options.get("classes"))
            assert "layers" in options or classes


def test_a_preset_of_classes_takes_them_where_all_are_known(net):
    assert preset("insects", net)["classes"] == ["monarch", "ladybug", "bee"]
    net = Metadata("googlenet", 2, ["bee", "ant"]).build()
    assert preset("insects", net)["layers"] == ["inception4c"]
    net = Metadata("vgg16", 2).build()
    assert preset("insects", net)["layers"] == list(PRESETS["insects"].layers["vgg16"])


def test_a_misspelt_preset(net):
    with pytest.raises(UsageError, match="did you mean dogslugs"):
        preset("dogslug", net)


@pytest.mark.parametrize("name", SUCCESSORS)
def test_a_preset_that_went_is_told_its_successor(net, name):
    with pytest.raises(UsageError, match=f"take {SUCCESSORS[name]}"):
        preset(name, net)
    assert SUCCESSORS[name] in PRESETS
