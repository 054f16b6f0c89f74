"""Worker processes: a fixed team, each with a pipe to the program that started it, and nothing shared.

Not multiprocessing, for three reasons. Its workers import the main script anew, and with it mlx and a second GPU
context. They live on when their parent is killed. And a worker that dies leaves its parent waiting for ever. Here a
worker is a fresh `python` that sees the end of its pipe when the parent goes, however it goes; Ctrl-C reaches the
parent only; and a lost worker is an error.
"""

import contextlib
import importlib
import os
import pickle
import subprocess
import sys
from collections import deque
from pathlib import Path

from dataset.cli import UserError

ROOT = str(Path(__file__).resolve().parent.parent)
START = "import sys; sys.path[0] = sys.argv[1]; from dataset.workers import work; work()"


def cores():
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """`count` processes, each of which calls `module:function` with `setup` and then the result of that with each
    task it is sent. Setup, tasks and answers are anything that can be pickled; tasks should be small (a path).
    """

    def __init__(self, target, setup, count=None):
        # models/kernels/blas.py imports mlx to put a fast BLAS under it, on Linux: not here
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "DEEPDREAM_BLAS": "off"}
        self.processes = []
        for _ in range(count or cores()):
            process = subprocess.Popen(
                [sys.executable, "-c", START, ROOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # the terminal's Ctrl-C is not for it
            )
            self.processes.append(process)
        message = pickle.dumps((target, setup))
        for process in self.processes:
            self.write(process, message)

    def __len__(self):
        return len(self.processes)

    def send(self, worker, task):
        self.write(self.processes[worker], pickle.dumps(task))

    def write(self, process, message):
        try:
            process.stdin.write(message)
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self.lost(process) from None

    def receive(self, worker):
        """Return the answer to the oldest task sent to this worker and not yet answered."""
        process = self.processes[worker]
        try:
            failed, answer = pickle.load(process.stdout)
        except (EOFError, pickle.UnpicklingError, ValueError):
            raise self.lost(process) from None
        if failed:
            raise answer
        return answer

    def lost(self, process):
        process.kill()
        return MemoryError(f"a worker process ended with status {process.wait()}")  # the usual cause

    def map(self, tasks, ahead=4):
        """Yield the answers in the order of the tasks; at most `ahead` tasks a worker are under way."""
        waiting, turn = deque(), 0
        for task in tasks:
            if len(waiting) == ahead * len(self):
                yield self.receive(waiting.popleft())
            self.send(turn, task)
            waiting.append(turn)
            turn = (turn + 1) % len(self)
        while waiting:
            yield self.receive(waiting.popleft())

    def close(self):
        """End the processes, each after the task it is at, so that none leaves a file half-written."""
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):  # a task not yet written
                process.stdin.close()
            process.stdout.close()
        for process in self.processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def work():
    """Be a worker: take tasks from stdin and write answers to stdout, until stdin ends."""
    tasks, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not print into the answers
    try:
        target, setup = pickle.load(tasks)
        module, name = target.split(":")
        handle = getattr(importlib.import_module(module), name)(setup)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 2)  # libtiff and libpng complain there about broken files; we report those ourselves
        while True:
            answer = attempt(handle, pickle.load(tasks))
            pickle.dump(answer, answers, protocol=5)
            answers.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)  # the parent has gone


def attempt(handle, task):
    """Return (whether the task failed, the answer or the error)."""
    try:
        return False, handle(task)
    except UserError as error:
        return True, UserError(str(error))  # a subclass may not survive pickling
    except (OSError, MemoryError) as error:  # a full disk: the user's affair, told in one line by cli.run
        return True, error
    except Exception:
        import traceback

        return True, RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
