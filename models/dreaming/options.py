"""The options that decide about a dream: one table for both scripts, their defaults, and what a recipe tells.

A new option is one add_argument() line here: both scripts then have it, deepdream() gets it as the keyword argument
of its name, and recipes, --like and half-finished videos keep its value.
"""

import argparse
from pathlib import Path

from dataset.cli import Parser, UsageError, number, picture_size, seed_number, whole_number
from dataset.color import LUMA, load_matrix
from dataset.images import read_image

from ..registry import REGISTRY
from .objectives import Guide

VISUALIZE_DEFAULTS = {"noise": "224x224", "steps": 200}  # defaults under --visualize
ACCENTUATE_DEFAULTS = {"steps": 80}  # likewise with a picture
# Defaults for a class. With those of 2015 a class leaves a few spots of its colors; these, chosen by looking at
# images, make bodies of them: more way to go, coarse shapes as strong as fine ones, and the photograph's own colors.
CLASS_DEFAULTS = {"steps": 20, "step_size": 1.5, "lapnorm": 4, "smooth": 0.5, "decorrelate": True}
# Defaults for a concept: with the colors decorrelated the photograph stays one, and the dream grows out of it
CONCEPT_DEFAULTS = {"steps": 20, "step_size": 1.5, "lapnorm": 4, "smooth": 0.5, "decorrelate": True}
# The same for a frame of a video, which takes few steps
FRAME_CLASS_DEFAULTS = {name: value for name, value in CLASS_DEFAULTS.items() if name != "steps"}
FRAME_CONCEPT_DEFAULTS = {name: value for name, value in CONCEPT_DEFAULTS.items() if name != "steps"}

CLASS_SURVEY = "classes:"  # --survey classes:TEXT

# How dream.py --help ends
DREAM_EXAMPLES = (
    "python dream.py photo.jpg --preset dogslugs --max-size 1024",
    "python dream.py photo.jpg --concept dataset/cat -o cat.png",
    "python dream.py photos/ -o dreams/ --layers inception4c:13,27 conv3=0.2",
)

# Whoever gives one of these does without the other's old value, be it of a recipe or of a preset
EXCLUSIVE = (("layers", "classes", "concepts"), ("guide", "concepts"), ("width", "max_size"))

# A recipe tells these first and in this order; options that are not listed follow in the order of --help
ORDER = (
    *("model", "weights", "guide", "mask", "decorrelate", "width", "max_size", "noise", "visualize"),
    *(
        "layers",
        "classes",
        "concepts",
        "background",
        "octaves",
        "octave_scale",
        "steps",
        "step_size",
        "jitter",
        "seed",
        "tile",
    ),
    *("lapnorm", "smooth", "strength", "keep_color", "invert"),
)


# --- The table ---


def add_size_options(group):
    """Add --width and --max-size, see dataset.images.resize_to()."""
    add = group.add_argument
    add("--width", type=whole_number(1, 30000), metavar="N", help="resize to this width first, in pixels")
    longest = "shrink to at most this longer side first, in pixels"
    add("--max-size", type=whole_number(1), metavar="N", help=longest)


def add_image_options(parser):
    """Add what dream.py starts from: the size of the image, or noise in its place."""
    group = parser.add_argument_group("the picture")
    add_size_options(group)
    add = group.add_argument
    add(
        "--noise",
        type=picture_size,
        metavar="WIDTHxHEIGHT",
        help="dream on noise of this size, in pixels",
    )
    add(
        "--visualize",
        action="store_true",
        help="draw what a class, channel or concept looks like to the network: from noise (default: 224x224, "
        "200 steps) or, with a PICTURE, into it (default: 80 steps)",
    )


def add_recipe_options(parser):
    add = parser.add_argument_group("looks and recipes").add_argument
    add("--preset", metavar="NAME", help="a look, see --list-presets; options override it")
    add("--like", type=Path, metavar="PICTURE", help="dream as that dream was made; options override it")
    add("--recipe", type=Path, metavar="PICTURE", help="print the command that made this dream, and end")
    add("--save-concept", type=Path, metavar="FILE", help="keep what --concept found, an .npz for --concept FILE")
    add(
        "--survey",
        nargs="?",
        const="stages",
        metavar="WHAT",
        help="a page of small dreams instead: of every stage, of every channel of a LAYER, of the classes whose names "
        "hold TEXT ('classes:TEXT'), or of all 'models' here (default: stages); a sheet with -o NAME.png",
    )


def add_batch_options(parser):
    add = parser.add_argument_group("many and growing").add_argument
    add("--resume", action="store_true", help="leave out pictures whose dream is there already")
    add("--save-every", type=whole_number(1), metavar="N", help="also write the unfinished dream, every N steps")
    add(
        "--growth",
        choices=("pictures", "gif", "webp"),
        default="pictures",
        metavar="HOW",
        help="what --save-every makes: pictures in <dream>.frames/, or one moving gif or webp",
    )


def add_dream_options(parser):
    """Add the options that dream.py and dream_video.py share; settings() makes arguments of deepdream() of them."""
    add_target_options(parser)
    add_ascent_options(parser)
    add_gradient_options(parser)
    add_blend_options(parser)
    add_network_options(parser)


def add_network_options(parser):
    add = parser.add_argument_group("network").add_argument
    add(
        "--model",
        choices=REGISTRY,
        metavar="NAME",
        help="the network, see dream.py --list-models (default: that of --weights, else googlenet)",
    )
    add("--weights", metavar="FILE", type=Path, help="its weights, an .npz of convert.py or train_dream.py")


def add_target_options(parser):
    add = parser.add_argument_group("what to dream of").add_argument
    add(
        "--layers",
        nargs="+",
        metavar="TARGET",
        help="layers to enhance: LAYER[:CHANNELS][=WEIGHT], such as inception4c:13,27 or inception3b=0.3; see "
        "dream.py --list-layers (default: as the weights say, else the network's usual one)",
    )
    add(
        "--class",
        dest="classes",
        nargs="+",
        metavar="CLASS",
        help="classes that the network knows, NAME|INDEX[=WEIGHT], such as monarch; see dream.py --list-classes",
    )
    add(
        "--concept",
        dest="concepts",
        nargs="+",
        metavar="PATH",
        help="what the pictures in a folder show (or one picture, or a file of --save-concept): PATH[=WEIGHT]; "
        "--layers then says where in the network that is looked for",
    )
    photographs = "what a concept stands out from: some hundred photographs of all kinds (default: what is known of "
    photographs += "the weights)"
    add("--background", metavar="FOLDER", help=photographs)
    add("--guide", type=Path, metavar="PICTURE", help="dream of what this picture shows")
    add(
        "--invert",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="weaken what is named, instead of drawing it",
    )


def add_ascent_options(parser):
    add = parser.add_argument_group("how").add_argument
    add("--steps", type=whole_number(1), default=10, metavar="N", help="gradient steps at each octave")
    octaves = "sizes to dream at, smallest first"
    add("--octaves", type=whole_number(1), default=4, metavar="N", help=octaves)
    add(
        "--octave-scale",
        type=number(above=1),
        default=1.4,
        metavar="X",
        help="ratio of one size to the next",
    )
    add(
        "--step-size",
        type=number(above=0),
        default=1.5,
        metavar="X",
        help="mean change of a pixel a step, in levels of 0..255",
    )
    add(
        "--jitter",
        type=whole_number(0),
        default=32,
        metavar="N",
        help="largest random shift, in pixels",
    )
    add(
        "--tile",
        type=whole_number(64),
        metavar="N",
        help="compute large pictures in tiles of N x N pixels (default: as the memory allows)",
    )
    add(
        "--precision",
        choices=("float32", "float16"),
        default="float32",
        metavar="TYPE",
        help="arithmetic in the network: float32, or float16, which is faster on a GPU",
    )
    add(
        "--seed",
        type=seed_number,
        default=0,
        metavar="N",
        help="seed of the random draws",
    )


def add_gradient_options(parser):
    add = parser.add_argument_group("shaping the gradient").add_argument
    add(
        "--lapnorm",
        type=whole_number(0, 16),
        default=0,
        metavar="LEVELS",
        help="make coarse shapes as strong as fine ones, by a Laplacian pyramid of so many levels; usually 4 "
        "(default: %(default)s, off)",
    )
    add(
        "--smooth",
        type=number(least=0, most=100),
        default=0.0,
        metavar="SIGMA",
        help="blur the gradient by so many pixels, more at every step; usually 0.5 (default: %(default)s, off)",
    )
    alike = "change brightness and colour alike (the default)"
    add("--no-decorrelate", dest="decorrelate", action="store_const", const=False, help=alike)
    add(
        "--decorrelate",
        nargs="?",
        const=True,
        metavar="FILE",
        help="change brightness more than colour, as photographs do; by FILE of calc_cm.py, else the weights' own "
        "colour matrix, else ImageNet's",
    )


def add_blend_options(parser):
    add = parser.add_argument_group("where and how much").add_argument
    add("--mask", type=Path, metavar="PICTURE", help="dream where this is white, not where it is black")
    strength = "share of the dream in the result, 0..1"
    add("--strength", type=number(least=0, most=1), default=1.0, metavar="X", help=strength)
    color = "the picture's colours, the dream's brightness"
    add("--keep-color", action=argparse.BooleanOptionalAction, default=False, help=color)


def recipe_parser():
    """Return a parser of the options that a recipe may hold, and of nothing else."""
    parser = Parser(prog="dream.py", add_help=False)
    add_image_options(parser)
    add_dream_options(parser)
    return parser


def in_order(actions):
    """Return {name: action} in the order of recipes."""
    actions = {action.dest: action for action in actions}
    return {name: actions[name] for name in (*ORDER, *(name for name in actions if name not in ORDER))}


OPTIONS = in_order(recipe_parser()._actions)
SWITCHES = {name: action.option_strings[0] for name, action in OPTIONS.items()}  # {"octave_scale": "--octave-scale"}
DEFAULTS = {name: action.default for name, action in OPTIONS.items()}
# options that are no keyword arguments of deepdream()
NOT_SETTINGS = ("model", "weights", "width", "max_size", "noise", "visualize", "background")


def settings(args):
    """Return the keyword arguments of deepdream() from parsed options. Files that they name are read here, once."""
    options = {name: getattr(args, name) for name in OPTIONS if name not in NOT_SETTINGS}
    options["guide"] = Guide(read_image(args.guide), args.guide) if args.guide else None
    options["mask"] = read_image(args.mask) @ LUMA if args.mask else None
    options["decorrelate"] = load_matrix(args.decorrelate) if isinstance(args.decorrelate, str) else args.decorrelate
    return options


# --- Defaults that depend on other options ---


def dependent_defaults(options):
    """Return the defaults that {name: value} of options asks for: of --visualize, of a concept, of a class, or none.

    A preset is a whole look, into which no defaults for concepts and classes mix.
    """
    if options.get("visualize"):
        from_picture = options.get("pictures") or options.get("noise", "") is None  # the latter in a recipe
        return ACCENTUATE_DEFAULTS if from_picture else VISUALIZE_DEFAULTS
    if options.get("preset"):
        return {}
    if options.get("concepts"):
        return CONCEPT_DEFAULTS
    return CLASS_DEFAULTS if options.get("classes") or (options.get("survey") or "").startswith(CLASS_SURVEY) else {}


def check_concepts(concepts, guide, background):
    """Raise UsageError where there are concepts and a guide, or a background and no concepts."""
    if concepts and guide:
        raise UsageError("--concept has no use for --guide: take the one or the other")
    if background and not concepts:
        raise UsageError("--background is what a concept stands out against: it needs --concept")


def check_use(args, given):
    """Raise UsageError where an option of dream.py was given that would have no effect."""
    alone = {"model", "weights", "layers", "classes", "concepts", "background", "seed", "steps", "noise"}
    alone |= {"visualize", "width", "max_size"}
    what = args.survey or ""
    useless = {
        "--visualize": [name for name in ("survey", "preset", *SWITCHES) if args.visualize and name not in alone],
        "--noise": [name for name in ("width", "max_size") if args.noise],
        f"--survey {what}": (["layers"] if what == "models" or what.startswith(CLASS_SURVEY) else [])
        + (["concepts"] if what not in ("", "stages", "models") else []),
        "--survey": [name for name in ("classes", "save_every", "growth", "save_concept") if args.survey],
    }
    for option, names in useless.items():
        for name in names:
            if name in given:
                raise UsageError(f"{option} has no use for {SWITCHES.get(name, '--' + name.replace('_', '-'))}")
    check_concepts(args.concepts, args.guide, "background" in given)
    if args.save_concept and not (args.concepts and args.save_concept.suffix == ".npz"):
        raise UsageError("--save-concept FILE.npz saves what --concept finds: it needs that, and a name in .npz")
    if "growth" in given and not args.save_every:
        raise UsageError("--growth needs --save-every")
    if args.visualize and not (args.layers or args.classes or args.concepts):
        raise UsageError("--visualize: say of what, with --class, --concept or --layers LAYER:CHANNEL")


def given_options(parser, words):
    """Return {name: value} of the options that are on a command line, without defaults."""
    unset = object()
    blank = argparse.Namespace(**{action.dest: unset for action in parser._actions})
    return {name: value for name, value in vars(parser.parse_args(words, blank)).items() if value is not unset}


def override(*layers):
    """Merge {name: value} dicts, each overriding those before, also where its options exclude theirs."""
    options = {}
    for layer in layers:
        for names in EXCLUSIVE:
            if any(name in layer for name in names):
                options |= dict.fromkeys(names)
        options |= layer
    return options


def parse_over(parser, words, *layers):
    """Parse a command line over the defaults that follow from it and over `layers`, {name: value} dicts.

    A later layer overrides an earlier one, and the command line all. The parser's defaults change with it.
    """
    told = override(*layers, given_options(parser, words))
    parser.set_defaults(**dependent_defaults(told) | told)
    return parser.parse_args(words)


def describe_defaults(of_class=CLASS_DEFAULTS, of_concept=CONCEPT_DEFAULTS):
    """Return the sentence of --help about the defaults {name: value} that --class and --concept bring along."""
    told = {}
    for option, defaults in (("--class", of_class), ("--concept", of_concept)):
        changed = {name: value for name, value in defaults.items() if value != DEFAULTS[name]}
        words = (SWITCHES[name] + ("" if value is True else f" {value:g}") for name, value in changed.items())
        told.setdefault(", ".join(words), []).append(option)
    return "Other defaults " + "; ".join(f"with {' or '.join(names)}: {words}" for words, names in told.items()) + "."
