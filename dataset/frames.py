"""Checkpoints of a video: finished frames are kept in a folder until the file is written, so that none is lost."""

import contextlib
import fcntl
import json
import shutil

import numpy as np

from dataset.cli import UserError
from dataset.files import atomic_write, temporary_path
from dataset.images import write_image
from dataset.npz import npy_entries

FILE_NAMES = {"source": "the source, the file that is dreamed on,", "weights": "the file of the network's weights"}

SHORT = 200  # letters of a value that are told


@contextlib.contextmanager
def resume_frames(folder, options, restart=False, defaults=None):
    """Yield (number of frames that are finished in `folder`, the state after the last).

    A frame there is a .png; the state, all that the next frame needs, is kept unrounded. Raises UserError if `folder`
    was begun with other options, or another process is at work in it; an option that it was begun without counts as its
    value in `defaults`.
    """
    record = folder / "options.json"
    shutil.rmtree(leftovers(folder), ignore_errors=True)
    if folder.exists() and not record.exists() and not all(map(is_beginning, folder.iterdir())):
        raise UserError(f"{folder} was not made by dream_video.py: move it away, or give the film another name")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another dream_video.py is at work there") from None
        if restart:
            for path in folder.glob("[!l]*"):
                remove(path)
        if record.exists():
            before = read_record(record)
            before |= {name: (defaults or {}).get(name) for name in options if name not in before}
            changed = [name for name in before | options if before.get(name) != options.get(name)]
            if changed:
                words = ", ".join(describe_change(name, before.get(name), options.get(name)) for name in changed[:3])
                raise UserError(f"{folder} holds frames of other options ({words}): repeat those, or add --restart")
        else:
            with atomic_write(record) as temporary:
                temporary.write_text(json.dumps(options, indent=1))
        for leftover in [*folder.glob(".*"), *folder.glob("film*")]:
            remove(leftover)  # what a kill left half-written
        state = read_state(folder)
        yield int(state.pop("finished", 0)), state


def is_beginning(path):
    """Tell whether a file is what a run leaves that could not even write its record: killed, or on a full disk."""
    return path.name.startswith(temporary_path(path.with_name("options.json")).stem) or (
        path.name == "lock" and path.stat().st_size == 0
    )


def damaged(path):
    return UserError(f"{path}: damaged; add --restart to begin anew")


def read_record(path):
    """Return the options {name: value} that a run was begun with."""
    try:
        options = json.loads(path.read_text())
    except (ValueError, RecursionError):
        options = None
    if not isinstance(options, dict):
        raise damaged(path)
    return options


def read_state(folder):
    """Return the state after the last finished frame, {} where none is. Raises UserError where it is damaged."""
    path = folder / "state.npz"
    if not path.exists():
        return {}
    try:
        state = dict(npy_entries(path))
    except UserError:
        raise damaged(path) from None
    count = state.get("finished")
    whole = count is not None and count.shape == () and count.dtype.kind == "i" and count >= 0
    if not whole or any(array.dtype.kind == "V" or not np.isfinite(array).all() for array in state.values()):
        raise damaged(path)
    return state


def check_state(folder, finished, state, size, needed):
    """Raise UserError where a state is not one of a video with frames of `size`, (height, width), all of them here.

    needed: the names of what the next frame is made from.
    """
    shapes = {"frame": (*size, 3), "mean": (3,), "std": (3,), "detail": (), "tile": (), "bands": ()}
    wrong = any(np.shape(value) != shapes.get(name) for name, value in state.items())
    missing = finished > 0 and not set(needed) <= state.keys()
    if wrong or missing or min(state.get("tile", 1), state.get("bands", 1)) < 1:
        raise damaged(folder / "state.npz")
    for n in range(finished):
        if not frame_path(folder, n).exists():
            raise UserError(f"{frame_path(folder, n)} is gone: add --restart to begin anew")


def remove(path):
    """Delete a file, or a folder and all that is in it."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def discard(folder):
    """Delete the folder of a finished video; killed in between, what is left of it does not count as a run's."""
    folder.rename(leftovers(folder))
    shutil.rmtree(leftovers(folder))


def leftovers(folder):
    """Return where discard() has put a folder."""
    return temporary_path(folder)


def finished_frames(folder):
    """Return how many frames are finished in a folder."""
    return int(read_state(folder).get("finished", 0))


def describe_change(name, before, now):
    """Return in words how an option differs from what a run was begun with; of files only the SHA-256 is known."""
    if is_digest(before) and is_digest(now):
        return f"{FILE_NAMES.get(name, f'the file of --{name}')} has changed"
    if is_digest(before) or is_digest(now):
        told = ["a file" if is_digest(value) else value for value in (before, now)]
        return f"{name}: {short(told[0])}, now {short(told[1])}"
    if isinstance(before, list) and isinstance(now, list) and any(map(is_digest, before + now)):
        return f"the files of --{name} have changed"
    return f"{short(name)}: {short(before)}, now {short(now)}"


def short(value):
    """Return a value as text of which a line can hold several."""
    text = str(value)
    return text if len(text) <= SHORT else f"{text[:SHORT]}..."


def is_digest(value):
    """Tell whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def frame_path(folder, n):
    """Return where frame n is kept."""
    return folder / f"{n:06}.png"


def keep_frame(folder, n, levels, state):
    """Write frame n, then the state that says it is there: killed in between, the frame is made again, the same."""
    write_frame(folder, n, levels)
    with atomic_write(folder / "state.npz") as temporary:
        np.savez(temporary, finished=n + 1, **state)


def write_frame(folder, n, levels):
    write_image(frame_path(folder, n), levels, compress_level=1)
