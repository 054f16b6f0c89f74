"""Surveys: small dreams of one image, each with the command that makes it, on a page or a sheet (dream.py --survey)."""

import argparse
import hashlib
import json

import models

from dataset.cli import UsageError, UserError, log, print_result, progress
from dataset.images import resize_to, write_image
from dataset.plots import contact_sheets

from . import atlas
from .background import background_layers
from .concepts import default_layer
from .options import CLASS_SURVEY, OPTIONS, override
from .recipes import command, recipe_arguments, recipe_options
from .targets import chosen_targets, class_text

SURVEY_SIZE = 256  # pixels, the longest side of an image that is surveyed


def survey(dream, net, args, options, image, path, output):
    """Dream on an image in every way that args.survey names, print the command of each, and write them to `output`.

    dream: deepdream(). options: its keyword arguments. path: the image's file, None for noise. output: an .html page,
    or an image: the first sheet's file; further ones are numbered.
    """
    image, _ = resize_to(image, max_size=SURVEY_SIZE)
    cells = concept_cells(net, args) if args.concepts else survey_cells(net, args.survey)
    if output.suffix.lower() in atlas.SUFFIXES:
        title = f"{path.name if path else 'noise'}: {args.survey}, {net.path.name}"
        place = atlas.Page(output, title, survey_key(net, args, image), args.resume)
    else:
        place = Sheets(output)
    try:
        for label, choice in progress(quiet=args.quiet, iterable=cells, unit="dream"):
            if label in place.names:
                continue
            other = models.load(choice["model"]) if choice.get("model") else net
            chosen = argparse.Namespace(**override(vars(args), choice))
            try:
                targets = {"layers": chosen_targets(other, chosen), "classes": None, "concepts": None}
                dreamed = dream(other, image, **options | targets)
            except UserError as error:
                log(f"{label}: {error}", args.quiet)
                continue
            words = recipe_arguments({name: getattr(chosen, name) for name in OPTIONS})
            line = command("dream.py", [path] if path else [], words)
            place.add(label, line, dreamed)
            print_result(line)
        place.finished = True
    finally:  # of an interrupted survey, too
        for file in place.write():
            print_result(file)


def survey_key(net, args, image):
    """Return what tells a survey from another: its image, weights and options."""
    told = [args.survey, net.weights_sha256, recipe_options(net, args)]
    return hashlib.sha256(json.dumps(told).encode() + image.tobytes()).hexdigest()


class Sheets:
    """Sheets of small dreams with their names, one image file a sheet; the same methods as atlas.Page."""

    def __init__(self, path):
        self.path, self.names, self.cells, self.finished = path, set(), [], False

    def add(self, name, command, dream):
        self.cells.append((name, dream))

    def write(self):
        """Write the sheets, and return their paths."""
        written = []
        for number, sheet in enumerate(contact_sheets(self.cells), 1):
            end = f"_{number}" if number > 1 else ""
            written.append(self.path.with_name(f"{self.path.stem}{end}{self.path.suffix}"))
            write_image(written[-1], sheet)
        return written


def survey_cells(net, what):
    """Return [(label, options)] of a survey of "stages", all "models" here, "classes:TEXT" or the channels of a layer.

    Raises UsageError for a layer that is not there, or where no class has such a name.
    """
    if what.startswith(CLASS_SURVEY):
        return class_cells(net, what.removeprefix(CLASS_SURVEY))
    if what == "models":
        return [
            (name, {"model": name, "weights": None, "layers": None})
            for name in models.REGISTRY
            if models.installed(name)
        ]
    if what == "stages":
        stages = [name for name, (_, stride) in net.layer_info.items() if stride and not is_part(name, net.layer_info)]
        return [(name, {"layers": [name]}) for name in stages]
    layer = net.resolve(what)
    return [(f"{layer}:{c}", {"layers": [f"{layer}:{c}"]}) for c in range(net.layer_info[layer][0])]


def class_cells(net, text):
    """Return [(label, options)] of a survey of the classes whose names hold a text."""
    if not net.classes:
        raise UsageError(f"{net.path}: these weights do not name their classes")
    found = [i for i, name in enumerate(net.classes) if text.strip().casefold() in name.casefold()]
    if not found:
        raise UsageError(f"--survey {CLASS_SURVEY}{text}: no class has that in its name; see --list-classes")
    return [(f"{net.classes[i]} #{i}", {"classes": [class_text(net, i)]}) for i in found]


def concept_cells(net, args):
    """Return [(label, options)] of a survey of concepts: at every layer with a background, or of all "models" here."""
    if args.survey == "models":
        return [(name, choice | {"concepts": args.concepts}) for name, choice in survey_cells(net, "models")]
    layers = background_layers(net, args.background, args.quiet) or [default_layer(net)]
    return [(layer, {"layers": [layer], "concepts": args.concepts}) for layer in layers]


def is_part(name, layers):
    """Whether a layer lies within another of `layers`, as inception4c.branch1 does."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in layers for n in range(1, len(parts)))
