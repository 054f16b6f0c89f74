"""DeepDream on pictures: the algorithm of 2015 on MLX, and its command line.

python dream.py assets/sample.jpg
python dream.py photo.jpg --layers inception3b inception4c:13,27=0.5 --octaves 5 -o dream.png

From Python:

    import models
    from dream import deepdream
    picture = deepdream(models.load("googlenet"), image, layers=["inception4c"])
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import models
from dataset.images import check_writable, read_image, read_image_and_alpha, resize_image, write_image
from models.cli import Parser, UsageError, UserError, fail, note, progress, run

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
    callback=None,
):
    """Dream on an image; returns the dreamed image, H x W x 3 float32, 0..255, like the image given.

    net: from models.load(). layers: targets, each LAYER[:CHANNELS][=WEIGHT] (None: the network's own).
    octaves, octave_scale: the image is dreamed on at `octaves` sizes, each `octave_scale` times the one before.
    steps: gradient steps an octave. step_size: how far a step moves a pixel on average, in grey levels of 255.
    jitter: the largest shift of the image before a step, in pixels. seed: of the shifts.
    guide: another image, whose features are dreamed instead of the image's own.
    tile: side of the tiles in which the gradient of a large image is computed, in pixels (None: by the memory at hand).
    callback: called without arguments after each step.

    Raises UsageError for a wrong target, UserError where the image is too small for it.
    Source: google/deepdream, dream.ipynb (2015).
    """
    targets = parse_targets(net, layers)
    sizes = octave_sizes(net, image.shape, targets, octaves, octave_scale)
    rng = np.random.default_rng(seed)
    gradient = in_tiles(gradient_function(net, targets, guide), tile or tile_size(net, targets), rng)

    bases = [np.asarray(image, np.float32)]
    for size in sizes[1:]:
        bases.append(zoom(bases[-1], size))
    detail = np.zeros_like(bases[-1])
    for base in reversed(bases):
        # what was dreamed so far is carried on without the photograph, which stays as sharp as it was
        detail = zoom(detail, base.shape)
        dreamed = ascend(gradient, base + detail, steps, step_size, jitter, rng, callback)
        detail = dreamed - base
    return dreamed


def ascend(gradient, image, steps, step_size, jitter, rng, callback=None):
    """`steps` steps of gradient ascent on an image H x W x 3, each on a shifted copy, normalised by mean |gradient|."""
    import mlx.core as mx

    image = mx.array(image)
    for _ in range(steps):
        before = image
        shift = [int(s) for s in rng.integers(-jitter, jitter + 1, 2)]
        image = mx.roll(image, shift, axis=(0, 1))
        g = gradient(image)
        image = image + step_size / mx.maximum(mx.abs(g).mean(), 1e-30) * g
        image = mx.clip(mx.roll(image, [-s for s in shift], axis=(0, 1)), 0, 255)
        mx.async_eval(image)
        mx.eval(before)  # this step computes while the next one is laid out; MLX is lazy, and more would pile up
        if callback:
            callback()
    return np.array(image)


def gradient_function(net, targets, guide=None):
    """A function image (H x W x 3 mx.array) -> gradient of the objective: the weighted sum over the targets of

        mean(a^2) / 2     a: the activation; its gradient is the activation itself, as in 2015
        mean(a . guide)   with a guide: at each position its feature vector that matches a best

    A mean, so that weights of layers of different sizes compare; the steps' length does not depend on it.
    """
    import mlx.core as mx

    names = [target.layer for target in targets]
    features = net.activations(guide[None], names) if guide is not None else {}
    features = [target.select(features[target.layer]) for target in targets if features]
    mx.eval(features)

    def objective(image):
        activations = net.activations(image[None], names)
        total = 0
        for i, target in enumerate(targets):
            a = target.select(activations[target.layer])
            towards = best_matches(a, features[i]) if features else a / 2
            total = total + target.weight * (a * (mx.stop_gradient(towards) if features else towards)).mean()
        return total

    return mx.grad(objective)


MARGIN = 64  # pixels around a tile that its gradient sees, too; each step cuts elsewhere, so that no seam can grow
WORKING_SET = 2 * 2**30  # bytes that the gradient of a tile may take, unless less is free
GRADIENT_COST = 4  # bytes it takes, as a multiple of those of the activations (measured: 2.6 to 4.6)


def in_tiles(gradient, tile, rng):
    """`gradient`, for images larger than `tile` on a side computed piece by piece, with memory for one piece."""
    import mlx.core as mx

    def tiled(image):
        height, width = image.shape[:2]
        if max(height, width) <= tile:
            return gradient(image)
        rows, columns = (cuts(side, tile, rng) for side in (height, width))
        strips = []
        for top, bottom in rows:
            pieces = []
            for left, right in columns:
                # from a multiple of every stride on, so that the cells of the layers lie where the whole image has them
                y, x = (max(0, start - MARGIN) // 32 * 32 for start in (top, left))
                seen = image[y : bottom + MARGIN, x : right + MARGIN]
                # objectives are means over what is seen: weigh them by its size
                piece = gradient(seen)[top - y : bottom - y, left - x : right - x] * (seen.size / image.size)
                mx.eval(piece)
                pieces.append(piece)
            strips.append(mx.concatenate(pieces, axis=1))
            mx.eval(strips)
        return mx.concatenate(strips, axis=0)

    return tiled


def cuts(side, tile, rng):
    """[(start, end)] of pieces of equal length, at most `tile`, but for the first and last: the grid is shifted."""
    if side <= tile:
        return [(0, side)]
    length = -(-side // -(-side // tile))
    marks = [0, *range(int(rng.integers(1, length + 1)), side, length), side]
    return list(zip(marks, marks[1:], strict=False))


def tile_size(net, targets):
    """The side of the largest square image, in pixels, whose gradient fits into the memory at hand."""
    import mlx.core as mx

    side = 256
    layers = {target.layer for target in targets}
    bytes_ = 0
    for name, activation in net.stages(mx.zeros((1, side, side, 3))):  # laid out, not computed
        bytes_ += activation.nbytes
        layers.discard(name)
        if not layers:
            break
    pixels = min(WORKING_SET, memory_available() // 2) / (GRADIENT_COST * bytes_ / side**2)
    return max(256, int(pixels**0.5) - 2 * MARGIN)


def memory_available():
    """Bytes that are free where MLX computes."""
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.gpu):
        info = mx.device_info()
        total = info.get("max_recommended_working_set_size") or info.get("total_memory") or info["memory_size"]
        return total - mx.get_active_memory()
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        return 1024 * int(meminfo.read_text().split("MemAvailable:")[1].split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def best_matches(activation, features):
    """For each position of an activation, the vector among `features` with the largest dot product.

    Both are 1 x h x w x C (their own h and w); returns the activation's shape.
    """
    import mlx.core as mx

    a = activation.reshape(-1, activation.shape[-1])
    candidates = features.reshape(-1, features.shape[-1])
    rows = max(1, 2**24 // candidates.shape[0])  # keeps the table of dot products under 64 MB
    best = [mx.argmax(a[i : i + rows] @ candidates.T, axis=1) for i in range(0, a.shape[0], rows)]
    return candidates[mx.concatenate(best)].reshape(activation.shape)


def zoom(image, size):
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
    fitting = [size for size in sizes if min(size) > 0 and net.fits(*size, names)]
    if not fitting:
        raise UserError(f"{shape[1]} x {shape[0]} pixels are too few for {', '.join(names)}: take a larger picture")
    return fitting


@dataclass(frozen=True)
class Target:
    """What to dream of: a layer, all of its channels or some, and its share in the objective."""

    layer: str
    channels: tuple = ()
    weight: float = 1.0

    def select(self, activation):
        import mlx.core as mx

        return activation[..., mx.array(self.channels)] if self.channels else activation


def parse_targets(net, layers=None):
    """Targets from LAYER[:CHANNELS][=WEIGHT], such as inception4c, inception4c:13,27 or inception3b=0.3."""
    if isinstance(layers, str):
        layers = [layers]
    layers = layers or [net.metadata["layer"]]
    return [parse_target(net, text) for text in layers]


def parse_target(net, text):
    name, _, weight = text.partition("=")
    name, _, channels = name.partition(":")
    layer = net.resolve(name)
    try:
        target = Target(layer, tuple(int(c) for c in channels.split(",")) if channels else (), float(weight or 1))
    except ValueError:
        raise UsageError(f"target {text!r} is not LAYER[:CHANNELS][=WEIGHT], such as {name}:13,27=0.5") from None
    count = net.table[layer][0]
    wrong = [c for c in target.channels if not 0 <= c < count]
    if wrong:
        raise UsageError(f"{layer} has no channel {wrong[0]}: they go from 0 to {count - 1}")
    return target


# --- The command line ---


def add_dream_options(parser):
    """The options that dream.py and dream_video.py share. settings() turns what was given into arguments."""
    network = parser.add_argument_group("network")
    network.add_argument("--model", choices=models.REGISTRY, metavar="NAME", help="see --list-models (default: "
                         "what --weights holds, else googlenet)")  # fmt: skip
    network.add_argument("--weights", metavar="FILE", type=Path, help="an .npz of convert.py or train_dream.py")
    dream = parser.add_argument_group("dream")
    dream.add_argument("--layers", nargs="+", metavar="TARGET", help="what to enhance: LAYER[:CHANNELS][=WEIGHT], "
                       "such as inception4c, inception4c:13,27 or inception3b=0.3; see --list-layers (default: what "
                       "the weights say, or the network's own: inception3b for the starter)")  # fmt: skip
    dream.add_argument("--octaves", type=whole_number(1), default=4, metavar="N", help="sizes to dream at")
    dream.add_argument("--octave-scale", type=number(above=1), default=1.4, metavar="X", help="ratio of two sizes")
    dream.add_argument("--steps", type=whole_number(1), default=10, metavar="N", help="gradient steps an octave")
    dream.add_argument("--step-size", type=number(above=0), default=1.5, metavar="X", help="mean change of a pixel in "
                       "a step, in levels of 0..255")  # fmt: skip
    dream.add_argument("--jitter", type=whole_number(0), default=32, metavar="N", help="largest random shift, pixels")
    dream.add_argument("--tile", type=whole_number(64), metavar="N", help="compute large pictures in tiles of N x N "
                       "pixels (default: as the memory at hand allows)")  # fmt: skip
    dream.add_argument("--guide", type=Path, metavar="PICTURE", help="dream of what this picture shows")
    dream.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="of everything random")


def settings(args):
    """The keyword arguments of deepdream() from parsed options."""
    names = ("layers", "octaves", "octave_scale", "steps", "step_size", "jitter", "seed", "tile")
    guide = read_image(args.guide) if args.guide else None
    return {name: getattr(args, name) for name in names} | {"guide": guide}


def whole_number(least):
    def parse(text):
        value = int(text)
        if value < least:
            raise ValueError
        return value

    parse.__name__ = f"whole number of at least {least}"
    return parse


def number(above):
    def parse(text):
        value = float(text)
        if not above < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"number above {above}"
    return parse


def parse_arguments(arguments=None):
    parser = Parser(prog="dream.py", description="Dream on pictures, as DeepDream did in 2015.")
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="a .png, .jpg or .webp file, or a folder "
                        "for several pictures (default: <name>_dream.png in the current folder)")  # fmt: skip
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--width", type=whole_number(1), metavar="N", help="resize to this width first, pixels")
    size.add_argument("--max-size", type=whole_number(1), metavar="N", help="shrink to this longest side first, pixels")
    parser.add_argument("--list-models", action="store_true", help="list the networks, and end")
    parser.add_argument("--list-layers", action="store_true", help="list the network's layers, and end")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no notes")
    add_dream_options(parser)
    args = parser.parse_args(arguments)
    if not (args.pictures or args.list_models or args.list_layers):
        swallowed = [t for t in args.layers or [] if Path(t).suffix and Path(t).exists()]
        hint = f": put {swallowed[0]} before --layers" if swallowed else "; try python dream.py assets/sample.jpg"
        parser.error(f"no picture given{hint}")
    return args


def main(arguments=None):
    args = parse_arguments(arguments)
    if args.list_models:
        return list_models()
    outputs = output_paths(args.pictures, args.output)
    options = settings(args)
    net = models.load(args.model, args.weights)
    if args.list_layers:
        return list_layers(net)
    targets = parse_targets(net, args.layers)
    if models.blas.missing():
        note(models.blas.NOTE, args.quiet)
    if net.path == models.STARTER:
        note(models.STARTER_NOTE, args.quiet)

    broken = 0
    for picture, output in zip(args.pictures, outputs, strict=True):
        try:
            image, alpha = read_image_and_alpha(picture)
            image, alpha = fit(image, alpha, args.width, args.max_size)
            sizes = octave_sizes(net, image.shape, targets, args.octaves, args.octave_scale)
        except UserError as error:
            if len(outputs) == 1:
                raise
            broken += 1
            fail("dream.py", error, 1)
            continue
        if len(sizes) < args.octaves:
            note(f"{picture}: {len(sizes)} of {args.octaves} octaves; smaller ones are too small", args.quiet)
        with progress(len(sizes) * args.steps, args.quiet, desc=picture.name, unit="step") as bar:
            dreamed = deepdream(net, image, **options, callback=bar.update)
        write_image(output, dreamed, alpha)
        print(output)
    if broken:
        raise UserError(f"{broken} of {len(outputs)} pictures could not be dreamed on")
    return 0


def output_paths(pictures, output):
    """Where each picture's dream goes. UsageError if that would be an input, or twice the same."""
    if output and (len(pictures) > 1 or output.is_dir() or not output.suffix):
        paths = [output / f"{picture.stem}_dream.png" for picture in pictures]
    else:
        paths = [output or Path(f"{picture.stem}_dream.png") for picture in pictures]
    inputs = {picture.resolve() for picture in pictures}
    for i, path in enumerate(paths):
        check_writable(path)
        if path.resolve() in inputs:
            raise UsageError(f"{path} is an input: give the dream another name with -o")
        if path in paths[:i]:
            raise UsageError(f"{pictures[i]} and another picture would both become {path}: dream on them one by one")
    return paths


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


def list_models():
    for name, entry in models.REGISTRY.items():
        try:
            here = models.find(name).name
        except UserError:
            here = f"python convert.py --download {name}"
        print(f"{name:22}{entry.title:36}{entry.layer:14}{here}")


def list_layers(net):
    print("layer                         channels  stride")
    for name, (channels, stride) in net.table.items():
        print(f"{name:30}{channels:8}{stride or '':8}")


if __name__ == "__main__":
    run(main)
