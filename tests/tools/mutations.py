"""prove.py mutations: damaged files of every kind, each read as a script reads it, give a result or one line, within
SECONDS and MEMORY each.

A kind is a module or an object with samples(), {name: bytes}; attempt(path), which returns in two words what came of
the file or raises; and, where it has its own way to damage, mutate(data, rng, name).
"""

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import mutate

BATCH = 50  # files that a process damages before it tells
SECONDS = 10  # that one file may take
SHOWN = 25  # failures that are told at length
MEMORY = 2 << 30  # bytes that a process may have in use while it reads one
ADDRESSES = 6 << 30  # bytes of address space for a process: MLX and FFmpeg reserve what they never use
# of all, where no kind is named, for what takes long; the other readers share the rest
SHARES = {"films": 0.025, "dreams": 0.005, "weights": 0.01, "frames": 0.03, "journals": 0.03}


KINDS = {}  # as kinds_of() returns them, and in the processes that read


def kinds_of():
    """Return {name: kind}, imported where they are wanted."""
    import mutated_checkpoints
    import mutated_data
    import mutated_dreams
    import mutated_films
    import mutated_pictures
    import mutated_states

    kinds = {"pictures": mutated_pictures, "films": mutated_films, "checkpoints": mutated_checkpoints}
    kinds |= mutated_data.KINDS | mutated_states.KINDS | {"dreams": mutated_dreams}
    return kinds


def shares(count, kinds):
    """Return {kind: how many} of `count` in all."""
    given = {name: round(count * share) for name, share in SHARES.items() if name in kinds}
    readers = [name for name in kinds if name not in given]
    left = count - sum(given.values())
    even = {name: left // len(readers) + (i < left % len(readers)) for i, name in enumerate(readers)}
    return {name: (even | given)[name] for name in kinds}


def mutations(args, kinds):
    """Damage files and read them; print what came of them."""
    KINDS.update(kinds)
    counts = dict.fromkeys(args.kinds, args.count) if args.kinds else shares(args.count, kinds)
    tasks = [
        (kind, args.seed, range(first, min(first + BATCH, args.first + count)), args.keep)
        for kind, count in counts.items()
        for first in range(args.first, args.first + count, BATCH)
    ]
    began, failures = time.perf_counter(), []
    outcomes, slowest, largest = {kind: Counter() for kind in counts}, Counter(), Counter()
    for (kind, _, numbers, _), found in run_tasks(tasks, args.jobs):
        if found is None:
            failures.append(f"{kind} {numbers.start} to {numbers.stop - 1}: the process died")
            continue
        outcomes[kind] += found[0]
        failures += found[1]
        slowest[kind], largest[kind] = max(slowest[kind], found[2]), max(largest[kind], found[3])
    for kind, counted in outcomes.items():
        told = ", ".join(f"{count:,} {name}" for name, count in counted.most_common())
        print(f"{sum(counted.values()):,} mutated {kind}: {told}; {slowest[kind]:.1f} s and {largest[kind] >> 20} MB "
              "at most")  # fmt: skip
    for failure in failures[:SHOWN]:
        print(failure)
    total = sum(sum(counted.values()) for counted in outcomes.values())
    print(f"{total:,} in all, {len(failures)} failures, {time.perf_counter() - began:.0f} s")
    return 1 if failures else 0


def run_tasks(tasks, jobs):
    """Yield (task, result) of run_batch(); None where the process died, and the tasks after it in a new one."""
    while tasks:
        with pool_of(jobs) as pool:
            futures = [pool.submit(run_batch, *task) for task in tasks]
            done = 0
            with contextlib.suppress(BrokenProcessPool):
                for task, future in zip(tasks, futures, strict=True):
                    yield task, future.result()
                    done += 1
        if done < len(tasks):
            for task in tasks[done : done + jobs]:  # which of those under way was it?
                with pool_of(1) as pool:
                    try:
                        yield task, pool.submit(run_batch, *task).result()
                    except BrokenProcessPool:
                        yield task, None
            done += jobs
        tasks = tasks[done:]


def pool_of(jobs):
    """Return processes that have KINDS from this one."""
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), initializer=limit_memory)


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))


def run_batch(kind, seed, numbers, keep):
    """Return (Counter of outcomes, [line about each failure], longest time in s, most memory in bytes) of some numbered
    mutations."""
    module = KINDS[kind]
    samples = sorted(module.samples().items())
    outcomes, failures, slowest, largest = Counter(), [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            rng = random.Random(f"{kind} {seed} {number}")
            name, data = rng.choice(samples)
            path = Path(keep or folder) / f"{number}-{name}"
            path.write_bytes(module.mutate(data, rng, name) if hasattr(module, "mutate") else mutate.mutate(data, rng))
            began = time.perf_counter()
            try:
                with peak_memory() as peak, deadline(SECONDS), quiet_stderr() as noise:
                    outcome = module.attempt(path)
                    said = noise()
                assert not said, f"said on stderr: {said[:200]}"
                assert time.perf_counter() - began < SECONDS, f"took longer than {SECONDS} s"  # if a reader hid that
                assert peak() < MEMORY, f"took {peak() >> 20} MB"
                outcomes[outcome] += 1
            except Exception:
                failures.append(f"{kind} {number} ({name}): {traceback.format_exc(limit=-4)}")
            slowest, largest = max(slowest, time.perf_counter() - began), max(largest, peak())
            if not keep:
                path.unlink(missing_ok=True)
    return outcomes, failures, slowest, largest


@contextlib.contextmanager
def peak_memory():
    """Yield a function that returns the most bytes that this process has had in use since; elsewhere than on Linux,
    since it began."""

    def peak():
        if sys.platform != "linux":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    yield peak


@contextlib.contextmanager
def deadline(seconds):
    def late(*_):
        raise AssertionError(f"took longer than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@contextlib.contextmanager
def quiet_stderr():
    """Yield a function that returns what was written to stderr, by libraries in C, too."""
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)

        def said():
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(before, 2)
            os.close(before)
