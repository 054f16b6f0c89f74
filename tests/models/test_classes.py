"""The names of classes: the lists of the published networks, and what --class makes of a name or a number."""

from types import SimpleNamespace

import models
from models.dreaming.targets import Target, parse_targets
from models.weights_file import Metadata

import pytest

from dataset.cli import UsageError


def named(*classes):
    """As much of a network as a class needs."""
    return SimpleNamespace(path=None, num_classes=len(classes), classes=list(classes), resolve=lambda name: "fc")


def meant(net, *texts):
    """The indices that --class takes `texts` for."""
    targets = parse_targets(net, classes=list(texts))
    assert all(target.layer == net.resolve("logits") and target.linear for target in targets)
    return [target.channels[0] for target in targets]


@pytest.mark.parametrize("model", models.REGISTRY)
def test_published_networks_know_their_classes(model):
    classes = Metadata(model).classes
    names = [[name.strip() for name in whole.split(",")] for whole in classes]
    assert len(classes) == models.REGISTRY[model].num_classes
    assert len({first for first, *_ in names}) == len(classes)
    assert all(all(parts) and len(set(parts)) == len(parts) for parts in names)
    known = {"airfield": 0, "apartment building outdoor": 8, "volcano": 350, "Zen garden": 364}
    if model != "googlenet_places365":
        known = {"tench": 0, "tabby": 281, "crane bird": 134, "crane": 517, "volcano": 980, "toilet tissue": 999}
    assert {name: names[i][0] for name, i in known.items()} == {name: name for name in known}


@pytest.mark.parametrize("count", [365, 3, 0])
def test_other_classes_stay_without_names(count):
    assert Metadata("vgg16", count).classes is None


def test_own_names_stay():
    classes = [f"breed {i}" for i in range(1000)]
    assert Metadata("vgg16", classes=classes).classes == classes


@pytest.mark.parametrize(
    "text, index",
    [
        ("tabby", 281),  # the first of its names
        ("tabby, tabby cat", 281),
        ("Tabby Cat", 281),  # a synonym
        ("penguin", 145),  # a word: king penguin
        ("crane", 517),  # a name, before the bird's synonym
        ("Cardigan", 264),  # the dog, which is written so
        ("cardigan", 474),
        ("281", 281),
        ("#281", 281),
    ],
)
def test_a_class_of_imagenet(net, text, index):
    assert meant(net, text) == [index]


@pytest.mark.parametrize(
    "text, words",
    [
        ("retriever", "5 classes, .*: #205 flat-coated retriever, #206 curly-coated retriever"),
        ("panther", "2 classes, .*: #286 cougar, #290 jaguar"),  # a synonym of both
        ("terrier", "and 1[0-9] more, see --list-classes"),
        ("monrach", "did you mean monarch"),
        ("", "there is no class ''"),
        ("1000", "0 to 999"),
        ("#1000", "0 to 999"),
        ("monarch=x", "NAME|INDEX"),
    ],
)
def test_what_no_class_or_several_fit(net, text, words):
    with pytest.raises(UsageError, match=words) as error:
        meant(net, text)
    assert error.value.status == 2 and len(str(error.value).splitlines()) == 1


def test_names_that_are_numbers():
    """Folders called 1, 10, 2 and 3, in the order of their names."""
    net = named("1", "10", "2", "3")
    assert meant(net, "1", "10", "2", "0", "#1", "1=0.5") == [0, 1, 2, 0, 1, 0]
    assert parse_targets(net, classes=1) == [
        Target("fc", (1,), linear=True, centered=True)
    ]  # a program's number is an index
    with pytest.raises(UsageError, match="no class 4"):
        meant(net, "4")


def test_names_with_an_equals_sign():
    net = named("=", "a=b", "a=2", "a")
    assert meant(net, "=", "a=b", "a=2", "a", "a=3", "==2", "a=b=2") == [0, 1, 2, 3, 3, 0, 1]
    assert [target.weight for target in parse_targets(net, classes=["a=2", "a=3", "a=b=2"])] == [1, 3, 2]


def test_numbers_without_names():
    net = SimpleNamespace(path=None, num_classes=7, classes=None, resolve=lambda name: "fc")
    assert meant(net, "6", "#5", "4=0.5") == [6, 5, 4]
    with pytest.raises(UsageError, match="do not name their classes"):
        meant(net, "tabby")
