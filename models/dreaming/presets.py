"""Looks by name: options of dream.py, for each network.

They follow from the depth of the layers: shallow ones dream of strokes, middle ones of patterns and eyes, deep ones of
things.
"""

from dataset.cli import UsageError, suggest

from ..registry import entry

SHALLOW, MIDDLE, DEEP = range(3)  # of the registry's preset_layers

# name: (what it looks like, depth of its layer, other options)
PRESETS = {
    "inceptionism": (
        "faces in the clouds, creatures and lights in the woods",
        DEEP,
        {"octaves": 5, "steps": 15},
    ),
    "dogslugs": (
        "dogs, most of all",
        DEEP,
        {"octaves": 6, "octave_scale": 1.3, "steps": 20, "lapnorm": 4},
    ),
    "grove": (
        "trunks, arches and lanterns",
        DEEP,
        {"steps": 15, "smooth": 0.7},
    ),
    "petals": (
        "bright blots and blossoms, coarse and strong",
        MIDDLE,
        {"octaves": 6, "octave_scale": 1.3, "steps": 20, "smooth": 1.0},
    ),
    "painterly": (
        "thick strokes of glowing colour",
        MIDDLE,
        {"lapnorm": 4, "smooth": 0.5, "step_size": 1.2},
    ),
    "geometric": (
        "lattices and pleats in the picture's own colours",
        SHALLOW,
        {"steps": 12, "lapnorm": 3, "decorrelate": True},
    ),
    "etching": (
        "houses and creatures drawn in the picture's own colours",
        MIDDLE,
        {"smooth": 0.5, "decorrelate": True},
    ),
    "glow": (
        "suns and pools of light",
        DEEP,
        {"octaves": 5, "octave_scale": 1.3, "steps": 20, "lapnorm": 4, "smooth": 1.0},
    ),
    "subtle": (
        "a relief on the photograph, whose colours stay",
        MIDDLE,
        {"strength": 0.6, "keep_color": True},
    ),
}


def preset(name, model):
    """The options {name: value} of a preset for a network of the registry. UsageError for a wrong name."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}: {suggest(name, PRESETS)}")
    _, depth, options = PRESETS[name]
    return {"layers": [entry(model).preset_layers[depth]]} | options
