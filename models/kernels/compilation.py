"""Functions that are laid out once for arrays of a shape: on a GPU in fewer kernels, on a CPU in less time."""

import contextlib
import ctypes
import functools
import os
import shutil
import threading
from pathlib import Path

import mlx
import mlx.core as mx

from .arrays import on_cpu

# mlx::core::set_compile_mode(CompileMode), which Python does not show, and two of its modes (compile.h)
SET_MODE = "_ZN3mlx4core16set_compile_modeENS0_11CompileModeE"
NO_FUSE, ENABLED = 2, 3

one_at_a_time = threading.RLock()


def compiled(function):
    """Return a function of arrays that is compiled from its second call on.

    In the first, layers keep what they derive from their weights, which is then a constant for the calls that follow.
    What is compiled goes with the function that is returned, so that nothing piles up.
    """
    fast, prepared = compiled_with(function, None), False

    def call(*arrays):
        nonlocal prepared
        if prepared:
            return fast(*arrays)
        prepared = True
        return function(*arrays)

    return call


def compiled_with(function, state):
    """Return a function of arrays that is compiled from its first call on; `state`: what it changes beside, lists and
    dictionaries of arrays.
    """
    if on_cpu() and not mode_setter():
        return function
    fast = mx.compile(function, inputs=state, outputs=state)
    if not on_cpu():
        return fast

    def call(*arrays):
        with unfused():
            return fast(*arrays)

    return call


@contextlib.contextmanager
def unfused():
    """Compile without fusing operations, which on a CPU takes seconds of a C++ compiler and rounds otherwise; MLX then
    keeps the graph alone, which it repeats several times faster than Python lays it out.
    """
    set_mode = mode_setter()
    with one_at_a_time:  # the mode is one for all threads
        set_mode(NO_FUSE)
        try:
            yield
        finally:
            set_mode(ENABLED)


@functools.cache
def mode_setter():
    """Return MLX's function that sets how it compiles; None where nothing is to be compiled."""
    library = Path(next(iter(mlx.__path__))) / "lib" / "libmlx.so"
    # without g++, MLX compiles nothing on a CPU
    if "MLX_DISABLE_COMPILE" in os.environ or not (library.exists() and shutil.which("g++")):
        return None
    try:
        os.getcwd()
    except OSError:  # then the shell that MLX asks for g++ would complain
        return None
    mx.compile(lambda x: x)(mx.array(0))  # it asks now, and once
    return getattr(ctypes.CDLL(str(library)), SET_MODE, None)
