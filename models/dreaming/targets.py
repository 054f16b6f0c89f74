"""Targets: what a dream enhances, as a command line or a script names it."""

from dataclasses import dataclass, replace

import mlx.core as mx

from dataset.cli import UsageError, suggest

from .class_concepts import class_concepts
from .concepts import Concept, parse_concepts


@dataclass(frozen=True)
class Target:
    """What to enhance: a layer, all of its channels or some, and its weight in the objective.

    linear: the activation itself is enhanced, not its square: that of a logit would grow downwards, too.
    concept: a direction in the layer's activation, along which it is enhanced.
    """

    layer: str
    channels: tuple = ()
    weight: float = 1.0
    linear: bool = False
    concept: Concept | None = None

    def select(self, activation):
        """Return the target's channels of its layer's activation, N x h x w x C."""
        return activation[..., mx.array(self.channels)] if self.channels else activation


def parse_targets(net, layers=None, classes=None, concepts=None):
    """Return the targets of `layers`, each LAYER[:CHANNELS][=WEIGHT], `classes`, each NAME|INDEX[=WEIGHT], and
    `concepts`, each PATH[=WEIGHT] or a Concept; beside concepts, layers are those they are taken at, and no targets.

    Targets among the layers stay as they are. None of them: the layer that the weights file names. Raises UsageError;
    UserError for a concept that cannot be had.
    """
    layers = [layers] if isinstance(layers, (str, Target)) else layers or []
    classes = [classes] if isinstance(classes, (str, int)) else classes or []
    if not layers and not classes and not concepts:
        layers = [net.metadata["layer"]]
    targets = [parse_class(net, str(text)) for text in classes]
    if concepts:
        found = parse_concepts(net, concepts, layers, quiet=True)
        return [Target(concept.layer, weight=concept.weight, concept=concept) for concept in found] + targets
    return [parse_target(net, text) for text in layers] + targets


def chosen_targets(net, args, remembered=None):
    """Return the targets of parsed options. What folders show is found out here, which takes seconds the first time.

    remembered: {path: [Concept, ...]} of the recipe that the options are from.
    """
    found = None
    if args.concepts:
        found = parse_concepts(net, args.concepts, args.layers, args.background, args.quiet, remembered)
    return parse_targets(net, args.layers, args.classes, found)


def parse_target(net, text):
    """Parse LAYER[:CHANNELS][=WEIGHT]: inception4c, inception4c:13,27 or inception3b=0.3. A Target stays what it is."""
    if isinstance(text, Target):
        return text
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
    """Return the target of a class, by its name (or one of its names, "tabby" of "tabby, tabby cat") or its number: the
    concept that is stored with the weights, else the logit."""
    if not net.num_classes:
        raise UsageError("--class: these weights have no classifier; dream of a layer instead")
    name, _, weight = text.rpartition("=") if "=" in text else (text, "", "")
    try:
        weight = float(weight or 1)
    except ValueError:
        raise UsageError(f"class {text!r} is not NAME|INDEX[=WEIGHT], such as {name!r}=0.5") from None
    if name.isdecimal():
        if int(name) >= net.num_classes:
            raise UsageError(f"there is no class {name}: they go from 0 to {net.num_classes - 1}")
        return class_target(net, int(name), weight)
    if not net.classes:
        raise UsageError(f"these weights do not name their classes: give a number, 0 to {net.num_classes - 1}")
    wanted = name.casefold().strip()
    numbers = {part.casefold().strip(): i for i, whole in enumerate(net.classes) for part in whole.split(",")}
    numbers |= {whole.casefold().strip(): i for i, whole in enumerate(net.classes)}
    if wanted not in numbers:
        raise UsageError(f"there is no class {name!r} in these weights: {suggest(wanted, numbers)}")
    return class_target(net, numbers[wanted], weight)


def class_target(net, number, weight):
    concept = class_concepts(net).get(net.classes[number]) if net.classes else None
    if concept:
        return Target(concept.layer, weight=weight, concept=concept)
    return Target(net.resolve("logits"), (number,), weight, linear=True)


def linear(targets):
    """Make targets linear, of which the gradient is not zero where a channel is dead (zero) all over the image."""
    return [replace(target, linear=True) for target in targets]
