"""What a script needs from its first import on: three streams that are open, and Ctrl-C in one line.

Nothing is changed where the program that runs is none of ours, but one that imports us.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 3  # seconds: so long after a Ctrl-C, while what was begun is put away, another one is not heard


def is_script():
    """Return whether the program that runs is one of ours, and no user's that imports us."""
    try:
        main = Path(sys.argv[0]).absolute() if sys.argv else Path()
        return main.suffix == ".py" and main.resolve().parent in (ROOT, ROOT / "dataset")
    except OSError:  # the working folder is gone
        return False


def open_streams():
    """Let stdin, stdout and stderr lead nowhere where they are closed, before another file takes their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def watch_imports():
    """Until raise_once() is called, Ctrl-C ends the program at once: nothing has begun."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def end(signum, frame):
    with contextlib.suppress(OSError):
        os.write(2, f"{Path(sys.argv[0]).name}: interrupted\n".encode())
    os._exit(130)


def raise_once():
    """From now on Ctrl-C raises KeyboardInterrupt, but not again while the first one is heeded.

    Where a shell has told a job in the background to ignore it, it does.
    """
    last = -PATIENCE

    def interrupt(signum, frame):
        nonlocal last
        now = time.monotonic()
        if now - last >= PATIENCE:
            last = now
            raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) in (end, signal.default_int_handler):
        signal.signal(signal.SIGINT, interrupt)


def ignore():
    """All is done and said: Python, which is about to end, would show a traceback."""
    if is_script():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if is_script():
    open_streams()
    watch_imports()
