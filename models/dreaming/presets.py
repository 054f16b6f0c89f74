"""Looks by name: options of dream.py, chosen by looking at pictures of GoogLeNet, BVLC's network of 2015 and VGG-16.

Five depths of a network have a look of their own; its row in the registry names a layer for each. What they do not
show is dreamed of by its class, where the network knows it, with settings that keep the photograph's colors.
"""

from dataclasses import dataclass, field

from dataset.cli import UsageError, suggest

from ..registry import entry
from .targets import classes_called

LATTICES, SWIRLS, STROKES, FACES, THINGS = range(5)  # of the registry's preset_layers

WIDE = {"octaves": 5, "octave_scale": 1.3}
BODIES = {"steps": 20, "lapnorm": 4, "smooth": 0.5}  # of a class: coarse shapes as strong as fine ones


@dataclass(frozen=True)
class Preset:
    """A look: what it shows, the depths it dreams on, other options.

    classes: dreamed of in place of the depths, where the network knows them all. layers: {network: its layers} where
    the depths do not show what is promised.
    """

    shows: str
    depths: tuple
    options: dict
    classes: tuple = ()
    layers: dict = field(default_factory=dict)


PRESETS = {
    "inceptionism": Preset(
        "animals in the clouds, temples and carriages on the land",
        (THINGS,),
        {"octaves": 6, "octave_scale": 1.3, "steps": 15},
    ),
    "dogslugs": Preset("dogs with many eyes, on bodies like slugs", (FACES,), {**WIDE, "steps": 15}),
    "eyes": Preset("eyes and fur", (STROKES, FACES), WIDE),
    "architecture": Preset(
        "castles, churches and palaces",
        (THINGS,),
        {**BODIES, "decorrelate": True},
        classes=("palace", "church", "castle"),
        layers={"vgg16": ("relu5_2:269,465,41",)},
    ),
    "birds": Preset(
        "eagles, macaws and owls",
        (THINGS,),
        {**BODIES, "decorrelate": True},
        classes=("bald eagle", "macaw", "great grey owl"),
        layers={"vgg16": ("relu5_3:226,260,441,331",)},
    ),
    "insects": Preset(
        "butterflies, beetles and bees",
        (THINGS,),
        {**BODIES, "decorrelate": True},
        classes=("monarch", "ladybug", "bee"),
        layers={"vgg16": ("relu5_3:137,64,47",)},
    ),
    "aquarium": Preset(
        "jellyfish, anemones and corals",
        (THINGS,),
        {**BODIES, "decorrelate": True},
        classes=("jellyfish", "anemone fish", "coral reef"),
        layers={"vgg16": ("relu5_3:360,431,149,106,220",)},
    ),
    "safari": Preset(
        "striped and spotted beasts of the savanna",
        (THINGS,),
        {**BODIES, "decorrelate": True},
        classes=("tiger", "zebra", "African elephant"),
        layers={"vgg16": ("relu5_3:248,442,128",)},
    ),
    "petals": Preset(
        "blossoms and sea anemones",
        (THINGS,),
        {**BODIES, "decorrelate": True},
        classes=("daisy", "sea anemone", "rapeseed"),
        layers={"vgg16": ("relu5_3:220,209",)},
    ),
    "painterly": Preset("brush strokes along the picture", (STROKES,), {**WIDE, "steps": 15, "decorrelate": True}),
    "swirls": Preset("swirls and ripples", (SWIRLS,), {**WIDE, "steps": 12, "decorrelate": True}),
    "geometric": Preset("lattices and pleats", (LATTICES,), {**WIDE, "steps": 12, "decorrelate": True}),
    "etching": Preset(
        "creatures modelled in grey, in the picture's own colors",
        (FACES,),
        {**WIDE, "smooth": 1.0, "decorrelate": True, "keep_color": True},
    ),
    "glow": Preset(
        "night lights: lamps and fires that light up the colors around them",
        (THINGS,),
        {**BODIES, "step_size": 1.0},
        classes=("torch", "candle", "jack-o'-lantern"),
        layers={"vgg16": ("relu5_3:190,188,187",)},
    ),
    "subtle": Preset(
        "a hint of temples and animals in the photograph, whose colors stay",
        (THINGS,),
        {"octaves": 5, "strength": 0.8, "keep_color": True},
    ),
}
SUCCESSORS = {"grove": "architecture"}  # of looks that the networks of today do not have


def preset(name, net):
    """Return the options {name: value} of a preset for a network of models.load(). UsageError for a wrong name."""
    if name in SUCCESSORS:
        raise UsageError(f"there is no preset {name!r} any more: take {SUCCESSORS[name]}")
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}: {suggest(name, PRESETS)}")
    look = PRESETS[name]
    if look.classes and all(classes_called(net.classes, wanted) for wanted in look.classes):
        return {"classes": list(look.classes)} | look.options
    layers = look.layers.get(net.metadata.model)
    own = entry(net.metadata.model).preset_layers
    return {"layers": list(layers or [own[depth] for depth in look.depths])} | look.options
