"""Targets: what a dream enhances, as a command line or a script names it."""

import functools
import re
import unicodedata
from dataclasses import dataclass, replace

import mlx.core as mx

from dataset.cli import UsageError, UserError, suggest

from .class_concepts import class_concepts
from .concepts import Concept, parse_concepts

LISTED = 12  # classes that an error names


@dataclass(frozen=True)
class Target:
    """What to enhance: a layer, all of its channels or some, and its weight in the objective.

    linear: the activation itself is enhanced, not its square: that of a logit would grow downwards, too.
    centered: less the mean of all channels. A softmax leaves a common part of the logits undetermined, which can drown
    the class in its gradient.
    concept: a direction in the layer's activation, along which it is enhanced.
    """

    layer: str
    channels: tuple = ()
    weight: float = 1.0
    linear: bool = False
    centered: bool = False
    concept: Concept | None = None

    def select(self, activation):
        """Return the target's channels of its layer's activation, N x h x w x C."""
        if self.centered:
            activation = activation - activation.mean(axis=-1, keepdims=True)
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
        layers = [own_layer(net)]
    targets = [parse_class(net, text) for text in classes]
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


def own_layer(net):
    """Return the target that a weights file says to dream of; UserError, which names the file, where there is none."""
    try:
        parse_target(net, net.metadata.layer)
    except UsageError as error:
        raise UserError(f"{net.path}: {error}; --layers names another") from None
    return net.metadata.layer


def parse_class(net, text):
    """Parse NAME|INDEX[=WEIGHT], or an index as an int: the concept stored with the weights, else the class's
    logit less the mean of all logits."""
    if not net.num_classes:
        raise UsageError("--class: these weights have no classifier; dream of a layer instead")
    if not isinstance(text, str):
        text = f"#{text}"
    name, equals, weight = text.rpartition("=")
    if not equals or classes_called(net.classes, text):  # a name may hold a "="
        name, weight = text, ""
    try:
        weight = float(weight or 1)
    except ValueError:
        raise UsageError(f"class {text!r} is not NAME|INDEX[=WEIGHT], such as {name!r}=0.5") from None
    index = find_class(net, name.strip())
    concept = class_concepts(net).get(index)
    if concept:
        return Target(concept.layer, weight=weight, concept=concept)
    return Target(net.resolve("logits"), (index,), weight, linear=True, centered=True)


def find_class(net, name):
    """Return the index of the class that `name` means: its name, a synonym, or a word of them, in this order.

    A number is an index, unless a class is called so; "#7" always is. UsageError where no class or several fit.
    """
    index = re.fullmatch("#?([0-9]+)", name)
    if index and (name.startswith("#") or not classes_called(net.classes, name)):
        if len(index[1]) > 9 or int(index[1]) >= net.num_classes:
            raise UsageError(f"there is no class {name}: they go from 0 to {net.num_classes - 1}")
        return int(index[1])
    if not net.classes:
        raise UsageError(f"these weights do not name their classes: give a number, 0 to {net.num_classes - 1}")
    found = classes_called(net.classes, name) or classes_with_word(net.classes, name)
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"#{i} {net.classes[i].split(',')[0]}" for i in found[:LISTED])
        more = f" and {len(found) - LISTED} more, see --list-classes" if len(found) > LISTED else ""
        raise UsageError(f"{name!r} fits {len(found)} classes, give one's number or name: {several}{more}")
    names = [part.strip().casefold() for whole in net.classes for part in whole.split(",")]
    raise UsageError(f"there is no class {name!r} in these weights: {suggest(name.casefold(), names)}")


def class_text(net, index):
    """Return the text of a class on a command line: the first of its names, or #INDEX where that means another."""
    name = net.classes[index].split(",")[0].strip()
    plain = name and "=" not in name and not re.match("[#-]|[0-9]+$", name)
    return name if plain and classes_called(net.classes, name) == [index] else f"#{index}"


def classes_called(classes, name):
    """Return the indices of the classes that have `name` for a name, as few as possible: those called so first.

    classes: names, each with its synonyms after commas ("tabby, tabby cat"), or None.
    """
    names, folded = names_of(tuple(classes or ()))
    for candidates, wanted in ((names, name), (folded, fold(name))):
        for part in (0, 1):  # the whole text, then the first of its names
            if found := [i for i, parts in enumerate(candidates) if parts[part] == wanted]:
                return found
    return [i for i, parts in enumerate(folded) if fold(name) in parts]


@functools.lru_cache(maxsize=8)
def names_of(classes):
    """Return ([[whole name, its parts between commas], ...], the same as fold() has them)."""
    names = [[whole, *(part.strip() for part in whole.split(","))] for whole in classes]
    return names, [[fold(part) for part in parts] for parts in names]


def fold(name):
    """Return a name as it is compared: in lower case, its accents composed (a Mac may decompose them)."""
    return unicodedata.normalize("NFC", name).casefold()


def classes_with_word(classes, words):
    """Return the indices of the classes among whose names or synonyms the words stand, whole and in this order."""
    pattern = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.IGNORECASE)
    return [i for i, whole in enumerate(classes) if words and pattern.search(whole)]


def linear(targets):
    """Make targets linear, of which the gradient is not zero where a channel is dead (zero) all over the image."""
    return [replace(target, linear=True) for target in targets]
