"""dataset/workers.py: answers in order, errors told, and no process left behind."""

import math
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from dataset.workers import Workers


def test_workers_import_no_mlx():
    with Workers("functools:partial", eval, 1) as workers:
        loaded = "[name for name in __import__('sys').modules if name.split('.')[0] in ('dataset', 'mlx')]"
        (names,) = workers.map([f"bool(__import__('dataset.loader')) and {loaded}"])
    assert "dataset.loader" in names and "mlx" not in names


def test_answers_come_in_order_and_failures_are_errors():
    with Workers("functools:partial", math.sqrt, 3) as workers:
        assert list(workers.map(number * number for number in range(50))) == list(range(50))
        with pytest.raises(RuntimeError, match="ValueError"):
            list(workers.map([-1]))
        workers.processes[1].kill()
        with pytest.raises(MemoryError, match="status -9"):
            list(workers.map([1, 1, 1]))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tree, end):
    """A program without `if __name__ == "__main__"`, killed or interrupted in the middle of an epoch."""
    program = f"""
from dataset import *
loader = Loader(read_folder({str(tree)!r})[0], 4, 8, Augmentation(), workers=2)
batches = loader.epoch()
next(batches)
print(*[process.pid for process in loader.workers.processes], flush=True)
import time
time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    parent.send_signal(end)
    parent.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    """Whether a process runs; one that has ended and waits for a parent to notice does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
