"""Checkpoints of a video: finished frames are kept in a folder until the file is written, so that none is lost."""

import contextlib
import fcntl
import json
import shutil

import numpy as np

from dataset.cli import UserError
from dataset.files import atomic_write
from dataset.images import write_image


@contextlib.contextmanager
def resume_frames(folder, options, restart=False, defaults=None):
    """Yield (number of frames that are finished in `folder`, the state after the last).

    A frame there is a .png; the state, all that the next frame needs, is kept unrounded. Raises UserError if `folder`
    was begun with other options, or another process is at work in it; an option that it was begun without counts as its
    value in `defaults`.
    """
    record = folder / "options.json"
    if folder.exists() and not record.exists() and any(folder.iterdir()):
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
            before = json.loads(record.read_text())
            before |= {name: (defaults or {}).get(name) for name in options if name not in before}
            changed = [name for name in before | options if before.get(name) != options.get(name)]
            if changed:
                words = ", ".join(f"{name}: {before.get(name)}, now {options.get(name)}" for name in changed[:3])
                raise UserError(f"{folder} holds frames of other options ({words}): repeat those, or add --restart")
        else:
            with atomic_write(record) as temporary:
                temporary.write_text(json.dumps(options, indent=1))
        for leftover in [*folder.glob(".*"), *folder.glob("film*")]:
            remove(leftover)  # what a kill left half-written
        state = {}
        if (folder / "state.npz").exists():
            with np.load(folder / "state.npz") as arrays:
                state = dict(arrays)
        yield int(state.pop("finished", 0)), state


def remove(path):
    """Delete a file, or a folder and all that is in it."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def frame_path(folder, n):
    """Return where frame n is kept."""
    return folder / f"{n:06}.png"


def keep_frame(folder, n, levels, state):
    """Write frame n, then the state that says it is there: killed in between, the frame is made again, the same."""
    write_image(frame_path(folder, n), levels, compress_level=1)
    with atomic_write(folder / "state.npz") as temporary:
        np.savez(temporary, finished=n + 1, **state)
