"""The system's viewer of pictures, films and pages, for --show."""

import os
import shutil
import subprocess
import sys

from .cli import log


def show(paths, quiet=False):
    """Open files that were made in the system's viewer: one by itself, several as the folder they are in.

    Where there is no display, or nothing to open files with, a note says so.
    """
    if not paths:
        return
    path = os.path.abspath(paths[0])  # which no program takes for an option
    if len(paths) > 1:
        path = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    on_mac = sys.platform == "darwin"
    program = shutil.which("open" if on_mac else "xdg-open")
    if not program or not (on_mac or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        log(f"note: there is no display to show {paths[0]} on", quiet)
        return
    nothing = subprocess.DEVNULL
    subprocess.Popen([program, path], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
