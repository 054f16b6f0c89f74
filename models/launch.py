"""The processes of an mlx.launch: how one joins the others, and how it ends when their launcher has gone.

Nobody else ends the processes of a launcher that was killed, and they would write beside the next run. It holds the
other end of their stdin; that of a process on another machine is a terminal of ssh, which ends it by itself.
"""

import contextlib
import ctypes
import functools
import os
import select
import signal
import stat
import sys
import threading
import time

import mlx.core as mx

from dataset.cli import ENDING

PR_SET_PDEATHSIG = 1  # prctl(2) of Linux: the signal that a process gets when its parent ends
SOON = 0.5  # seconds in which a signal to a launcher and its processes has come to all
LINGER = 15  # seconds in which a process that was told to end may save what it has


def join_group():
    """Return the mx.distributed.Group of this process and the others of its mlx.launch, after waiting for them."""
    if "MLX_RANK" not in os.environ or threading.current_thread() is not threading.main_thread():
        return mx.distributed.init()
    with signals_end_at_once(follow_launcher()):
        return mx.distributed.init()


@functools.cache
def follow_launcher():
    """Begin to watch for the end of the launcher; returns whether there is one."""
    try:
        launched = stat.S_ISFIFO(os.fstat(0).st_mode)
    except OSError:  # there is no stdin
        return False
    if launched:
        threading.Thread(target=end_with_launcher, daemon=True).start()
    return launched


def end_with_launcher():
    """Kill this process as soon as the launcher has gone, unless it is ending by itself."""
    launcher_gone()
    if ENDING.wait(SOON):
        time.sleep(LINGER)
    os.kill(os.getpid(), signal.SIGKILL)


def launcher_gone(timeout=None):
    """Wait until the other end of stdin is closed, at most `timeout` milliseconds; returns whether it is."""
    stdin = select.poll()
    stdin.register(0, 0)  # no events but that
    return bool(stdin.poll(timeout))


@contextlib.contextmanager
def signals_end_at_once(launched):
    """While MLX waits for other processes, Python can do nothing: leave it to the system to end this one."""
    before = {sort: signal.signal(sort, signal.SIG_DFL) for sort in (signal.SIGINT, signal.SIGTERM)}
    by_parent = ctypes.CDLL(None).prctl if launched and sys.platform == "linux" else lambda *_: None
    by_parent(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        if launched and launcher_gone(0):
            os.kill(os.getpid(), signal.SIGKILL)
        yield
    finally:
        by_parent(PR_SET_PDEATHSIG, 0)
        for sort, handler in before.items():
            signal.signal(sort, handler)
