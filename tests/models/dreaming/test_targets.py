"""What can be dreamed of: layers, channels and classes, as they are named."""

from models.dreaming.targets import Target, parse_targets

import pytest

from dataset.cli import UsageError, UserError


def test_targets(net):
    target = parse_targets(net, ["inception_4c/5x5_reduce:3,5=0.5"])[0]
    assert target == Target("inception4c.branch3.0", (3, 5), 0.5)
    for wrong in ("inception4c:x", "inception4c:512", "inception4c=much", "inception9z", "inception4c:-1"):
        with pytest.raises(UsageError):
            parse_targets(net, [wrong])


MONARCH = 323  # its number among ImageNet's classes


def test_classes_by_name_and_number(net):
    wanted = Target("fc", (MONARCH,), linear=True, centered=True)
    assert parse_targets(net, classes=["Monarch"]) == parse_targets(net, classes=[MONARCH]) == [wanted]
    both = parse_targets(net, ["inception3a"], ["monarch=0.5"])
    assert [target.layer for target in both] == ["inception3a", "fc"] and both[1].weight == 0.5
    for wrong, words in (("monrach", "did you mean monarch"), ("1000", "0 to 999"), ("monarch=x", "NAME|INDEX")):
        with pytest.raises(UsageError, match=words):
            parse_targets(net, classes=[wrong])


def test_the_weights_name_their_layer(net, monkeypatch):
    monkeypatch.setattr(net.metadata, "layer", "inception3b")
    assert parse_targets(net) == [Target("inception3b")]


def test_weights_that_name_a_layer_they_do_not_have_are_told(net, monkeypatch):
    for layer in ("/etc/passwd", "conv1:999", "conv1=x"):
        monkeypatch.setattr(net, "metadata", net.metadata.replace(layer=layer))
        with pytest.raises(UserError, match=f"^{net.path}: .*; --layers names another$"):
            parse_targets(net)
