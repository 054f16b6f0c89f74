"""The command line of train_dream.py."""

import argparse
import re
from pathlib import Path

import models

from dataset import Augmentation
from dataset.cli import Parser, UsageError, npz_path, number, seed_number, whole_number
from dataset.features import flips_only

from .checkpoints import damaged, read_settings

# Gentle on what the base knows, so that it still knows what things look like: see README.md, "Training"
DEFAULTS = {"optimizer": "adamw", "epochs": 8, "balance": True, "retain": 1.0, "batch_norm": "running"}
AUGMENT = {"crop": 0.4, "flip": 0.5, "colour": 0.1}
SCRATCH_DEFAULTS = {"optimizer": "sgd", "epochs": 10, "balance": False, "retain": 0.0, "batch_norm": "batch"}
SCRATCH_AUGMENT = AUGMENT | {"crop": 0.25}
CACHE_AUGMENT = {"flip": 0.5}
RATES = {"sgd": 0.005, "adam": 0.0003, "adamw": 0.0002}
SCRATCH_RATE = 10  # times these, from scratch
HEAD_RATES = {"sgd": 5, "adam": 5, "adamw": 15}  # times the rate: new parameters have further to go
FORMER = {"retain": 0.0, "batch_norm": "batch"}  # of runs begun before there were these options
IMAGE_SIZE = 160  # pixels, as the backgrounds were measured
EXAMPLES = (
    "python train_dream.py dataset/slugs --preview photo.jpg --preview-class slug",
    "python train_dream.py dataset/slugs --resume",
    "python train_dream.py dataset/twenty --from-scratch -o twenty_mlx.npz",
)
# What decides about the weights of a run, beside the images and the network
SETTINGS = (
    *("epochs", "batch_size", "optimizer", "lr", "head_lr", "momentum", "weight_decay", "schedule", "warmup", "clip"),
    *("label_smoothing", "balance", "seed", "image_size", "val", "cache", "freeze_to", "train", "retain", "batch_norm"),
)
FOR_EVAL = ("folder", "eval", "weights", "base", "batch_size", "seed", "image_size", "val", "workers", "quiet")


def parse_arguments(arguments=None):
    """Return the options, with `name` and `run` (the run's name and folder) and `augmentation`. Raises UsageError."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.eval:
        for name, value in vars(args).items():
            if name not in FOR_EVAL and value != parser.get_default(name):
                raise UsageError(f"--eval trains nothing: leave out --{name.replace('_', '-')}")
    else:
        if args.from_scratch:
            parser.set_defaults(**SCRATCH_DEFAULTS)
        parser.set_defaults(**dependent_defaults(parser.parse_args(arguments)))
        if args.resume:
            parser.set_defaults(**settings_to_resume(parser.parse_args(arguments)))
        args = parser.parse_args(arguments)
    check_combinations(args)
    args.name = run_name(args.weights if args.eval else args.output)
    args.run = Path("runs") / args.name
    args.augmentation = augmentation(args)
    return args


def build_parser():
    parser = Parser(
        prog="train_dream.py",
        usage="train_dream.py [options] FOLDER",
        description="Fine-tune a network on your pictures, to dream of them.",
        epilog=describe_scratch_defaults(),
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="pictures in FOLDER/<class>/, or in FOLDER/train/<class>/ and val/<class>/")
    add(
        *("-o", "--output"),
        type=npz_path,
        metavar="NPZ",
        help="weights file to write, NAME_mlx.npz (default: models/weights/FOLDER_mlx.npz); the log is in runs/NAME/",
    )
    add("--resume", action="store_true", help="go on with an interrupted run, with its options")
    add("--eval", action="store_true", help="train nothing; print how well --weights tell the classes of FOLDER apart")
    add("--quiet", action="store_true", help="no progress bars")
    add_network(parser.add_argument_group("network").add_argument)
    learning = parser.add_argument_group("learning")
    add_learning(learning.add_argument)
    add_regularization(learning.add_argument)
    add_pictures(parser.add_argument_group("pictures").add_argument)
    add_preview(parser.add_argument_group("preview").add_argument)
    parser.set_defaults(**DEFAULTS)
    return parser


def describe_scratch_defaults():
    """Return the sentence of --help about the defaults that --from-scratch brings along."""
    words = ["--augment", describe_augment(SCRATCH_AUGMENT)]
    for name, value in SCRATCH_DEFAULTS.items():
        option = name.replace("_", "-")
        words += (
            ["--no-" + option]
            if value is False
            else [f"--{option}", f"{value:g}" if isinstance(value, float) else str(value)]
        )
    return f"Other defaults with --from-scratch: {' '.join(words)}, and {SCRATCH_RATE} times the learning rate."


def describe_augment(changes):
    return " ".join(f"{name}={value:g}" for name, value in changes.items())


def add_network(add):
    add(
        "--base",
        choices=models.REGISTRY,
        metavar="NAME",
        help="network to start from (default: what --weights holds, else googlenet); see dream.py --list-models",
    )
    add("--weights", type=Path, metavar="FILE", help="weights to start from (default: as dream.py finds them)")
    add("--from-scratch", action="store_true", help="start from random weights, and train the whole network")
    add(
        "--freeze-to",
        metavar="LAYER",
        help="leave the layers up to this one as they are; none: train all (default: inception3b for googlenet, "
        "about a third of the others)",
    )
    add(
        "--train",
        nargs="+",
        metavar="LAYER",
        help="train these layers only, such as inception5b fc",
    )
    add(
        "--aux",
        choices=("train", "strip"),
        metavar="HOW",
        help="auxiliary classifiers: train them, each for 0.3 of its loss, or strip them off (default: train where "
        "the base has them, and from scratch)",
    )


def add_learning(add):
    add("--epochs", type=whole_number(1), metavar="N", help="how often to go through the pictures")
    add("--batch-size", type=whole_number(1), default=32, metavar="N", help="pictures a step")
    add("--optimizer", choices=RATES, metavar="NAME", help="sgd, adam or adamw")
    add(
        "--lr",
        type=number(above=0),
        metavar="X",
        help=f"learning rate (default: {', '.join(f'{rate:g} for {name}' for name, rate in RATES.items())})",
    )
    add(
        "--head-lr",
        type=number(above=0),
        metavar="X",
        help="learning rate of layers that the base did not have, as the classifier (default: 15 times --lr for "
        "adamw, else 5 times)",
    )
    add("--momentum", type=number(least=0, below=1), default=0.9, metavar="X", help="momentum of sgd")
    add(
        "--weight-decay", type=number(least=0), default=0.0001, metavar="X", help="how strongly weights are pulled to 0"
    )
    add(
        "--schedule",
        choices=("cosine", "step", "constant"),
        default="cosine",
        metavar="HOW",
        help="learning rate over the run: constant; cosine: falls to 0; step: falls to a tenth after each third",
    )
    add(
        "--warmup",
        type=number(least=0),
        default=0.5,
        metavar="X",
        help="length of the learning rate's rise from 0, in epochs",
    )


def add_regularization(add):
    add(
        "--clip",
        type=number(above=0),
        default=5.0,
        metavar="X",
        help="longest gradient that is let through, its L2 norm",
    )
    add(
        "--label-smoothing",
        type=number(least=0, below=1),
        default=0.0,
        metavar="X",
        help="share of the target that all classes get alike, 0..1",
    )
    add("--balance", action=argparse.BooleanOptionalAction, help="let rare classes count as much as common ones")
    add(
        "--retain",
        type=number(least=0),
        metavar="X",
        help="how much it counts that features stay those of the base, so that the network still knows what things "
        "look like; 0: plain fine-tuning, which stores no concepts without --background",
    )
    add(
        "--batch-norm",
        choices=("running", "batch"),
        metavar="HOW",
        help="running: normalize by the base's statistics, which stay; batch: by each batch's, and learn new ones",
    )
    add("--seed", type=seed_number, metavar="N", help="seed of the random draws (default: 0)")


def add_pictures(add):
    add(
        "--background",
        metavar="FOLDER",
        help="ordinary photographs, for weights of which no background is known (see dream.py --concept); also learnt "
        "as one more class, 'background'",
    )
    add(
        "--image-size",
        type=whole_number(32, 4096),
        metavar="N",
        help="side of the squares that the network sees, in pixels (default: 160)",
    )
    add(
        "--val",
        type=number(least=0, below=1),
        metavar="X",
        help="share of each class to test on and not to learn from, 0..1, where FOLDER has no val/ (default: 0.1)",
    )
    add(
        "--augment",
        nargs="+",
        type=augment_option,
        metavar="NAME=X",
        help="random changes to pictures: crop: least share of the area; flip: probability; rotation: degrees; colour: "
        f"0..1; or none (default: {describe_augment(AUGMENT)}; with --cache {describe_augment(CACHE_AUGMENT)})",
    )
    add(
        "--cache",
        action="store_true",
        help="compute the frozen layers once for each picture and its mirror image, and keep that in runs/.cache/",
    )
    add(
        "--workers",
        type=whole_number(1),
        metavar="N",
        help="processes that read pictures (default: one a core, less one)",
    )


def add_preview(add):
    add("--preview", type=Path, metavar="PICTURE", help="dream on this picture after every epoch, of the first classes")
    add(
        "--preview-class",
        nargs="+",
        metavar="CLASS",
        help="of these classes instead, each in a row of its own, which begins with the untrained network's dream",
    )
    add(
        "--preview-layers",
        nargs="+",
        metavar="TARGET",
        help="or of these layers, as dream.py --layers",
    )


def augment_option(text):
    """A type for argparse: NAME=X as {NAME: X}, none as {}."""
    highest = {"crop": 1, "flip": 1, "rotation": 180, "colour": 1}
    name, _, value = text.partition("=")
    if text == "none":
        return {}
    try:
        known, value = name in highest, float(value)
    except ValueError:
        known = False
    if not known:
        raise argparse.ArgumentTypeError(f"{text}: write NAME=NUMBER, NAME one of {', '.join(highest)}")
    if not 0 <= value <= highest[name] or (name == "crop" and not value):
        raise argparse.ArgumentTypeError(f"{text}: {name} is between 0 and {highest[name]}")
    return {name: value}


def dependent_defaults(args):
    """Return the defaults that depend on other options; --eval takes those that were used in training."""
    rate = args.lr or RATES[args.optimizer] * (SCRATCH_RATE if args.from_scratch else 1)
    augment = CACHE_AUGMENT if args.cache else SCRATCH_AUGMENT if args.from_scratch else AUGMENT
    defaults = {"seed": 0, "image_size": IMAGE_SIZE, "val": 0.1, "augment": [augment]}
    defaults |= {"lr": rate, "head_lr": HEAD_RATES[args.optimizer] * rate}
    if not args.output:
        name = run_name(Path(args.folder).absolute())
        if name in models.REGISTRY:  # it would take the place of the published weights
            raise UsageError(f"name the weights file with -o: {name}_mlx.npz is that of a published network")
        defaults["output"] = models.WEIGHTS / f"{name}_mlx.npz"
    return defaults


def settings_to_resume(args):
    """Return the options of the run that --resume goes on with. Raises UserError where there is none."""
    path = Path("runs") / run_name(args.output) / "checkpoint.npz"
    settings = {**FORMER, **read_settings(path)}
    actions = {action.dest: action for action in build_parser()._actions}
    try:
        scale, flip, rotation, color = (
            float(re.search(rf"{name}=\(?([0-9.]+)", settings["augmentation"])[1])
            for name in ("scale", "flip", "rotation", "colour")
        )
        for name in SETTINGS:
            check_setting(actions[name], settings.get(name))
    except (KeyError, TypeError, ValueError, argparse.ArgumentTypeError):
        raise damaged(path) from None
    settings["augment"] = [{"crop": scale, "flip": flip, "rotation": rotation, "colour": color}]
    return {name: settings[name] for name in (*SETTINGS, "augment") if name in settings}


def check_setting(action, value):
    """Raise ValueError or TypeError if an option cannot have a value that a checkpoint holds for it."""
    if value is None:
        return
    if action.nargs == 0:
        fits = isinstance(value, bool)
    elif action.nargs == "+":
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    else:
        fits = isinstance(value, (int, float, str)) and (not action.choices or value in action.choices)
        if fits and action.type:
            action.type(str(value))
    if not fits:
        raise ValueError(action.dest)


def run_name(path):
    """Return the name of the run that a weights file, or a folder of images, stands for."""
    name = path.name.removesuffix(".npz").removesuffix("_mlx")
    if name.lstrip(".") != name or not name:
        raise UsageError(f"{path}: the run is named by it, and needs a name: give another with -o")
    return name


def check_combinations(args):
    """Raise UsageError for options that do not go together."""
    if args.eval and not args.weights:
        raise UsageError("--eval needs the network: --weights FILE")
    if args.from_scratch and (args.weights or args.train or args.freeze_to not in (None, "none")):
        raise UsageError("--from-scratch trains the whole network: leave out --weights, --train and --freeze-to")
    if args.train and args.freeze_to:
        raise UsageError("--train and --freeze-to exclude each other")
    if args.from_scratch and args.retain:
        raise UsageError("--from-scratch has nothing to retain: leave out --retain")
    if args.preview_class and args.preview_layers:
        raise UsageError("--preview-class and --preview-layers exclude each other")
    if (args.preview_class or args.preview_layers) and not args.preview:
        raise UsageError("--preview-class and --preview-layers need a picture to dream on: --preview PICTURE")
    if args.weights and args.output and args.output.exists() and args.output.samefile(args.weights):
        raise UsageError(f"{args.output} is the base itself: name another file with -o")


def augmentation(args):
    """Return the Augmentation that --augment asks for."""
    given = args.augment or [{}]
    if {} in given and len(given) > 1:
        raise UsageError("--augment none excludes all other changes")
    values = {"crop": 1.0, "flip": 0.0, "rotation": 0.0, "colour": 0.0}
    for change in given:
        values |= change
    crop, flip, rotation, color = values.values()
    if args.cache:
        if (crop, rotation, color) != (1, 0, 0):
            raise UsageError("--cache goes with no augmentation but flip: every other makes each picture new each time")
        return flips_only(flip)
    return Augmentation((crop, 1.0), flip=flip, rotation=rotation, colour=color)
