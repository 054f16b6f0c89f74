"""DeepDream on images: the algorithm of 2015 on MLX, and its command line.

python dream.py assets/sample.jpg
python dream.py photo.jpg --layers inception3b inception4c:13,27=0.5 --octaves 5 -o dream.png

From Python:

    import models
    from dream import deepdream
    dreamed = deepdream(models.load("googlenet"), image, layers=["inception4c"])
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import models
from models.dreaming.accentuate import accentuate
from models.dreaming.atlas import check_page, is_finished
from models.dreaming.concepts import Concept, save_concept
from models.dreaming.gradients import color_matrix, gradient_transform
from models.dreaming.objectives import Guide, objective_function, precision_dtype
from models.dreaming.octaves import octave_sizes
from models.dreaming.options import (
    DREAM_EXAMPLES,
    add_batch_options,
    add_dream_options,
    add_image_options,
    add_recipe_options,
    check_use,
    describe_defaults,
    given_options,
    parse_over,
    settings,
)
from models.dreaming.presets import PRESETS, preset
from models.dreaming.recipes import (
    make_recipe,
    print_recipe,
    read_recipe,
    recipe_options,
    remembered_concepts,
    repeated_options,
    save_options,
)
from models.dreaming.surveys import survey
from models.dreaming.targets import Target, chosen_targets, linear, parse_targets
from models.dreaming.tiles import bound_cache, in_tiles, tile_size
from models.dreaming.timelapse import timelapse
from models.dreaming.visualize import visualize
from models.kernels.arrays import mean_size, roll
from models.kernels.compilation import compiled
from models.kernels.relu import redirected_relus
from models.launch import join_group
from models.network import Network

import mlx.core as mx
import numpy as np

from dataset.cli import Parser, UsageError, UserError, error_text, log, print_error, print_result, progress, run
from dataset.color import LUMA
from dataset.decoding import is_animation
from dataset.files import disk_error, same_file, shorten
from dataset.folder import expand
from dataset.images import check_writable, read_image_and_alpha, resize_image, resize_linear, write_image
from dataset.viewer import show

# --- The algorithm ---


def deepdream(
    net: Network,
    image: np.ndarray,
    layers: Sequence[str | Target] | str | None = None,
    octaves: int | Sequence[tuple[int, int]] = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    step_size: float = 1.5,
    jitter: int = 32,
    seed: int = 0,
    guide: np.ndarray | Guide | None = None,
    tile: int | None = None,
    precision: str = "float32",
    classes: Sequence[str | int] | str | int | None = None,
    concepts: Sequence[str | Path | Concept] | str | Path | Concept | None = None,
    lapnorm: int = 0,
    smooth: float = 0,
    decorrelate: bool | np.ndarray | None = None,
    mask: np.ndarray | None = None,
    strength: float = 1.0,
    keep_color: bool = False,
    invert: bool = False,
    callback: Callable[[Callable[[], np.ndarray]], None] | None = None,
) -> np.ndarray:
    """Dream on an image; returns the dreamed image, H x W x 3 float32, 0..255, like the image given.

    net: from models.load(). layers: targets, each LAYER[:CHANNELS][=WEIGHT]; classes: each NAME|INDEX[=WEIGHT], whose
    logits are climbed, with options.CLASS_DEFAULTS for settings that suit them (neither: the network's own layer).
    concepts: what to dream of, each a folder of images, PATH[=WEIGHT], or a Concept; layers are then those at which it
    is looked for. options.CONCEPT_DEFAULTS suit them.
    octaves, octave_scale: the image is dreamed on at `octaves` sizes, each `octave_scale` times the one before; or
    octaves are the sizes themselves, of octave_sizes().
    steps: gradient steps an octave. step_size: how far a step moves a pixel on average, in grey levels of 255.
    jitter: the largest shift of the image before a step, in pixels. seed: of the shifts.
    guide: another image, whose features are dreamed instead of the image's own; or a Guide, which knows them for the
    next call, too.
    tile: side of the tiles in which the gradient of a large image is computed, in pixels (None: by the memory at hand).
    precision: of the arithmetic in the network, float32 or, on a GPU, float16.
    lapnorm (levels), smooth (sigma, pixels), decorrelate (True, or a matrix of calc_cm.py): see
    models/dreaming/gradients.py.
    mask: H x W of any size, 0..255; the image changes where it is white, and by half where it is grey.
    strength: of the dream in the result, 0..1. keep_color: take its brightness alone. invert: descend.
    callback: called after each step with a function that returns the whole image as it stands.

    Raises UsageError for a wrong target, UserError where the image is too small for it.
    Source: google/deepdream, dream.ipynb (2015).
    """
    targets = parse_targets(net, layers, classes, concepts)
    sizes = octaves
    if not isinstance(octaves, (list, tuple)):
        sizes = octave_sizes(net, image.shape, targets, octaves, octave_scale)
    rng = np.random.default_rng(seed)
    gradient = in_tiles(gradient_function(net, targets, guide, precision), tile or tile_size(net), rng)
    transform = gradient_transform(lapnorm, smooth, color_matrix(net, decorrelate))
    step = -step_size if invert else step_size

    bases = [np.asarray(image, np.float32)]
    for size in sizes[1:]:
        bases.append(resize_linear(bases[-1], size))

    def report(image, base):
        def current():
            detail = resize_linear(np.array(image) - base, bases[0].shape)
            return blend(bases[0], bases[0] + detail, strength, keep_color)

        callback(current)

    detail = np.zeros_like(bases[-1])
    for base in reversed(bases):
        bound_cache()
        # what was dreamed so far is carried on without the photograph, which stays as sharp as it was
        detail = resize_linear(detail, base.shape)
        where = None if mask is None else resize_image(mask, base.shape[:2])[..., None] / 255
        if where is not None:
            detail = detail * (where > 0)  # zooming spreads it over the edge
        after_step = functools.partial(report, base=base) if callback else None
        dreamed = gradient_ascent(gradient, base + detail, steps, step, jitter, rng, after_step, transform, where)
        detail = dreamed - base
    return blend(bases[0], dreamed, strength, keep_color)


def gradient_ascent(gradient, image, steps, step_size, jitter, rng, callback=None, transform=None, mask=None):
    """Take `steps` steps of gradient ascent on an image H x W x 3, each on a shifted copy, by g / mean |g|.

    gradient: of gradient_function(). callback: called with the image after each step. transform: of
    gradient_transform(). mask: H x W x 1, 0..1, times which the image moves.
    """
    move, mask = mover(step_size), None if mask is None else mx.array(mask)
    shifted, shift = mx.array(image), (0, 0)  # from one shift to the next, and not back in between
    blocked = True  # until a step has shown that some gradient reaches the image
    for i in range(steps):
        before = shifted
        last, shift = shift, tuple(int(s) for s in rng.integers(-jitter, jitter + 1, 2))
        shifted = roll(shifted, shift[0] - last[0], shift[1] - last[1])
        g = gradient(shifted)
        if blocked:
            blocked = not mx.any(g).item()
            g = gradient(shifted, redirected=True) if blocked else g
        if transform:
            g = roll(transform(roll(g, -shift[0], -shift[1]), i, steps), *shift)
        shifted = move(shifted, g) if mask is None else move(shifted, g, roll(mask, *shift))
        mx.async_eval(shifted)
        mx.eval(before)  # this step computes while the next one is laid out; MLX is lazy, and more would pile up
        if callback:
            callback(roll(shifted, -shift[0], -shift[1]))
    return np.array(roll(shifted, -shift[0], -shift[1]))


def mover(step_size):
    """Return a function (image, gradient, and perhaps a mask) -> the image a step further, within 0..255."""

    def move(image, g, mask=1):
        return mx.clip(image + step_size / mx.maximum(mean_size(g), 1e-30) * mask * g, 0, 255)

    return compiled(move)


def gradient_function(net, targets, guide=None, precision="float32"):
    """Return a function image (H x W x 3 mx.array) -> gradient of objective_function(), of the image's shape.

    Called with redirected=True, it is that of linear targets, which blocked ReLUs pass on: for targets that are dead
    (zero) all over the image, which have no other. Raises UsageError for float16 on a CPU.
    """
    dtype = precision_dtype(precision)
    if guide is not None and not isinstance(guide, Guide):
        guide = Guide(guide)
    features = guide.features(net, targets) if guide else None
    climb = compiled(mx.grad(objective_function(net, targets, features, dtype)))
    revive = mx.grad(objective_function(net, linear(targets), dtype=dtype))

    def gradient(image, redirected=False):
        if not redirected:
            return climb(image)
        with redirected_relus():
            return revive(image)

    return gradient


def blend(image, dreamed, strength=1.0, keep_color=False):
    """Lay the dream over the image at `strength`, 0..1; keep_color: with the image's own Cb and Cr (BT.601)."""
    change = dreamed - image
    if keep_color:
        change = (change @ LUMA)[..., None]  # of brightness, in all three alike
    return np.clip(image + strength * change, 0, 255) if keep_color or strength < 1 else dreamed


# --- The command line ---


def build_parser():
    parser = Parser(
        prog="dream.py",
        usage="dream.py [options] PICTURE ...",
        description="Dream on pictures, as DeepDream did in 2015, and beyond.",
        epilog=describe_defaults(),
        examples=DREAM_EXAMPLES,
    )
    add = parser.add_argument
    add("pictures", nargs="*", metavar="PICTURE", help="pictures, folders, patterns such as 'photos/*.jpg'")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="a .png, .jpg or .webp file, or a folder for several pictures (default: <name>_dream.png)",
    )
    add("--quiet", action="store_true", help="no progress bar, no notes")
    add("--show", action="store_true", help="open what was made in the system's viewer")
    add_recipe_options(parser)
    add_dream_options(parser)
    add_image_options(parser)
    add_batch_options(parser)
    add = parser.add_argument_group("lists").add_argument
    for what in ("models", "layers", "classes", "presets"):
        add(f"--list-{what}", action="store_true", help=f"print the {what} there are, and end")
    return parser


def main(arguments=None):
    parser = build_parser()
    given = given_options(parser, arguments)
    args = parser.parse_args(arguments)
    if args.recipe:
        return print_recipe(args.recipe)
    if args.list_models:
        return list_models()
    if args.list_presets:
        return list_presets()
    like = read_recipe(args.like) if args.like else None
    repeated = repeated_options(like["options"], "concepts" in given) if like else {}
    if args.pictures:  # to be treated like a dream that may have come from noise
        repeated = {name: value for name, value in repeated.items() if name != "noise"}
    args = parse_over(parser, arguments, repeated)
    check_use(args, given)
    inputs = find_inputs(args)
    outputs = output_paths(inputs, args.output, "_survey.html" if args.survey else "_dream.png")
    net = models.load(args.model, args.weights)
    if args.list_layers:
        return list_layers(net)
    if args.list_classes:
        return list_classes(net)
    if args.preset:
        look = preset(args.preset, net)
        args = parse_over(parser, arguments, repeated, look)
    if like and like.get("weights_sha256") != net.weights_sha256:
        log(f"note: {args.like} was made with other weights, {like.get('weights')}", args.quiet)
    options = settings(args)
    if not args.survey:
        remembered = remembered_concepts(like) if like and "concepts" not in given else None
        options |= {"layers": chosen_targets(net, args, remembered), "classes": None, "concepts": None}
        if args.save_concept:
            save_concept(args.save_concept, [target.concept for target in options["layers"] if target.concept])
    todo = survey_image if args.survey else dream_on
    return run_all(inputs, outputs, args, functools.partial(todo, net, args, options))


def find_inputs(args):
    """Return [(path, place)] of the images: where they are, and their names for output_paths(); (None, ...) is noise.

    Raises UsageError where there is nothing to do.
    """
    if args.noise:
        if args.pictures:
            raise UsageError("--noise starts from nothing: give no picture")
        return [(None, Path("noise"))]
    if not (args.pictures or args.list_layers or args.list_classes or args.save_concept):
        greedy = {"--layers": args.layers, "--class": args.classes, "--concept": args.concepts}
        greedy |= {"--survey": [args.survey]}
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


def output_paths(inputs, output, end="_dream.png"):
    """Return where each image's dream goes. Raises UsageError if that would be an input, or twice the same."""
    names = [place.with_name(shorten(place.stem, end)) for _, place in inputs]
    if output and (len(inputs) > 1 or output.is_dir() or not output.suffix):
        paths = [output / name for name in names]
    else:
        paths = [output or name for name in names]
    for i, path in enumerate(paths):
        (check_page if end.endswith(".html") else check_writable)(path)
        if any(source and same_file(path, source) for source, _ in inputs):
            raise UsageError(f"{path} is an input: give the dream another name with -o")
        if path in paths[:i]:
            raise UsageError(f"{inputs[i][0]} and another picture would both become {path}: dream on them one by one")
    return paths


def run_all(inputs, outputs, args, todo):
    """Call todo(path, output) for every image, whatever is wrong with some of them; then the exit status is 1.

    Under mlx.launch the images are shared out: process n of N takes every N-th, from the n-th on.
    """
    group = join_group()
    jobs = list(zip(inputs, outputs, strict=True))[group.rank() :: group.size()]
    broken = 0
    for (path, _), output in jobs:
        if args.resume and is_finished(output):
            continue
        try:
            todo(path, output)
        except (UserError, OSError, MemoryError, RuntimeError) as error:  # MLX's for memory is a RuntimeError
            of_all = isinstance(error, UsageError) or (isinstance(error, OSError) and disk_error(error))
            if len(outputs) == 1 or of_all:
                raise
            broken += 1
            print_error("dream.py", error_text(error, path), 1)
    if args.show:
        show([output for _, output in jobs if output.exists()], args.quiet)
    if broken:
        raise UserError(f"{broken} of {len(jobs)} pictures could not be dreamed on")
    return 0


def dream_on(net, args, options, path, output):
    """Dream on one image (None: on noise) and write the result, with its recipe in it."""
    image, alpha = load_input(args, path)
    name = path.name if path else "noise"
    if not args.visualize:
        sizes = octave_sizes(net, image.shape, options["layers"], args.octaves, args.octave_scale)
        if len(sizes) < args.octaves:
            log(f"{path or 'noise'}: {len(sizes)} of {args.octaves} octaves; smaller ones are too small", args.quiet)
        options = options | {"octaves": sizes}
    if not args.quiet:
        models.advise(net.path)
    total = args.steps * (1 if args.visualize else len(sizes))
    with (
        progress(total, args.quiet, desc=name, unit="step") as bar,
        timelapse(image, output, args.save_every, args.growth) as keep,
    ):

        def after_step(current):
            bar.update()
            keep(current)

        if args.visualize:
            common = {"steps": args.steps, "seed": args.seed, "callback": after_step}
            if path:
                dreamed = accentuate(net, options["layers"], image, **common)
            else:
                dreamed = visualize(net, options["layers"], *image.shape[:2], **common)
        else:
            dreamed = deepdream(net, image, **options, callback=after_step)
    recipe = make_recipe(net, name, recipe_options(net, args), options["layers"])
    write_image(output, dreamed, alpha, **save_options(output, recipe))
    print_result(output)


def survey_image(net, args, options, path, output):
    """Write a page or sheet of small dreams of one image (None: of noise)."""
    image, _ = load_input(args, path)
    if not args.quiet:
        models.advise(net.path)
    survey(deepdream, net, args, options, image, path, output)


def load_input(args, path):
    """Read the image at `path`, or make noise for None, at the size asked for: (image, its alpha or None)."""
    if path is None:
        return noise(*map(int, reversed(args.noise.split("x"))), args.seed), None
    if is_animation(path):
        log(f"{path}: it moves; this is its first frame, and python dream_video.py dreams on all of it", args.quiet)
    return read_image_and_alpha(path, args.width, args.max_size)


def noise(height, width, seed=0):
    """Draw noise around a middle grey, float32 H x W x 3, 0..255."""
    levels = np.random.default_rng(seed).normal(117, 12, (height, width, 3))
    return np.clip(levels, 0, 255).astype(np.float32)


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
    for name, look in PRESETS.items():
        print(f"{name:16}{look.shows}")


if __name__ == "__main__":
    run(main)
