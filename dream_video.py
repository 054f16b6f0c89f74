"""Dreams that move: the endless zoom into an image, and DeepDream over a video.

python dream_video.py assets/sample.jpg -o zoom.mp4 --frames 120 --zoom 1.05
python dream_video.py clip.mp4 -o dream.mp4 --flow
mlx.launch -n 2 python dream_video.py clip.mp4      frames shared out among processes, or machines

Every finished frame is kept in <out>.frames/ until the video is written: the same command continues where it stopped.
"""

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import models
from models.dreaming.concepts import direction_digest
from models.dreaming.octaves import octave_sizes
from models.dreaming.options import (
    FRAME_CLASS_DEFAULTS,
    FRAME_CONCEPT_DEFAULTS,
    add_dream_options,
    add_size_options,
    check_concepts,
    describe_defaults,
    settings,
)
from models.dreaming.recipes import make_recipe, to_text
from models.dreaming.schedules import names_concepts, schedule_targets
from models.dreaming.sharing import from_first, share_frames
from models.dreaming.tiles import tile_size
from models.dreaming.video_options import (
    VIDEO_DEFAULTS,
    VIDEO_EXAMPLES,
    ZOOM_DEFAULTS,
    add_video_options,
    add_zoom_options,
    percentage,
)
from models.dreaming.views import transform_view
from models.kernels import bands
from models.launch import join_group

import numpy as np

from dataset.camera import Step, close_loop, overlap, plan_zoom, read_schedule
from dataset.cli import Parser, UsageError, UserError, log, progress, run
from dataset.container import VideoError
from dataset.drift import high_pass, match_statistics, restore_detail, statistics
from dataset.files import check_place, same_file, sha256, shorten
from dataset.flow import is_scene_cut, need_opencv, scene_starts, warp
from dataset.frames import (
    check_state,
    discard,
    finished_frames,
    frame_path,
    keep_frame,
    remove,
    resume_frames,
    write_frame,
)
from dataset.images import check_writable, read_image, resize_to, to_uint8, write_image
from dataset.video import constant_rate, is_video, read_frames, read_video, without_sound
from dataset.video_writer import FORMATS, has_sound, keeps_pixel_shape, video_writer
from dataset.viewer import show
from dream import deepdream

NOT_IN_KEY = {
    "output",
    "quality",
    "fps",
    "preview",
    "restart",
    "quiet",
    "show",
}  # no part of the frames

# --- The endless zoom ---


def zoom_frames(net, image, plan, options, hold, start=0, state=None):
    """Yield the state after each frame from number `start` on: {"frame": the dreamed frame, "mean", "std", "detail"}.

    plan: a Step for each frame. options: deepdream's. hold: whether color, contrast and fine detail stay those of
    the first frame. state: that of the frame before `start`.
    """
    state = state or {}
    for n in range(start, len(plan)):
        view = transform_view(state["frame"], plan[n - 1]) if n else image
        dreamed = dream_frame(net, view, options | {"layers": plan[n].layers, "concepts": plan[n].concepts}, n)
        if hold and n:
            dreamed = restore_detail(dreamed, view, state["detail"])
            dreamed = np.clip(match_statistics(dreamed, state["mean"], state["std"]), 0, 255)
        if n == 0:
            mean, std = statistics(dreamed)
            state = state | {"mean": mean, "std": std, "detail": high_pass(dreamed).std()}
        state = state | {"frame": dreamed}
        yield state


def dream_frame(net, image, options, n):
    """Dream frame `n` with random shifts that depend on the seed and n alone: resuming needs no other state."""
    seed = int(np.random.SeedSequence([options["seed"], n]).generate_state(1)[0])
    return deepdream(net, image, **options | {"seed": seed})


# --- A video ---


def video_frames(net, images, options, blend, flow, hold, start=0, state=None):
    """Yield the state after each frame of a video from number `start` on: {"frame": the dreamed frame, "mean", "std"}.

    images: an iterable of all the frames. blend: the share of the last frame's dream that is carried into the next,
    `flow` along the motion in the video. hold: whether what a dream adds keeps the mean and the contrast that it has
    in the first frame of a scene; otherwise it gathers.
    """
    before, state = None, state or {}
    for n, image in enumerate(images):
        if n >= start:
            feeds_on = before if n and blend and not is_scene_cut(before, image) else None
            state = next_frame(net, options, blend, flow, hold, feeds_on, image, state)
            yield state
        before = image


def next_frame(net, options, blend, flow, hold, before, image, state):
    """Return the state after the frame `image` of a video; `before`: the frame before it, None where a scene begins."""
    dreamed = image
    if before is not None:
        # the dream alone, without the video below it, which would leave a ghost of the frame before
        dream = state["frame"] - before
        dreamed = np.clip(image + blend * (warp(dream, before, image) if flow else dream), 0, 255)
    dreamed = deepdream(net, dreamed, **options)  # the same shifts for all: what stands still is dreamed alike
    mean, std = statistics(dreamed - image) if before is None else (state["mean"], state["std"])
    if hold and before is not None:
        dreamed = np.clip(image + match_statistics(dreamed - image, mean, std), 0, 255)
    return state | {"frame": dreamed, "mean": mean, "std": std}


def make_video(args, folder, frames, timing, finished, total, recipe, size, source=None):
    """Write the video of `total` frames: the `finished` ones kept in `folder`, then the states that `frames` yields.

    size: (height, width) of the frames. source: the Video that they are of, with the sound to be kept.
    """
    options = {"quality": 75 if args.quality is None else args.quality, "text": recipe}
    options |= {"size": size, "tell": lambda text: log(text, args.quiet)}
    try:
        video = encode_frames(args, folder, frames, timing, finished, total, options | {"source": source})
    except VideoError as error:
        if not source or not source.sound or finished_frames(folder) < total:
            raise
        # all is dreamed, and nothing of it may be lost to a sound track
        log(f"{args.output}: written without sound, which failed: {error.reason}", args.quiet)
        video = encode_frames(args, folder, [], timing, total, total, options | {"source": without_sound(source)})
    replace(video, args.output)


def encode_frames(args, folder, frames, timing, finished, total, options):
    """Dream and encode what is missing, and return the path of the video in `folder`; options: of video_writer().

    A thread keeps and encodes each frame while the next is dreamed.
    """
    count = len(timing.times)
    video = folder / f"film{args.output.suffix}"

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
        if state is not None:  # another process's that came early was kept when it came
            levels = to_uint8(state["frame"])
            keep_frame(folder, n, levels, state)
            if args.preview:
                write_image(args.preview, levels)
        encode(n)

    layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
    with (
        video_writer(video, timing, **options) as write,
        ThreadPoolExecutor(1) as thread,
        progress(total, args.quiet, initial=finished, desc=args.output.name, unit="frame", bar_format=layout) as bar,
    ):
        job = thread.submit(encode_finished)
        for n, state in enumerate(frames, finished):
            job.result()  # one frame ahead at most; an error there ends this loop
            job = thread.submit(keep_and_encode, n, state)
            bar.update()
        job.result()
    return video


def replace(video, output):
    """Put the finished video (a file or a folder of frames) in the place of `output`."""
    if output.is_dir():
        remove(output)  # check_output() saw to it that only frames are in there
    video.replace(output)


# --- The command line ---


def build_parser():
    """Return (parser, its group for zooms, its group for videos)."""
    parser = Parser(
        prog="dream_video.py",
        usage="dream_video.py [options] SOURCE",
        description="Make an endless zoom into a picture, or dream over a film.",
        epilog=describe_defaults(FRAME_CLASS_DEFAULTS, FRAME_CONCEPT_DEFAULTS),
        examples=VIDEO_EXAMPLES,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="a picture to zoom into, or a film")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="an .mp4, .webm, .gif or .webp file, or a folder for .png frames (default: <name>_dream.mp4)",
    )
    add_size_options(parser.add_mutually_exclusive_group())
    quality = "how well .mp4, .webm and .webp are encoded, 0 to 100 (default: 75)"
    add("--quality", type=percentage, metavar="N", help=quality)
    drift = "hold: colour, contrast and fine detail stay those of the first frame; free: they may run away"
    add("--drift", choices=("hold", "free"), default="hold", metavar="HOW", help=drift)
    add("--preview", type=Path, metavar="FILE", help="also write the newest frame to this picture")
    add("--restart", action="store_true", help="begin anew, whatever frames are kept in <out>.frames/")
    add("--quiet", action="store_true", help="no progress bar, no notes")
    add("--show", action="store_true", help="open the film in the system's viewer")
    zoom, video = add_zoom_options(parser), add_video_options(parser)
    add_dream_options(parser)
    return parser, zoom, video


def parse_arguments(arguments=None):
    """Return (parsed options, the defaults that went for them)."""
    parser, zoom, video = build_parser()
    parser.set_defaults(**ZOOM_DEFAULTS)
    args = parser.parse_args(arguments)
    if is_video(args.source):
        parser.set_defaults(**VIDEO_DEFAULTS)
    concepts = args.concepts or names_concepts(args.schedule)
    check_concepts(concepts, args.guide, args.background)
    if concepts or args.classes:
        parser.set_defaults(**FRAME_CONCEPT_DEFAULTS if concepts else FRAME_CLASS_DEFAULTS)
    args = parser.parse_args(arguments)
    args.film = is_video(args.source)
    args.output = args.output or Path(shorten(args.source.stem, "_dream.mp4"))
    for action in (zoom if args.film else video)._group_actions:
        if getattr(args, action.dest) != action.default and str(getattr(args, action.dest)) != str(action.default):
            kind = "film" if args.film else "picture"
            parser.error(f"{action.option_strings[0]} is not for a {kind}, and {args.source} is one")
    return args, {name: parser.get_default(name) for name in vars(args)}


def main(arguments=None):
    """Run the command line."""
    args, defaults = parse_arguments(arguments)
    group = join_group()
    args.quiet |= group.rank() > 0
    check_output(args)
    options = settings(args)
    schedule = read_schedule(args.schedule) if args.schedule else []
    net = models.load(args.model, args.weights)
    targets, changing = schedule_targets(net, args, options, schedule)
    video = open_video(args) if args.film else None
    image = first_frame(video, args) if video else load_image(args)
    sizes = octave_sizes(net, image.shape, targets, args.octaves, args.octave_scale)
    if len(sizes) < args.octaves:
        log(f"{len(sizes)} of {args.octaves} octaves; smaller ones are too small", args.quiet)
    if not changing:
        options |= {"layers": targets, "classes": None, "concepts": None, "octaves": sizes}
    if not args.quiet:
        models.advise(net.path)

    if group.rank():
        help_dreaming(group, net, args, options, video)
        return
    folder = args.output.with_name(shorten(args.output.name, ".frames"))
    with resume_frames(folder, resume_key(args, net, targets), args.restart, plain(defaults)) as (finished, state):
        needed = ("frame", "mean", "std") if video else ("frame", "mean", "std", "detail")
        check_state(folder, finished, state, image.shape[:2], needed)
        # the tiles and bands, too, are those of the first frame, however much memory is free when this is resumed
        state.setdefault("tile", args.tile or tile_size(net))
        bands.use_kept(state)
        options["tile"] = int(state["tile"])
        if video:
            from_first(group, finished=finished, tile=state["tile"], bands=state["bands"])
            timing, total, frames = plan_video(group, net, args, options, video, finished, state, folder)
        else:
            timing, total, frames = plan_zoom_frames(net, args, options, image, schedule, finished, state)
        try:
            recipe = to_text(recipe_of(args, net, targets))
            make_video(args, folder, frames, timing, finished, total, recipe, image.shape[:2], video)
        except (KeyboardInterrupt, SystemExit):
            log(f"finished frames are kept in {folder}: the same command continues", args.quiet)
            raise
        except (OSError, VideoError) as error:
            reason = getattr(error, "reason", None) or error.strerror or error
            raise UserError(f"{reason}: finished frames are kept in {folder}; the same command continues") from None
        discard(folder)
    print(args.output)
    if args.show:
        show([args.output], args.quiet)


def plan_video(group, net, args, options, video, finished, state, folder=None):
    """Return (timing, number of frames, the states of the frames from number `finished` on) of a dream over a video.

    folder: where rank 0 keeps frames. On other ranks there are no states.
    """
    blend = args.blend if args.blend is not None else 0.8 * args.flow
    images, hold, total = read_resized(video, args), args.drift == "hold", len(video.timing.times)
    if group.size() == 1:
        frames = video_frames(net, images, options, blend, args.flow, hold, finished, state)
    else:
        starts = scene_starts(read_resized(video, args)) if blend else range(total)
        dream = functools.partial(next_frame, net, options, blend, args.flow, hold)
        frames = share_frames(
            group,
            dream,
            images,
            starts,
            total,
            finished,
            state,
            lambda n, image: write_frame(folder, n, to_uint8(image)),
        )
    return video.timing, total, frames


def help_dreaming(group, net, args, options, video):
    """Dream this process's share of the frames, which rank 0 keeps and writes; none of a zoom's, a long run."""
    if video:
        state = from_first(group)
        bands.use_kept(state)
        options["tile"] = int(state["tile"])
        for _ in plan_video(group, net, args, options, video, int(state.pop("finished")), state)[2]:
            pass


def plan_zoom_frames(net, args, options, image, schedule, finished, state):
    """Return (timing, number of frames, the states of the frames from number `finished` on) of a zoom."""
    timing = constant_rate(args.frames, args.fps)
    total = args.frames + (overlap(args.frames) if args.loop else 0)
    first = Step(
        options["layers"] or [], options["concepts"] or [], args.zoom, args.rotate, tuple(args.pan), tuple(args.center)
    )
    plan = plan_zoom(first, total, schedule)
    return timing, total, zoom_frames(net, image, plan, options, args.drift == "hold", finished, state)


def open_video(args):
    """Read what the video is like, and tell what is wrong with it or will be lost."""
    if args.flow:
        need_opencv()
    with progress(None, args.quiet, desc=f"reading {args.source.name}", unit="frame", delay=1) as bar:
        video = read_video(args.source, args.start, args.end, bar.update)
    for note in video.notes:
        log(note, args.quiet)
    if video.sound and not has_sound(args.output):
        log(f"the sound is left out: {args.output} cannot hold any", args.quiet)
    return video


def read_resized(video, args):
    """Yield the frames of a video at the size that was asked for."""
    images = read_frames(video, square=not keeps_pixel_shape(args.output))
    return (resize_to(image, None, args.width, args.max_size)[0] for image in images)


def first_frame(video, args):
    """Return the first frame of a video at the size that was asked for."""
    for image in read_resized(video, args):
        return image
    raise UserError(f"{args.source}: its frames cannot be read a second time: has it changed?")


def load_image(args):
    """Read the image to zoom into, at the size that was asked for."""
    return resize_to(read_image(args.source), None, args.width, args.max_size)[0]


def resume_key(args, net, targets):
    """Return {option: value} of all that the frames depend on; files by their SHA-256."""
    options = {name: value for name, value in vars(args).items() if name not in NOT_IN_KEY} | {"weights": net.path}
    if isinstance(args.decorrelate, str):
        options["decorrelate"] = Path(args.decorrelate)
    if concepts := [target.concept for target in targets if target.concept]:
        options["directions"] = [direction_digest(concept) for concept in concepts]
    return plain({name: sha256(value) if isinstance(value, Path) else value for name, value in options.items()})


def recipe_of(args, net, targets):
    """Return what the video's metadata tells of how it was made; see models/dreaming/recipes.py."""
    options = {name: value for name, value in vars(args).items() if name not in NOT_IN_KEY - {"fps"}}
    return make_recipe(net, args.source.name, plain(options), targets)


def plain(options):
    """Return options as JSON would give them back: lists for tuples, text for numbers such as 30000/1001."""
    return json.loads(json.dumps(options, default=str))


def check_output(args):
    """Raise UserError now, before hours of work, if the video cannot be written where it is wanted."""
    output, suffix = args.output, args.output.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{output}: cannot write {suffix}; use .mp4, .webm, .gif, .webp, or a folder for .png frames")
    if args.quality is not None and not FORMATS[suffix]:
        raise UsageError(f"--quality says nothing to {suffix or 'a folder of .png'}")
    for path in (output, args.preview):
        if path and same_file(path, args.source):
            raise UsageError(f"{path} is the input: give another name")
    if output.is_dir() and suffix:
        raise UsageError(f"{output} is a folder: give the film another name with -o")
    if not suffix and output.exists() and not (output.is_dir() and all(is_frame(path) for path in output.iterdir())):
        raise UsageError(f"{output} holds more than frames of a film: give another folder with -o")
    if args.preview:
        check_writable(args.preview)
        check_place(args.preview)
    if not output.is_dir():
        check_place(output)


def is_frame(path):
    """Tell whether a file is called as a frame is."""
    return path.suffix == ".png" and path.stem.isdecimal()


if __name__ == "__main__":
    run(main)
