"""Targets: what a dream enhances, as a command line or a script names it."""

from dataclasses import dataclass, replace

import mlx.core as mx

from dataset.cli import UsageError, suggest


@dataclass(frozen=True)
class Target:
    """What to dream of: a layer, all of its channels or some, and its share in the objective.

    linear: climb to the activation itself, not to its square. So are logits, whose square would grow downwards, too.
    """

    layer: str
    channels: tuple = ()
    weight: float = 1.0
    linear: bool = False

    def select(self, activation):
        return activation[..., mx.array(self.channels)] if self.channels else activation


def parse_targets(net, layers=None, classes=None):
    """Targets from `layers`, each LAYER[:CHANNELS][=WEIGHT], and `classes`, each NAME|INDEX[=WEIGHT].

    Neither: the layer that the weights file names. Raises UsageError.
    """
    layers = [layers] if isinstance(layers, str) else layers or []
    classes = [classes] if isinstance(classes, (str, int)) else classes or []
    if not layers and not classes:
        layers = [net.metadata["layer"]]
    return [parse_target(net, text) for text in layers] + [parse_class(net, str(text)) for text in classes]


def parse_target(net, text):
    """inception4c, inception4c:13,27 or inception3b=0.3."""
    name, _, weight = text.partition("=")
    name, _, channels = name.partition(":")
    layer = net.resolve(name)
    try:
        target = Target(layer, tuple(int(c) for c in channels.split(",")) if channels else (), float(weight or 1))
    except ValueError:
        raise UsageError(f"target {text!r} is not LAYER[:CHANNELS][=WEIGHT], such as {name}:13,27=0.5") from None
    count = net.layer_info[layer][0]
    wrong = [c for c in target.channels if not 0 <= c < count]
    if wrong:
        raise UsageError(f"{layer} has no channel {wrong[0]}: they go from 0 to {count - 1}")
    return target


def parse_class(net, text):
    """The logit of a class, by its name (or one of its names, "tabby" of "tabby, tabby cat") or its number."""
    if not net.num_classes:
        raise UsageError("--class: these weights have no classifier; dream of a layer instead")
    name, _, weight = text.rpartition("=") if "=" in text else (text, "", "")
    try:
        weight = float(weight or 1)
    except ValueError:
        raise UsageError(f"class {text!r} is not NAME|INDEX[=WEIGHT], such as {name!r}=0.5") from None
    logits = net.resolve("logits")
    if name.isdecimal():
        if int(name) >= net.num_classes:
            raise UsageError(f"there is no class {name}: they go from 0 to {net.num_classes - 1}")
        return Target(logits, (int(name),), weight, linear=True)
    if not net.classes:
        raise UsageError(f"these weights do not name their classes: give a number, 0 to {net.num_classes - 1}")
    wanted = name.casefold().strip()
    numbers = {part.casefold().strip(): i for i, whole in enumerate(net.classes) for part in whole.split(",")}
    numbers |= {whole.casefold().strip(): i for i, whole in enumerate(net.classes)}
    if wanted not in numbers:
        raise UsageError(f"there is no class {name!r} in these weights: {suggest(wanted, numbers)}")
    return Target(logits, (numbers[wanted],), weight, linear=True)


def linear(targets):
    """The same targets, each climbed to by the activation itself: a dead one then still says which way is up."""
    return [replace(target, linear=True) for target in targets]
