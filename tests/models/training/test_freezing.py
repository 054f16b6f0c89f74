"""What learns and what does not, and the layer from which a network goes on."""

import models
from models.training import freezing
from models.training.transfer import new_network

import mlx.core as mx
import numpy as np
import pytest
from seeded import draw


@pytest.mark.parametrize("name", ["googlenet", "googlenet_bvlc", "inception_v3", "resnet50", "alexnet"])
def test_a_network_goes_on_from_a_layer(name):
    net = new_network(name, 3, aux=models.entry(name).aux)
    size = 75 if name in ("alexnet", "inception_v3") else 40
    whole = dict(net.stages(mx.array(draw("x", (1, size, size, 3)))))
    cut = net.split_points[len(net.split_points) // 2]
    rest = dict(net.stages(whole[cut], after=cut))
    assert list(rest) == list(whole)[list(whole).index(cut) + 1 :]
    last = list(whole)[-1]
    assert np.allclose(whole[last], rest[last], atol=1e-5)


def test_freezing_goes_by_module():
    net = new_network("vgg16", 3)
    frozen = set(freezing.paths_of(net)) - set(freezing.learned_paths(net, "features.2"))
    assert {path.rpartition(".")[0] for path in frozen} == {"features.0", "features.2"}  # and not features.21, .24 ...
    learned = freezing.learned_paths(net, train=["conv1_1", "fc8"])
    assert {path.rpartition(".")[0] for path in learned} == {"features.0", "classifier.6"}
    net = new_network("resnet50", 3)
    learned = freezing.learned_paths(net, "layer2")
    assert {path.split(".")[0] for path in learned} == {"layer3", "layer4", "fc"}
    assert freezing.split_layer(net, learned) == "layer2.3"
    frozen = freezing.freeze(net, learned)
    freezing.training_mode(net, frozen)
    assert not net.bn1.training and not net.layer2[0].bn1.training and net.layer3[0].bn1.training


def test_where_the_frozen_part_ends():
    net = new_network("googlenet", 3, aux=True)
    for options, cut in (
        ({"freeze_to": "inception3b"}, "maxpool3"),
        ({"freeze_to": "inception4d"}, "inception4a"),  # the first auxiliary classifier, which learns, comes next
        ({"train": ["inception3a"]}, "maxpool2"),
        ({}, None),
    ):
        assert freezing.split_layer(net, freezing.learned_paths(net, **options)) == cut
    net = new_network("googlenet", 3)
    assert freezing.split_layer(net, freezing.learned_paths(net, train=["fc"])) == "avgpool"
    assert freezing.split_layer(net, freezing.learned_paths(net, train=["inception4c", "inception5b"])) == "inception4b"
