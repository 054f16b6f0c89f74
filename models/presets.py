"""Looks by name: options of dream.py, for each network.

Those of the bundled starter network were chosen by looking at them; those of the others, from the depths of their
layers.
"""

from .cli import UsageError, closest

# name: (what it looks like, {network: options}); None is every other network, whose own layer is kept
PRESETS = {}


def preset(name, model):
    """The options {name: value} of a preset for a network ("starter": the bundled one). UsageError for a wrong name."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}: {closest(name, PRESETS)}")
    looks = PRESETS[name][1]
    return dict(looks.get(model, looks[None]))
