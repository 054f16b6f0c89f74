"""The path of a zoom: plan_zoom() makes a Step for each frame, and transform_view() takes one."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from dataset.cli import UsageError, suggest
from dataset.files import check_no_pipe
from dataset.images import to_uint8

PAIRS = ("pan", "center")  # of two numbers
LARGEST = 1e9  # of all numbers of a move: what is farther overflows
ZOOMS = (1e-3, 1e3)  # from one frame to the next


@dataclass(frozen=True)
class Step:
    """One frame of a zoom: the layers that it is dreamed on, and how the view then moves to make the next."""

    layers: list  # LAYER[:CHANNELS][=WEIGHT]; empty: the network's own
    concepts: list = ()  # with a `path`, a `layer` and a `weight` each (models/dreaming/concepts.py)
    zoom: float = 1.0
    rotate: float = 0.0  # degrees, counter-clockwise
    pan: tuple = (0, 0)  # pixels that the view moves right and down
    center: tuple = (0.5, 0.5)  # of zoom and rotation, in fractions of the width and height


def transform_view(image, step):
    """Return the next view of an image, H x W x 3, as `step` says.

    One resampling by cubic splines, which keep detail that linear interpolation would lose a little of at every
    frame. Outside, the image is reflected.
    """
    from scipy import ndimage

    matrix, offset = view_map(image.shape, step)
    if not step.rotate:
        matrix = np.diag(matrix)  # the separable case, which SciPy does faster
    return np.clip(each_channel(ndimage.affine_transform, image, matrix, offset, order=3, mode="reflect"), 0, 255)


def view_map(shape, step):
    """Return (matrix, offset): matrix @ (row, column) in the next view + offset is the place it shows in this one."""
    angle = np.deg2rad(step.rotate)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / step.zoom
    center = np.array(step.center[::-1]) * (np.array(shape[:2]) - 1)
    return matrix, center - matrix @ (center - step.pan[::-1])


def each_channel(function, image, *arguments, **options):
    """Apply function(channel, ...) to the three channels of H x W x 3, in a thread each: SciPy itself uses one."""
    with ThreadPoolExecutor(3) as pool:
        channels = [pool.submit(function, image[..., i], *arguments, **options) for i in range(3)]
    return np.dstack([channel.result() for channel in channels])


def overlap(frames):
    """Return how many frames at the end of a loop of `frames` dissolve into those before its beginning."""
    return min(frames // 3, 24)


def close_loop(n, frames, finished):
    """Return the uint8 frame that a loop shows once frame n of frames + overlap(frames) is finished, or None.

    A zoom cannot return. The video starts at frame overlap(frames) instead, and its last frames dissolve into those
    before that one, so that the last leads to the first without a jump. finished(n) gives a finished frame.
    """
    if n < overlap(frames):
        return None
    if n < frames:
        return finished(n)
    end, begin = (finished(i).astype(np.float32) for i in (n, n - frames))
    mean = (end.mean((0, 1)) + begin.mean((0, 1))) / 2
    t = (n - frames + 1) / (overlap(frames) + 1) * np.pi / 2
    # cosine and sine, not two shares of a whole: the mean of two unlike images has less contrast than either
    return to_uint8(mean + np.cos(t) * (end - mean) + np.sin(t) * (begin - mean))


def plan_zoom(first, frames, schedule=None):
    """Return the Step of each of `frames` frames: `first`, changed over time as the schedule says.

    schedule: [{"frame": N, and any of "layers", "concepts", "zoom", "rotate", "pan", "center"}]. Each of them rests at
    the frames that name it and is smooth in between: 3t^2 - 2t^3 of the way. Scales are blended by their logarithm,
    layers and concepts by their weights.
    """
    keyframes = {name: {0: value} for name, value in vars(first).items()}
    for entry in schedule or []:
        for name in keyframes.keys() & entry.keys():
            keyframes[name][entry["frame"]] = entry[name]
    return [Step(**{name: interpolate(values, n, name) for name, values in keyframes.items()}) for n in range(frames)]


def interpolate(keyframes, n, name):
    """Return the value at frame n between keyframes {frame: value} of the Step's field `name`."""
    before = max(frame for frame in keyframes if frame <= n)
    after = min((frame for frame in keyframes if frame > n), default=before)
    a, b = keyframes[before], keyframes[after]
    if a == b or n == before:
        return a
    t = (n - before) / (after - before)
    t = t * t * (3 - 2 * t)
    if name == "layers":
        return blend_layers(a, b, t)
    if name == "concepts":
        return blend_concepts(a, b, t)
    if name == "zoom":
        return a ** (1 - t) * b**t
    return tuple(x * (1 - t) + y * t for x, y in zip(a, b, strict=True)) if name in PAIRS else a * (1 - t) + b * t


def blend_layers(a, b, t):
    """Return the targets of a, weighted by 1 - t, and those of b, weighted by t, as one list."""
    weights = {}
    for targets, share in ((a, 1 - t), (b, t)):
        for target in targets:
            name, _, weight = target.partition("=")
            weights[name] = weights.get(name, 0) + share * float(weight or 1)
    return [f"{name}={weight:.6f}" for name, weight in weights.items() if weight >= 1e-6]


def blend_concepts(a, b, t):
    """Return concepts that weigh (1 - t) times as much as those of a, and t times as much as those of b."""
    blended = {}
    for concepts, share in ((a, 1 - t), (b, t)):
        for concept in concepts:
            key = concept.path, concept.layer
            weight = blended[key].weight if key in blended else 0
            blended[key] = replace(concept, weight=weight + share * concept.weight)
    return list(blended.values())


def read_schedule(path):
    """Read a schedule for plan_zoom() from a JSON file. Raises UsageError, which says what is wrong with it."""
    check_no_pipe(path)
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: no JSON that can be read: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise UsageError(f'{path}: not a list such as [{{"frame": 0, "zoom": 1.05}}, {{"frame": 60, "zoom": 1.01}}]')
    for entry in entries:
        check_entry(path, entry)
    return entries


def check_entry(path, entry):
    """Raise UsageError if an entry of the schedule in the file `path` is not right."""

    def is_number(value, least=-LARGEST, most=LARGEST):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most

    def is_pair(value):
        return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))

    kinds = {
        "frame": (lambda v: isinstance(v, int) and is_number(v, 0), "a whole number of at least 0"),
        "layers": (lambda v: isinstance(v, list) and v and all(isinstance(x, str) for x in v), "a list of targets"),
        "concepts": (lambda v: isinstance(v, list) and v and all(isinstance(x, str) for x in v), "a list of folders"),
        "zoom": (lambda v: is_number(v, *ZOOMS), "a number from {:g} to {:g}".format(*ZOOMS)),
        "rotate": (is_number, "a number of degrees"),
        **dict.fromkeys(PAIRS, (is_pair, "two numbers")),
    }
    if not isinstance(entry, dict) or "frame" not in entry:
        raise UsageError(f'{path}: {json.dumps(entry)[:200]} does not tell its "frame"')
    for name, value in entry.items():
        if name not in kinds:
            raise UsageError(f"{path}: there is no {name[:80]!r} in a schedule: {suggest(name, kinds)}")
        fits, words = kinds[name]
        if not fits(value):
            raise UsageError(f"{path}: frame {entry['frame']}: {name} is {json.dumps(value)[:200]}, not {words}")
