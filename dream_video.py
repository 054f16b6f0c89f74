"""Dreams that move: the endless zoom into a picture, and DeepDream over a film.

python dream_video.py assets/sample.jpg -o zoom.mp4 --frames 120 --zoom 1.05
python dream_video.py clip.mp4 -o dream.mp4 --flow

Every finished frame is kept in <out>.frames/ until the film is written: the same command continues where it stopped.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import models
from models.dreaming.recipes import to_text
from models.dreaming.targets import parse_targets
from models.dreaming.tiles import tile_size

import numpy as np

from dataset.camera import Step, each_channel, plan_zoom, read_schedule, transform_view
from dataset.cli import Parser, UsageError, UserError, log, number, progress, run, whole_number
from dataset.files import sha256
from dataset.flow import is_scene_cut, need_opencv, warp
from dataset.frames import frame_path, keep_frame, remove, resume_frames
from dataset.images import SUFFIXES, check_writable, read_image, to_uint8, write_image
from dataset.video import FORMATS, constant_rate, film_writer, has_sound, read_film, read_frames
from dream import CLASS_DEFAULTS, SWITCHES, add_dream_options, deepdream, fit, octave_sizes, settings

# dream.py's defaults for a class, but for the steps, of which each frame of a film has few
OF_CLASS = {name: value for name, value in CLASS_DEFAULTS.items() if name != "steps"}

# --- The endless zoom ---


def zoom_frames(net, picture, plan, options, hold, start=0, state=None):
    """Yield the state after each frame from number `start` on: {"frame": the dreamed frame, "mean", "std", "detail"}.

    plan: a Step for each frame. options: deepdream's. hold: whether colour, contrast and fine detail stay those of
    the first frame. state: that of the frame before `start`.
    """
    state = state or {}
    for n in range(start, len(plan)):
        image = transform_view(state["frame"], plan[n - 1]) if n else picture
        dreamed = dream_frame(net, image, options | {"layers": plan[n].layers}, n)
        if hold and n:
            dreamed = restore_detail(dreamed, image, state["detail"])
            dreamed = np.clip(match_statistics(dreamed, state["mean"], state["std"]), 0, 255)
        if n == 0:
            mean, std = statistics(dreamed)
            state = state | {"mean": mean, "std": std, "detail": high_pass(dreamed).std()}
        state = state | {"frame": dreamed}
        yield state


def dream_frame(net, image, options, n):
    """Frame `n` dreamed, with random shifts that depend on the seed and n alone: resuming needs no other state."""
    seed = int(np.random.SeedSequence([options["seed"], n]).generate_state(1)[0])
    return deepdream(net, image, **options | {"seed": seed})


def statistics(image):
    """(mean, standard deviation) of each channel of H x W x 3."""
    return image.mean((0, 1), dtype=np.float64), image.std((0, 1), dtype=np.float64)


def match_statistics(image, mean, std):
    """The image with each channel's mean and standard deviation made those given."""
    own_mean, own_std = statistics(image)
    gain = std / np.maximum(own_std, 1e-3)
    return image * np.float32(gain) + np.float32(mean - own_mean * gain)


def restore_detail(dreamed, image, detail):
    """The dream with its finest structures up to twice as strong, as needed for the frame's to deviate by `detail`.

    Every zoom takes the frame's finest detail away, and a few steps do not dream all of it anew. What is enhanced is
    this frame's dream, not the frame: sharpening a frame again and again draws lines through the centre of the zoom.
    """
    old, new = high_pass(image), high_pass(dreamed - image)
    # the root of mean (old + k new)^2 = detail^2
    a, b, c = np.mean(new * new) + 1e-9, np.mean(old * new), np.mean(old * old) - detail**2
    k = (np.sqrt(max(b * b - a * c, 0)) - b) / a
    return dreamed + np.float32(np.clip(k, 1, 2) - 1) * new


def high_pass(image):
    """H x W x 3 without what is broader than a pixel or two."""
    from scipy import ndimage

    return image - each_channel(ndimage.gaussian_filter, image, 1, truncate=3)


def overlap(frames):
    """How many frames at the end of a loop of `frames` dissolve into those before its beginning."""
    return min(frames // 3, 24)


def close_loop(n, frames, finished):
    """What the film of a loop shows once frame n of frames + overlap(frames) is finished: None, or levels H x W x 3.

    A zoom cannot return. The film starts at frame overlap(frames) instead, and its last frames dissolve into those
    before that one, so that the last leads to the first without a jump. finished(n) gives a finished frame.
    """
    if n < overlap(frames):
        return None
    if n < frames:
        return finished(n)
    end, begin = (finished(i).astype(np.float32) for i in (n, n - frames))
    mean = (end.mean((0, 1)) + begin.mean((0, 1))) / 2
    t = (n - frames + 1) / (overlap(frames) + 1) * np.pi / 2
    # cosine and sine, not two shares of a whole: the mean of two unlike pictures has less contrast than either
    return to_uint8(mean + np.cos(t) * (end - mean) + np.sin(t) * (begin - mean))


# --- A film ---


def film_frames(net, images, options, blend, flow, hold, start=0, state=None):
    """Yield the state after each frame of a film from number `start` on: {"frame": the dreamed frame, "mean", "std"}.

    images: an iterable of all the frames. blend: the share of the last frame's dream that is carried into the next,
    `flow` along the motion in the film. hold: whether what a dream adds keeps the mean and the contrast that it has
    in the first frame of a scene; otherwise it gathers.
    """
    before, state = None, state or {}
    for n, image in enumerate(images):
        if n >= start:
            begins = before is None or not blend or is_scene_cut(before, image)
            dreamed = image
            if not begins:
                # the dream alone, without the film below it, which would leave a ghost of the frame before
                dream = state["frame"] - before
                dreamed = np.clip(image + blend * (warp(dream, before, image) if flow else dream), 0, 255)
            dreamed = deepdream(net, dreamed, **options)  # the same shifts for all: what stands still is dreamed alike
            mean, std = statistics(dreamed - image) if begins else (state["mean"], state["std"])
            if hold and not begins:
                dreamed = np.clip(image + match_statistics(dreamed - image, mean, std), 0, 255)
            state = state | {"frame": dreamed, "mean": mean, "std": std}
            yield state
        before = image


def make_film(args, folder, frames, timing, finished, total, recipe, source=None):
    """Write the film of `total` frames: the `finished` ones kept in `folder`, then the states that `frames` yields.

    A thread keeps and encodes each frame while the next is dreamed.
    """
    count = len(timing.times)
    film = folder / f"film{args.output.suffix}"

    def kept(n):
        return read_image(frame_path(folder, n)).astype(np.uint8)

    def encode(n):
        levels = close_loop(n, count, kept) if args.loop else kept(n)
        if levels is not None:
            write(levels)

    def encode_finished():
        for n in range(finished):
            encode(n)

    def keep_and_encode(n, state):
        levels = to_uint8(state["frame"])
        keep_frame(folder, n, levels, state)
        if args.preview:
            write_image(args.preview, levels)
        encode(n)

    layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
    with (
        film_writer(film, timing, 75 if args.quality is None else args.quality, recipe, source) as write,
        ThreadPoolExecutor(1) as thread,
        progress(total, args.quiet, initial=finished, desc=args.output.name, unit="frame", bar_format=layout) as bar,
    ):
        job = thread.submit(encode_finished)
        for n, state in enumerate(frames, finished):
            job.result()  # one frame ahead at most; an error there ends this loop
            job = thread.submit(keep_and_encode, n, state)
            bar.update()
        job.result()
    replace(film, args.output)


def replace(film, output):
    """Put the finished film (a file or a folder of frames) in the place of `output`."""
    if output.is_dir():
        remove(output)  # check_output() saw to it that only frames are in there
    film.replace(output)


# --- The command line ---


def parse_arguments(arguments=None):
    of_class = ", ".join(f"{SWITCHES[name]} {value:g}" for name, value in OF_CLASS.items())
    parser = Parser(prog="dream_video.py", description="The endless zoom into a picture, or dreams over a film.",
                    epilog=f"With --class, unless given: {of_class}.")  # fmt: skip
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a picture to zoom into, or a film")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="an .mp4, .webm, .gif or .webp file, or a "
                        "folder for .png frames (default: <name>_dream.mp4 in the current folder)")  # fmt: skip
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--width", type=whole_number(1), metavar="N", help="resize to this width first, pixels")
    size.add_argument("--max-size", type=whole_number(1), metavar="N", help="shrink to this longest side first, pixels")
    parser.add_argument("--quality", type=percentage, metavar="N", help="of .mp4, .webm and .webp, 0 to 100 (default: "
                        "75)")  # fmt: skip
    parser.add_argument("--drift", choices=("hold", "free"), default="hold", help="whether colour, contrast and "
                        "fine detail keep to the first frame's where frames feed on one another")  # fmt: skip
    parser.add_argument("--preview", type=Path, metavar="FILE", help="write the newest frame to this picture, too")
    parser.add_argument("--restart", action="store_true", help="begin anew, whatever is kept in <out>.frames/")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no notes")

    zoom = parser.add_argument_group("zoom into a picture")
    zoom.add_argument("--frames", type=whole_number(1), default=120, metavar="N", help="length of the film")
    zoom.add_argument("--fps", type=frame_rate, default="24", metavar="X", help="frames/s, such as 24 or 30000/1001")
    zoom.add_argument("--zoom", type=number(above=0), default=1.05, metavar="X", help="scale from one frame to the "
                      "next; below 1 it zooms out")  # fmt: skip
    zoom.add_argument("--rotate", type=finite, default=0.0, metavar="DEG", help="degrees a frame, counter-clockwise")
    zoom.add_argument("--pan", type=finite, nargs=2, default=(0.0, 0.0), metavar=("X", "Y"), help="pixels that the "
                      "view moves right and down, a frame")  # fmt: skip
    zoom.add_argument("--center", type=finite, nargs=2, default=(0.5, 0.5), metavar=("X", "Y"), help="what stays in "
                      "place: 0 0 is the top left corner, 1 1 the bottom right")  # fmt: skip
    zoom.add_argument("--schedule", type=Path, metavar="FILE", help="change layers, zoom, rotate, pan and center over "
                      'time, smoothly: JSON such as [{"frame": 0, "zoom": 1.05}, {"frame": 60, "zoom": 1.01, "rotate": '
                      '1, "layers": ["inception3b"]}]')  # fmt: skip
    zoom.add_argument("--loop", action="store_true", help="end where the film begins: the last frames dissolve into "
                      "those before its first (dreams up to 24 frames more)")  # fmt: skip
    film = parser.add_argument_group("dream over a film", "There, --octaves is 4 and --steps is 10 unless given.")
    film.add_argument("--start", type=moment, metavar="TIME", help="begin there, in seconds or h:m:s")
    film.add_argument("--end", type=moment, metavar="TIME", help="end there, in seconds or h:m:s")
    film.add_argument("--blend", type=number(least=0, most=1), metavar="X", help="share of a frame's dream "
                      "that is carried into the next, 0 to 1 (default: 0; 0.8 with --flow)")  # fmt: skip
    film.add_argument("--flow", action="store_true", help="warp it along the motion in the film, so that dreams "
                      "stick to what moves (needs OpenCV)")  # fmt: skip
    add_dream_options(parser)
    parser.set_defaults(octaves=2, steps=4)  # a zoom dreams on the same frame again and again
    args = parser.parse_args(arguments)
    if is_film(args.source):
        parser.set_defaults(octaves=4, steps=10)
    if args.classes:
        parser.set_defaults(**OF_CLASS)
    args = parser.parse_args(arguments)
    args.film = is_film(args.source)
    args.output = args.output or Path(f"{args.source.stem}_dream.mp4")
    for action in (zoom if args.film else film)._group_actions:
        if getattr(args, action.dest) != action.default and str(getattr(args, action.dest)) != str(action.default):
            kind = "film" if args.film else "picture"
            parser.error(f"{action.option_strings[0]} is not for a {kind}, and {args.source} is one")
    return args


def is_film(path):
    """Whether a file is a film rather than a picture, by its suffix; a .gif is a film if it moves."""
    suffix = path.suffix.lower()
    if suffix != ".gif" or not path.exists():
        return suffix not in SUFFIXES
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.is_animated
    except OSError:
        return False  # what is wrong with it is told when it is read


def ranged(convert, low, high, name):
    def parse(text):
        try:
            value = convert(text)
        except ZeroDivisionError:  # Fraction's
            raise ValueError from None
        if not low <= value <= high:
            raise ValueError
        return value

    parse.__name__ = name
    return parse


def seconds(text):
    """Seconds from S, M:S or H:M:S."""
    total = Fraction(0)
    for part in text.split(":"):
        total = total * 60 + Fraction(part)
    return total


percentage = ranged(int, 0, 100, "whole number from 0 to 100")
finite = ranged(float, -1e9, 1e9, "number")
frame_rate = ranged(Fraction, Fraction(1, 1000), 1000, "frame rate")
moment = ranged(seconds, 0, 1e9, "time")

NOT_IN_KEY = {"output", "quality", "fps", "preview", "restart", "quiet"}  # options that the frames do not depend on


def main(arguments=None):
    args = parse_arguments(arguments)
    check_output(args)
    options = settings(args)
    schedule = read_schedule(args.schedule) if args.schedule else []
    net = models.load(args.model, args.weights)
    scheduled = [target for entry in schedule for target in entry.get("layers", [])]
    layers = args.layers or []  # none: the network's own, which a schedule has to name
    if scheduled and not layers and not args.classes:
        layers = [net.metadata["layer"]]
    targets = parse_targets(net, layers + scheduled, args.classes)
    film = find_film(args) if args.film else None
    picture = next(pictures(film, args)) if film else fit(read_image(args.source), None, args.width, args.max_size)[0]
    sizes = octave_sizes(net, picture.shape, targets, args.octaves, args.octave_scale)
    if len(sizes) < args.octaves:
        log(f"{len(sizes)} of {args.octaves} octaves; smaller ones are too small", args.quiet)
    if not args.quiet:
        models.advise(net.path)

    folder = args.output.with_name(args.output.name + ".frames")
    with resume_frames(folder, resume_key(args, net), args.restart) as (finished, state):
        # the tiles, too, are those of the first frame, however much memory is free when this is resumed
        state.setdefault("tile", args.tile or tile_size(net, targets))
        options["tile"] = int(state["tile"])
        if film:
            timing, total = film.timing, len(film.timing.times)
            blend = args.blend if args.blend is not None else 0.8 * args.flow
            frames = film_frames(
                net, pictures(film, args), options, blend, args.flow, args.drift == "hold", finished, state
            )
        else:
            timing, total = (
                constant_rate(args.frames, args.fps),
                args.frames + (overlap(args.frames) if args.loop else 0),
            )
            first = Step(layers, args.zoom, args.rotate, tuple(args.pan), tuple(args.center))
            plan = plan_zoom(first, total, schedule)
            frames = zoom_frames(net, picture, plan, options, args.drift == "hold", finished, state)
        try:
            make_film(args, folder, frames, timing, finished, total, to_text(recipe_of(args, net)), film)
        except (KeyboardInterrupt, SystemExit):
            log(f"finished frames are kept in {folder}: the same command continues", args.quiet)
            raise
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{reason}: finished frames are kept in {folder}; the same command continues") from None
        shutil.rmtree(folder)
    print(args.output)


def find_film(args):
    if args.flow:
        need_opencv()
    with progress(None, args.quiet, desc=f"reading {args.source.name}", unit="frame", delay=1) as bar:
        film = read_film(args.source, args.start, args.end, bar.update)
    if film.declared_frames > len(film.timing.times) and not (args.start or args.end):
        log(
            f"{args.source} is cut off: {len(film.timing.times)} of {film.declared_frames} frames are there", args.quiet
        )
    if film.sound and not has_sound(args.output):
        log(f"the sound is left out: {args.output} cannot hold any", args.quiet)
    return film


def pictures(film, args):
    """The frames of a film at the size that was asked for."""
    return (fit(image, None, args.width, args.max_size)[0] for image in read_frames(film))


def resume_key(args, net):
    """{option: value} of all that the frames depend on; files by their SHA-256."""
    options = {name: value for name, value in vars(args).items() if name not in NOT_IN_KEY} | {"weights": net.path}
    if isinstance(args.decorrelate, str):
        options["decorrelate"] = Path(args.decorrelate)
    return plain({name: sha256(value) if isinstance(value, Path) else value for name, value in options.items()})


def recipe_of(args, net):
    """What the film's metadata tells of how it was made; see models/dreaming/recipes.py."""
    return {
        "version": models.__version__,
        "model": net.metadata["model"],
        "weights": net.path.name,
        "weights_sha256": net.weights_sha256,
        "picture": args.source.name,
        "options": plain({name: value for name, value in vars(args).items() if name not in NOT_IN_KEY - {"fps"}}),
    }


def plain(options):
    """As JSON would give them back: lists for tuples, text for numbers such as 30000/1001."""
    return json.loads(json.dumps(options, default=str))


def check_output(args):
    """UserError now, before hours of work, if the film cannot be written where it is wanted."""
    output, suffix = args.output, args.output.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{output}: cannot write {suffix}; use .mp4, .webm, .gif, .webp, or a folder for .png frames")
    if args.quality is not None and not FORMATS[suffix]:
        raise UsageError(f"--quality says nothing to {suffix or 'a folder of .png'}")
    for path in (output, args.preview):
        if path and path.resolve() == args.source.resolve():
            raise UsageError(f"{path} is the input: give another name")
    if output.is_dir() and suffix:
        raise UsageError(f"{output} is a folder: give the film another name with -o")
    if not suffix and output.exists() and not (output.is_dir() and all(is_frame(path) for path in output.iterdir())):
        raise UsageError(f"{output} holds more than frames of a film: give another folder with -o")
    if args.preview:
        check_writable(args.preview)


def is_frame(path):
    return path.suffix == ".png" and path.stem.isdecimal()


if __name__ == "__main__":
    run(main)
