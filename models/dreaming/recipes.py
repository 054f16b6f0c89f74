"""The recipe of a dream: how it was made, as JSON inside the image or video itself.

A recipe is a dict: program, version, model, weights (the file's name), weights_sha256, picture (the input's name), and
options, {name: value} of every option that decides about the image, given or not: a default that changes later does
not change what --like repeats. Where concepts are dreamed of, `concepts` holds them, each with its path, so that --like
needs no folder.
"""

import json
import shlex
from pathlib import Path

from dataset.cli import UsageError, UserError
from dataset.images import TEXT_KEY, read_text, text_options

from .. import __version__
from .concepts import from_json, to_json
from .options import CONCEPT_DEFAULTS, DEFAULTS, OPTIONS, SWITCHES, dependent_defaults, given_options, recipe_parser

MAX_LENGTH = 1 << 16  # characters
MAX_CONCEPTS = 40_000  # characters: a JPEG has room for 65,000 in all

# --- Writing ---


def make_recipe(net, source, options, targets=()):
    """Return the recipe of what is made of the file called `source` with the network and `options`, {name: value}.

    targets: what is dreamed of. If there are too many concepts for a recipe, --like will need their folders.
    """
    concepts = [target.concept for target in targets if target.concept]
    told = [{"path": concept.path, **to_json(concept)} for concept in concepts]
    told = {"concepts": told} if told and len(json.dumps(told)) < MAX_CONCEPTS else {}
    return {
        "version": __version__,
        "model": net.metadata.model,
        "weights": net.path.name,
        "weights_sha256": net.weights_sha256,
        "picture": source,
        "options": options,
        **told,
    }


def recipe_options(net, args):
    """Return {name: value} of the parsed options that decide about an image, as JSON has them; the network's name."""
    options = {name: getattr(args, name) for name in OPTIONS}
    options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return options | {"model": net.metadata.model}


def to_text(recipe):
    """Return a recipe as the text that an image or video carries."""
    return json.dumps({"program": TEXT_KEY, **recipe})


def save_options(path, recipe):
    """Return what write_image(path, ...) takes as `options` to put a recipe into the file."""
    return text_options(path, to_text(recipe))


# --- Reading ---


def read_recipe(path):
    """Read the recipe in an image. Raises UserError where there is none, or it cannot be understood."""
    text = read_text(path)
    try:
        recipe = json.loads(text) if len(text) < MAX_LENGTH else None
    except (ValueError, RecursionError):
        recipe = None
    if not isinstance(recipe, dict) or recipe.get("program") != TEXT_KEY or not isinstance(recipe.get("options"), dict):
        raise UserError(f"{path}: there is no recipe in it; only pictures that dream.py wrote carry one")
    return recipe


def repeated_options(options, to_concept=False):
    """Return what --like takes of a recipe's options {name: value}: all that would not be the same without it.

    to_concept: whether a concept takes the place of what was dreamed of, without its defaults. Raises UsageError for a
    value that no command line would give.
    """
    told = given_options(recipe_parser(), recipe_arguments(options))
    unset = [name for name in dependent_defaults(options) if DEFAULTS[name] is None and options.get(name, 0) is None]
    defaults = {name: options[name] for name in CONCEPT_DEFAULTS if to_concept and name in options}
    return defaults | told | dict.fromkeys(unset)


def remembered_concepts(recipe):
    """Return {path: [Concept, ...]} of a recipe. UserError where they cannot be read."""
    found = {}
    told = recipe.get("concepts", [])
    for data in told if isinstance(told, list) else [told]:
        path = str(data.get("path")) if isinstance(data, dict) else ""
        found.setdefault(path, []).append(from_json(data))
    return found


def recipe_arguments(options):
    """Return a recipe's options {name: value} as a command line's words, without what are defaults anyway."""
    return to_arguments(options, DEFAULTS | dependent_defaults(options))


def to_arguments(options, defaults):
    """Return a command line's words from {name: value}, without what equals `defaults`.

    Options that no recipe may hold are left out. Raises UsageError for a value that no command line would give.
    """
    words = []
    for name, value in options.items():
        off = value is None and defaults.get(name) is True  # as a preset has it that does without
        if name not in SWITCHES or value == defaults.get(name) or value is None and not off:
            continue
        switch = SWITCHES[name]
        if off or isinstance(value, bool):
            words.append(switch if value else "--no-" + switch[2:])
            continue
        values = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        if any(item.startswith("-") for item in values):  # it would be read as an option
            raise UsageError(f"the recipe has a strange {switch}: {' '.join(values)[:80]}")
        words += [switch, *values]
    return words


def command(script, images, words):
    """Return the command line as one would type it; `words` may end with an option that takes several values."""
    return shlex.join(["python", script, *map(str, images), *words])


def print_recipe(path):
    """Print the command that made the image at `path`."""
    recipe = read_recipe(path)
    options = recipe["options"]
    images = [] if options.get("noise") else [recipe.get("picture", "PICTURE")]
    print(command("dream.py", images, recipe_arguments(options)))
