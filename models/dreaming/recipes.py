"""The recipe of a dream: how it was made, as JSON inside the picture itself.

A recipe is a dict: program, version, model, weights (the file's name), weights_sha256, picture (the input's name), and
options, {name: value} as argparse has them.
"""

import argparse
import json
import shlex

from dataset.cli import UsageError, UserError
from dataset.images import TEXT_KEY, read_text, text_options

LARGEST = 1 << 16  # characters


def to_text(recipe):
    """Return a recipe as the text that a picture or video carries."""
    return json.dumps({"program": TEXT_KEY, **recipe})


def save_options(path, recipe):
    """Return what write_image(path, ...) takes as `options` to put a recipe into the file."""
    return text_options(path, to_text(recipe))


def read_recipe(path):
    """Read the recipe in a picture. Raises UserError where there is none, or it cannot be understood."""
    text = read_text(path)
    try:
        recipe = json.loads(text) if len(text) < LARGEST else None
    except (ValueError, RecursionError):
        recipe = None
    if not isinstance(recipe, dict) or recipe.get("program") != TEXT_KEY or not isinstance(recipe.get("options"), dict):
        raise UserError(f"{path}: there is no recipe in it; only pictures that dream.py wrote carry one")
    return recipe


def to_arguments(options, defaults, switches):
    """A command line's words from {name: value}, without what equals `defaults`.

    switches: {name: option string} of the options that a recipe may hold; others are left out. UsageError for a
    value that no command line would give.
    """
    words = []
    for name, value in options.items():
        if name not in switches or value == defaults.get(name) or value is None:
            continue
        switch = switches[name]
        if isinstance(value, bool):
            words.append(switch if value else "--no-" + switch[2:])
            continue
        values = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        if any(item.startswith("-") for item in values):  # it would be read as an option
            raise UsageError(f"the recipe has a strange {switch}: {' '.join(values)[:80]}")
        words += [switch, *values]
    return words


def command(script, pictures, words):
    """The command line as one would type it; `words` may end with an option that takes several values."""
    return shlex.join(["python", script, *map(str, pictures), *words])


def given_options(parser, words):
    """{name: value} of the options that are on a command line, and no defaults."""
    unset = object()
    names = vars(parser.parse_args([]))
    args = parser.parse_args(words, argparse.Namespace(**dict.fromkeys(names, unset)))
    return {name: value for name, value in vars(args).items() if value is not unset}


def layered(rivals, *layers):
    """Options from {name: value} dicts, each overriding those before.

    rivals: tuples of names; a dict that holds one of them does away with what was said of the others.
    """
    options = {}
    for layer in layers:
        for names in rivals:
            if any(name in layer for name in names):
                options |= dict.fromkeys(names)
        options |= layer
    return argparse.Namespace(**options)
