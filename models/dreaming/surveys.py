"""Surveys: a sheet of small dreams of one image, each with the command that makes it (dream.py --survey)."""

import argparse

import models

from dataset.cli import UserError, log, progress
from dataset.images import resize_to, write_image
from dataset.plots import contact_sheets

from .background import background_layers
from .concepts import default_layer
from .options import override
from .recipes import command, recipe_arguments
from .targets import chosen_targets

SURVEY_SIZE = 256  # pixels, the longest side of an image that is surveyed


def survey(dream, net, args, options, image, path, output):
    """Dream on an image in every way that args.survey names, print the command of each, and write the sheets.

    dream: deepdream(). options: its keyword arguments. path: the image's file, None for noise. output: the first
    sheet's file; further ones are numbered.
    """
    image, _ = resize_to(image, max_size=SURVEY_SIZE)
    done = []
    try:
        cells = concept_cells(net, args) if args.concepts else survey_cells(net, args.survey)
        for label, choice in progress(quiet=args.quiet, iterable=cells, unit="dream"):
            other = models.load(choice["model"]) if choice.get("model") else net
            chosen = argparse.Namespace(**override(vars(args), choice))
            try:
                targets = {"layers": chosen_targets(other, chosen), "classes": None, "concepts": None}
                done.append((label, dream(other, image, **options | targets)))
            except UserError as error:
                log(f"{label}: {error}", args.quiet)
                continue
            words = recipe_arguments(vars(chosen))
            print(command("dream.py", [path] if path else [], words), flush=True)
    finally:  # of an interrupted survey, too
        for page, sheet in enumerate(contact_sheets(done), 1):
            place = output if page == 1 else output.with_name(f"{output.stem}_{page}{output.suffix}")
            write_image(place, sheet)
            print(place, flush=True)


def survey_cells(net, what):
    """Return [(label, options)] of a survey of "stages", of all "models" here, or of the channels of a layer."""
    if what == "models":
        return [(name, {"model": name, "layers": None}) for name in models.REGISTRY if models.installed(name)]
    if what == "stages":
        stages = [name for name, (_, stride) in net.layer_info.items() if stride and not is_part(name, net.layer_info)]
        return [(name, {"layers": [name]}) for name in stages]
    layer = net.resolve(what)
    return [(f"{layer}:{c}", {"layers": [f"{layer}:{c}"]}) for c in range(net.layer_info[layer][0])]


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
