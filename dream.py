"""DeepDream on pictures: the algorithm of 2015 on MLX, and its command line.

python dream.py assets/sample.jpg
python dream.py photo.jpg --layers inception3b inception4c:13,27=0.5 --octaves 5 -o dream.png

From Python:

    import models
    from dream import deepdream
    picture = deepdream(models.load("googlenet"), image, layers=["inception4c"])
"""

import argparse
import contextlib
import functools
from pathlib import Path

import models
from models.dreaming.gradients import IMAGENET_COLORS, gradient_transform
from models.dreaming.objectives import Guide, objective_function
from models.dreaming.presets import PRESETS, preset
from models.dreaming.recipes import command, given_options, layered, read_recipe, save_options, to_arguments
from models.dreaming.targets import linear, parse_targets
from models.dreaming.tiles import in_tiles, tile_size
from models.dreaming.visualize import visualize
from models.kernels.relu import redirected_relus

import mlx.core as mx
import numpy as np

from dataset.cli import (
    Parser,
    UsageError,
    UserError,
    log,
    number,
    picture_size,
    print_error,
    progress,
    run,
    whole_number,
)
from dataset.color import LUMA, load_matrix
from dataset.folder import expand
from dataset.images import (
    check_writable,
    read_image,
    read_image_and_alpha,
    resize_image,
    write_animation,
    write_image,
)
from dataset.plots import contact_sheets

# --- The algorithm ---


def deepdream(
    net,
    image,
    layers=None,
    octaves=4,
    octave_scale=1.4,
    steps=10,
    step_size=1.5,
    jitter=32,
    seed=0,
    guide=None,
    tile=None,
    classes=None,
    lapnorm=0,
    smooth=0,
    decorrelate=None,
    mask=None,
    strength=1.0,
    keep_color=False,
    invert=False,
    callback=None,
    watch=None,
):
    """Dream on an image; returns the dreamed image, H x W x 3 float32, 0..255, like the image given.

    net: from models.load(). layers: targets, each LAYER[:CHANNELS][=WEIGHT]; classes: each NAME|INDEX[=WEIGHT], whose
    logits are climbed, with CLASS_DEFAULTS below for settings that suit them (neither: the network's own layer).
    octaves, octave_scale: the image is dreamed on at `octaves` sizes, each `octave_scale` times the one before.
    steps: gradient steps an octave. step_size: how far a step moves a pixel on average, in grey levels of 255.
    jitter: the largest shift of the image before a step, in pixels. seed: of the shifts.
    guide: another image, whose features are dreamed instead of the image's own; or a Guide, which knows them for the
    next call, too.
    tile: side of the tiles in which the gradient of a large image is computed, in pixels (None: by the memory at hand).
    lapnorm (levels), smooth (sigma, pixels), decorrelate (True, or a matrix of calc_cm.py): see models/gradients.py.
    mask: H x W of any size, 0..255; the image changes where it is white, and by half where it is grey.
    strength: of the dream in the result, 0..1. keep_color: take its brightness alone. invert: descend.
    callback: called without arguments after each step. watch: called after each step with a function that returns
    the whole picture as it stands.

    Raises UsageError for a wrong target, UserError where the image is too small for it.
    Source: google/deepdream, dream.ipynb (2015).
    """
    targets = parse_targets(net, layers, classes)
    sizes = octave_sizes(net, image.shape, targets, octaves, octave_scale)
    rng = np.random.default_rng(seed)
    gradient = in_tiles(gradient_function(net, targets, guide), tile or tile_size(net, targets), rng)
    shape = gradient_transform(lapnorm, smooth, color_matrix(net, decorrelate))
    step = -step_size if invert else step_size

    bases = [np.asarray(image, np.float32)]
    for size in sizes[1:]:
        bases.append(resize_linear(bases[-1], size))

    def report(image, base):
        if callback:
            callback()
        if watch:
            watch(
                lambda: blend(
                    bases[0], bases[0] + resize_linear(np.array(image) - base, bases[0].shape), strength, keep_color
                )
            )

    detail = np.zeros_like(bases[-1])
    for base in reversed(bases):
        # what was dreamed so far is carried on without the photograph, which stays as sharp as it was
        detail = resize_linear(detail, base.shape)
        where = None if mask is None else resize_image(mask, base.shape[:2])[..., None] / 255
        if where is not None:
            detail = detail * (where > 0)  # zooming spreads it over the edge
        after = functools.partial(report, base=base)
        dreamed = gradient_ascent(gradient, base + detail, steps, step, jitter, rng, after, shape, where)
        detail = dreamed - base
    return blend(bases[0], dreamed, strength, keep_color)


def gradient_ascent(gradient, image, steps, step_size, jitter, rng, callback=None, shape=None, mask=None):
    """`steps` steps of gradient ascent on an image H x W x 3, each on a shifted copy, normalised by mean |gradient|.

    gradient: of gradient_function(). callback: called with the image after each step. shape: of gradient_transform().
    mask: H x W x 1, 0..1, times which the image moves.
    """
    image = mx.array(image)
    mask = 1 if mask is None else mx.array(mask)
    blocked = True  # until a step has shown that some gradient reaches the image
    for i in range(steps):
        before = image
        shift = [int(s) for s in rng.integers(-jitter, jitter + 1, 2)]
        shifted = mx.roll(image, shift, axis=(0, 1))
        g = gradient(shifted)
        if blocked:
            blocked = not mx.any(g).item()
            g = gradient(shifted, redirected=True) if blocked else g
        g = mx.roll(g, [-s for s in shift], axis=(0, 1))
        g = shape(g, i, steps) if shape else g
        image = mx.clip(image + step_size / mx.maximum(mx.abs(g).mean(), 1e-30) * g * mask, 0, 255)
        mx.async_eval(image)
        mx.eval(before)  # this step computes while the next one is laid out; MLX is lazy, and more would pile up
        if callback:
            callback(image)
    return np.array(image)


def gradient_function(net, targets, guide=None):
    """A function image (H x W x 3 mx.array) -> gradient of objective_function(): how to change it to see more of them.

    Called with redirected=True, blocked ReLUs pass the gradient of linear targets on: for targets that are dead all
    over the image, which have no other.
    """
    if guide is not None and not isinstance(guide, Guide):
        guide = Guide(guide)
    features = guide.features(net, targets) if guide else None
    climb = mx.grad(objective_function(net, targets, features))
    revive = mx.grad(objective_function(net, linear(targets)))

    def gradient(image, redirected=False):
        if not redirected:
            return climb(image)
        with redirected_relus():
            return revive(image)

    return gradient


def color_matrix(net, decorrelate):
    """The matrix that `decorrelate` asks for: itself; for True that of the weights, or else ImageNet's; or None."""
    if decorrelate is None or decorrelate is False:
        return None
    return (net.metadata.get("color_matrix") or IMAGENET_COLORS) if decorrelate is True else decorrelate


def blend(image, dreamed, strength=1.0, keep_color=False):
    """The dream at `strength` over the image; with the image's own colours (Cb and Cr of BT.601) if asked for."""
    change = dreamed - image
    if keep_color:
        change = (change @ LUMA)[..., None]  # of brightness, in all three alike
    return np.clip(image + strength * change, 0, 255) if keep_color or strength < 1 else dreamed


def resize_linear(image, size):
    """Linear interpolation of H x W x C to the first two numbers of `size`, exactly as the notebook of 2015."""
    from scipy import ndimage

    if image.shape[:2] == tuple(size[:2]):
        return image
    return ndimage.zoom(image, (size[0] / image.shape[0], size[1] / image.shape[1], 1), order=1)


def octave_sizes(net, shape, targets, octaves, octave_scale):
    """[(height, width)] of the octaves that the network can take, from the image's own size down."""
    sizes = [tuple(shape[:2])]
    for _ in range(octaves - 1):
        sizes.append(tuple(round(side / octave_scale) for side in sizes[-1]))
    names = [target.layer for target in targets]
    fitting = [size for size in sizes if min(size) > 0 and net.accepts_size(*size, names)]
    if not fitting:
        raise UserError(f"{shape[1]} x {shape[0]} pixels are too few for {', '.join(names)}: take a larger picture")
    return fitting


# --- The command line ---


def add_dream_options(parser):
    """The options that dream.py and dream_video.py share. settings() turns what was given into arguments."""
    network = parser.add_argument_group("network")
    add = network.add_argument
    add("--model", choices=models.REGISTRY, metavar="NAME", help="see --list-models (default: what --weights holds, "
        "else googlenet)")  # fmt: skip
    add("--weights", metavar="FILE", type=Path, help="an .npz of convert.py or train_dream.py")

    add = parser.add_argument_group("what to dream of").add_argument
    add("--layers", nargs="+", metavar="TARGET", help="what to enhance: LAYER[:CHANNELS][=WEIGHT], such as "
        "inception4c, inception4c:13,27 or inception3b=0.3; see --list-layers (default: what the "
        "weights or the network name)")  # fmt: skip
    add("--class", dest="classes", nargs="+", metavar="CLASS", help="a class of the network's, NAME|INDEX[=WEIGHT], "
        "such as 'monarch'; see --list-classes")  # fmt: skip
    add("--guide", type=Path, metavar="PICTURE", help="dream of what this picture shows")
    add("--invert", action=argparse.BooleanOptionalAction, default=False, help="take away instead: descend")

    add = parser.add_argument_group("how").add_argument
    add("--octaves", type=whole_number(1), default=4, metavar="N", help="sizes to dream at")
    add("--octave-scale", type=number(above=1), default=1.4, metavar="X", help="ratio of two sizes")
    add("--steps", type=whole_number(1), default=10, metavar="N", help="gradient steps an octave")
    add("--step-size", type=number(above=0), default=1.5, metavar="X", help="mean change of a pixel in a step, in "
        "levels of 0..255")  # fmt: skip
    add("--jitter", type=whole_number(0), default=32, metavar="N", help="largest random shift, pixels")
    add("--tile", type=whole_number(64), metavar="N", help="compute large pictures in tiles of N x N pixels (default: "
        "as the memory at hand allows)")  # fmt: skip
    add("--seed", type=whole_number(0), default=0, metavar="N", help="of everything random")

    add = parser.add_argument_group("shaping the gradient").add_argument
    add("--lapnorm", type=whole_number(0), default=0, metavar="LEVELS", help="make coarse and fine shapes equally "
        "strong, by a Laplacian pyramid of so many levels; 4 is usual (default: %(default)s, off)")  # fmt: skip
    add("--smooth", type=number(least=0), default=0.0, metavar="SIGMA", help="blur it, by three "
        "Gaussians around SIGMA pixels, wider at every step; 0.5 is usual (default: %(default)s, off)")  # fmt: skip
    add("--decorrelate", nargs="?", const=True, metavar="FILE", help="change brightness more than colour, as pictures "
        "do: by the weights' own colour matrix, else ImageNet's, or FILE of calc_cm.py")  # fmt: skip

    add = parser.add_argument_group("where and how much").add_argument
    add("--mask", type=Path, metavar="PICTURE", help="dream where it is white, keep where it is black")
    add(
        "--strength", type=number(least=0, most=1), default=1.0, metavar="X", help="of the dream over the picture, 0..1"
    )
    add("--keep-color", action=argparse.BooleanOptionalAction, default=False, help="the picture's colours, the "
        "dream's brightness")  # fmt: skip


DREAM_SETTINGS = (
    *("layers", "classes", "octaves", "octave_scale", "steps", "step_size", "jitter", "seed", "tile"),
    *("lapnorm", "smooth", "strength", "keep_color", "invert"),
)


def settings(args):
    """The keyword arguments of deepdream() from parsed options. Files that they name are read here, once."""
    options = {name: getattr(args, name) for name in DREAM_SETTINGS}
    options["guide"] = Guide(read_image(args.guide)) if args.guide else None
    options["mask"] = read_image(args.mask) @ LUMA if args.mask else None
    options["decorrelate"] = load_matrix(args.decorrelate) if isinstance(args.decorrelate, str) else args.decorrelate
    return options


def build_parser():
    of_class = ", ".join(f"{SWITCHES[name]} {value:g}" for name, value in CLASS_DEFAULTS.items())
    parser = Parser(prog="dream.py", description="Dream on pictures, as DeepDream did in 2015, and beyond.",
                    epilog=f"With --class, unless given or a --preset tells otherwise: {of_class}.")  # fmt: skip
    add = parser.add_argument
    add("pictures", nargs="*", metavar="PICTURE", help="pictures, folders, patterns such as 'photos/*.jpg'")
    add("-o", "--output", type=Path, metavar="OUT", help="a .png, .jpg or .webp file, or a folder for several "
        "pictures (default: <name>_dream.png in the current folder)")  # fmt: skip
    add("--quiet", action="store_true", help="no progress bar, no notes")

    add = parser.add_argument_group("the picture").add_argument
    add("--width", type=whole_number(1), metavar="N", help="resize to this width first, pixels")
    add("--max-size", type=whole_number(1), metavar="N", help="shrink to this longest side first, pixels")
    add("--noise", type=picture_size, metavar="WIDTHxHEIGHT", help="start from noise instead of a picture")
    add("--visualize", action="store_true", help="from noise, show what a class or channel looks like to the network: "
        "feature visualisation in decorrelated colours and frequencies (--noise 224x224 and --steps 200, "
        "unless given)")  # fmt: skip

    add_dream_options(parser)

    add = parser.add_argument_group("looks and recipes").add_argument
    add("--preset", metavar="NAME", help="a look by its name, see --list-presets; other options override it")
    add("--like", type=Path, metavar="PICTURE", help="as that dream was made; other options override it")
    add("--recipe", type=Path, metavar="PICTURE", help="print the command that made a dream, and end")
    add("--survey", nargs="?", const="stages", metavar="WHAT", help="a sheet of small dreams of the picture instead: "
        "of every stage, of every channel of a LAYER, or of all 'models' here (default without WHAT: stages); "
        "prints the command of each")  # fmt: skip

    add = parser.add_argument_group("many and growing").add_argument
    add("--resume", action="store_true", help="leave out pictures whose dream is there")
    add("--save-every", type=whole_number(1), metavar="N", help="keep the picture every N steps")
    add("--growth", choices=("pictures", "gif", "webp"), default="pictures", metavar="HOW", help="what --save-every "
        "makes: pictures in <dream>.frames/, or one animated gif or webp beside the dream")  # fmt: skip

    add = parser.add_argument_group("lists").add_argument
    for what in ("models", "layers", "classes", "presets"):
        add(f"--list-{what}", action="store_true", help=f"list the {what} there are, and end")
    return parser


RECIPE = (
    "model",
    "weights",
    "guide",
    "mask",
    "decorrelate",
    "width",
    "max_size",
    "noise",
    "visualize",
    *DREAM_SETTINGS,
)
SWITCHES = {name: "--" + {"classes": "class"}.get(name, name).replace("_", "-") for name in RECIPE}
EXCLUSIVE = (
    ("layers", "classes"),
    ("width", "max_size"),
)  # whoever gives one means to do without the other's old value


VISUALIZE_DEFAULTS = {"noise": "224x224", "steps": 200}  # defaults under --visualize
# Defaults for a class. With those of 2015 a class leaves a few spots of its colours; these, chosen by looking at
# pictures, are the least that makes bodies of them: more way to go, and coarse shapes as strong as fine ones.
CLASS_DEFAULTS = {"steps": 20, "step_size": 2.0, "lapnorm": 4, "smooth": 0.5}


def main(arguments=None):
    parser = build_parser()
    given = given_options(parser, arguments)
    args = with_defaults(parser, given)
    if args.recipe:
        return print_recipe(args.recipe, parser)
    if args.list_models:
        return list_models()
    if args.list_presets:
        return list_presets()
    repeated = {}
    if args.like:
        like = read_recipe(args.like)
        repeated = given_options(parser, recipe_arguments(parser, like["options"]))
        if args.pictures:  # to be treated like a dream that may have come from noise
            repeated = {name: value for name, value in repeated.items() if name not in ("noise", "visualize")}
        args = with_defaults(parser, repeated, given)
    check_use(args, given)
    inputs = find_inputs(args)
    outputs = output_paths(inputs, args.output, "survey" if args.survey else "dream")
    net = models.load(args.model, args.weights)
    if args.list_layers:
        return list_layers(net)
    if args.list_classes:
        return list_classes(net)
    if args.preset:
        look = preset(args.preset, net.metadata["model"])
        args = with_defaults(parser, repeated, look, given)
    if args.like and like.get("weights_sha256") != net.weights_sha256:
        log(f"note: {args.like} was made with other weights, {like.get('weights')}", args.quiet)
    todo = survey if args.survey else dream_on
    return run_all(inputs, outputs, args, functools.partial(todo, net, args, settings(args)))


def with_defaults(parser, *layers):
    """Options from {name: value} dicts, each overriding those before, and the defaults of what they do not tell.

    A preset is a whole look, into which no defaults for classes mix.
    """
    plain = vars(parser.parse_args([]))
    told = layered(EXCLUSIVE, plain, *layers)
    of_class = CLASS_DEFAULTS if told.classes and not told.preset else {}
    return layered(EXCLUSIVE, plain, VISUALIZE_DEFAULTS if told.visualize else of_class, *layers)


def recipe_arguments(parser, options):
    """A recipe's options {name: value} as a command line's words, without what are defaults anyway."""
    of_what = {name: options[name] for name in ("classes", "visualize") if options.get(name)}
    return to_arguments(options, vars(with_defaults(parser, of_what)) | dict.fromkeys(of_what), SWITCHES)


def check_use(args, given):
    """UsageError where an option was given that would have no effect."""
    alone = {"model", "weights", "layers", "classes", "seed", "steps", "noise", "visualize"}
    useless = {
        "--visualize": [name for name in ("survey", "preset", *SWITCHES) if args.visualize and name not in alone],
        "--noise": [name for name in ("width", "max_size") if args.noise],
        "--survey models": [name for name in ("layers", "classes") if args.survey == "models"],
        "--survey": [name for name in ("classes", "save_every", "growth") if args.survey],
    }
    for option, names in useless.items():
        for name in names:
            if name in given:
                raise UsageError(f"{option} has no use for {SWITCHES.get(name, '--' + name.replace('_', '-'))}")
    if "growth" in given and not args.save_every:
        raise UsageError("--growth needs --save-every")
    if args.visualize and not (args.layers or args.classes):
        raise UsageError("--visualize: say of what, with --class or --layers LAYER:CHANNEL")


def find_inputs(args):
    """[(path, place)] of the pictures; for noise, one whose path is None. UsageError where there is nothing to do."""
    if args.noise:
        if args.pictures:
            raise UsageError("--noise and --visualize start from nothing: give no picture")
        return [(None, Path("noise"))]
    if not (args.pictures or args.list_layers or args.list_classes):
        greedy = {"--layers": args.layers, "--class": args.classes, "--survey": [args.survey]}
        greedy |= {"--decorrelate": [args.decorrelate] if isinstance(args.decorrelate, str) else []}
        words = [(word, option) for option, values in greedy.items() for word in values or [] if word]
        hint = [f": put {word} before {option}" for word, option in words if Path(word).suffix and Path(word).exists()]
        hint = hint[0] if hint else "; try python dream.py assets/sample.jpg"
        raise UsageError(f"no picture given{hint}")
    inputs = expand(args.pictures)
    out = args.output and args.output.resolve()
    if out and any(Path(name).is_dir() and Path(name).resolve() in out.parents for name in args.pictures):
        inputs = [(path, place) for path, place in inputs if out not in path.resolve().parents]  # not the dreams again
    return inputs


def output_paths(inputs, output, kind="dream"):
    """Where each picture's dream goes. UsageError if that would be an input, or twice the same."""
    names = [place.with_name(f"{place.stem}_{kind}.png") for _, place in inputs]
    if output and (len(inputs) > 1 or output.is_dir() or not output.suffix):
        paths = [output / name for name in names]
    else:
        paths = [output or name for name in names]
    taken = {path.resolve() for path, _ in inputs if path}
    for i, path in enumerate(paths):
        check_writable(path)
        if path.resolve() in taken:
            raise UsageError(f"{path} is an input: give the dream another name with -o")
        if path in paths[:i]:
            raise UsageError(f"{inputs[i][0]} and another picture would both become {path}: dream on them one by one")
    return paths


def run_all(inputs, outputs, args, todo):
    """Call todo(path, output) for every picture, in spite of broken ones, which make the exit status 1.

    Under mlx.launch the pictures are shared out: the n-th process takes the n-th of every so many.
    """
    group = mx.distributed.init()
    jobs = list(zip(inputs, outputs, strict=True))[group.rank() :: group.size()]
    broken = 0
    for (path, _), output in jobs:
        if args.resume and output.exists():
            continue
        try:
            todo(path, output)
        except UserError as error:
            if len(outputs) == 1 or isinstance(error, UsageError):
                raise
            broken += 1
            print_error("dream.py", error, 1)
    if broken:
        raise UserError(f"{broken} of {len(jobs)} pictures could not be dreamed on")
    return 0


def dream_on(net, args, options, path, output):
    """Dream on one picture (None: on noise) and write the result, with its recipe in it."""
    image, alpha = load_input(args, path)
    targets = parse_targets(net, args.layers, args.classes)
    sizes = (
        [image.shape[:2]]
        if args.visualize
        else octave_sizes(net, image.shape, targets, args.octaves, args.octave_scale)
    )
    if not args.quiet:
        models.advise(net.path)
    if len(sizes) < args.octaves and not args.visualize:
        log(f"{path or 'noise'}: {len(sizes)} of {args.octaves} octaves; smaller ones are too small", args.quiet)
    name = path.name if path else "noise"
    with (
        progress(len(sizes) * args.steps, args.quiet, desc=name, unit="step") as bar,
        timelapse(image, output, args.save_every, args.growth) as watch,
    ):
        if args.visualize:
            dreamed = visualize(
                net, targets, *image.shape[:2], args.steps, seed=args.seed, callback=bar.update, watch=watch
            )
        else:
            dreamed = deepdream(net, image, **options, callback=bar.update, watch=watch)
    write_image(output, dreamed, alpha, **save_options(output, recipe_of(net, args, name)))
    print(output, flush=True)


def load_input(args, path):
    """The picture, or noise, to start from, and the picture's alpha or None."""
    if path is None:
        width, height = map(int, args.noise.split("x"))
        return noise(height, width, args.seed), None
    return fit(*read_image_and_alpha(path), args.width, args.max_size)


def noise(height, width, seed=0):
    """Grey grains around a middle grey, float32 H x W x 3, 0..255."""
    levels = np.random.default_rng(seed).normal(117, 12, (height, width, 3))
    return np.clip(levels, 0, 255).astype(np.float32)


def fit(image, alpha, width=None, max_size=None):
    """The picture at the size that was asked for, its alpha likewise."""
    longest = max(image.shape[:2])
    if width:
        scale = width / image.shape[1]
    elif max_size and longest > max_size:
        scale = max_size / longest
    else:
        return image, alpha
    size = [max(1, round(side * scale)) for side in image.shape[:2]]
    return resize_image(image, size), None if alpha is None else resize_image(alpha, size)


@contextlib.contextmanager
def timelapse(image, output, every, how):
    """A `watch` for deepdream() that keeps every `every`-th picture, beside `output`; None if there are to be none."""
    if not every:
        yield None
        return
    frames, count = [image], 0

    def watch(picture):
        nonlocal count
        count += 1
        if count % every == 0 and how == "pictures":
            write_image(output.with_suffix(".frames") / f"{count:04}.png", picture())
        elif count % every == 0:
            frames.append(picture())

    try:
        yield watch
    finally:  # of an interrupted dream, too
        if len(frames) > 1:
            path = output.with_name(f"{output.stem}_growth.{how}")
            write_animation(path, frames)
            print(path, flush=True)


def survey(net, args, options, path, output):
    """A sheet of small dreams of one picture, each with the command that makes it."""
    image, _ = load_input(args, path)
    image, _ = fit(image, None, max_size=SURVEY_SIZE)
    if not args.quiet:
        models.advise(net.path)
    cells, done, parser = survey_cells(net, args), [], build_parser()
    try:
        for label, choice in progress(quiet=args.quiet, iterable=cells, unit="dream"):
            other = models.load(choice["model"]) if choice.get("model") else net
            try:
                targets = {"layers": choice.get("layers"), "classes": None}
                done.append((label, deepdream(other, image, **options | targets)))
            except UserError as error:
                log(f"{label}: {error}", args.quiet)
                continue
            words = recipe_arguments(parser, vars(layered(EXCLUSIVE, vars(args), choice)))
            print(command("dream.py", [path] if path else [], words), flush=True)
    finally:  # of an interrupted survey, too
        for page, sheet in enumerate(contact_sheets(done), 1):
            place = output if page == 1 else output.with_name(f"{output.stem}_{page}{output.suffix}")
            write_image(place, sheet)
            print(place, flush=True)


SURVEY_SIZE = 256  # pixels, the longest side of a picture that is surveyed


def survey_cells(net, args):
    """[(label, options)] of what a survey shows."""
    if args.survey == "models":
        return [(name, {"model": name, "layers": None}) for name in models.REGISTRY if models.installed(name)]
    if args.survey == "stages":
        stages = [name for name, (_, stride) in net.layer_info.items() if stride and not is_part(name, net.layer_info)]
        return [(name, {"layers": [name]}) for name in stages]
    layer = net.resolve(args.survey)
    return [(f"{layer}:{c}", {"layers": [f"{layer}:{c}"]}) for c in range(net.layer_info[layer][0])]


def is_part(name, table):
    """Whether a layer lies within another, as inception4c.branch1 does."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in table for n in range(1, len(parts)))


def recipe_of(net, args, picture):
    options = {name: getattr(args, name) for name in RECIPE}
    options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return {
        "version": models.__version__,
        "model": net.metadata["model"],
        "weights": net.path.name,
        "weights_sha256": net.weights_sha256,
        "picture": picture,
        "options": options | {"model": net.metadata["model"]},
    }


def print_recipe(path, parser):
    recipe = read_recipe(path)
    options = recipe["options"]
    pictures = [] if options.get("noise") else [recipe.get("picture", "PICTURE")]
    print(command("dream.py", pictures, recipe_arguments(parser, options)))


def list_models():
    for name, entry in models.REGISTRY.items():
        here = models.find(name).name if models.installed(name) else f"python convert.py --download {name}"
        print(f"{name:22}{entry.title:36}{entry.default_layer:14}{here}")


def list_layers(net):
    print("layer                         channels  stride")
    for name, (channels, stride) in net.layer_info.items():
        print(f"{name:30}{channels:8}{stride or '':8}")


def list_classes(net):
    if not net.classes:
        raise UserError(f"{net.path}: these weights do not name their classes")
    for i, name in enumerate(net.classes):
        print(f"{i:5}  {name}")


def list_presets():
    for name, (description, *_) in PRESETS.items():
        print(f"{name:16}{description}")


if __name__ == "__main__":
    run(main)
