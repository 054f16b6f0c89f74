"""Prove what takes longer than a test may.

    python tests/tools/prove.py mutations --count 10000 --seed 0       # damaged files: an image or a video, or one line
    python tests/tools/prove.py mutations pictures --first 123 --count 1 --keep FOLDER     # one of them again

The figures come at the end; the exit status is 1 if anything was neither.
"""

import argparse
import contextlib
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

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import mutate  # noqa: E402
import mutated_checkpoints  # noqa: E402
import mutated_films  # noqa: E402
import mutated_pictures  # noqa: E402

# what is damaged: a module with samples(), {name: bytes}, and attempt(path), which returns what came of it in two words
KINDS = {"pictures": mutated_pictures, "films": mutated_films, "checkpoints": mutated_checkpoints}
BATCH = 50  # files that a process damages before it tells
SECONDS = 60  # that one file may take
MEMORY = 6 << 30  # bytes of address space for a process


def mutations(args):
    """Damage files and read them; print what came of them."""
    kinds = args.kinds or list(KINDS)
    tasks = [
        (kind, args.seed, range(first, min(first + BATCH, args.first + args.count)), args.keep)
        for kind in kinds
        for first in range(args.first, args.first + args.count, BATCH)
    ]
    began, failures = time.perf_counter(), []
    outcomes = {kind: Counter() for kind in kinds}
    for (kind, _, numbers, _), found in run_tasks(tasks, args.jobs):
        if found is None:
            failures.append(f"{kind} {numbers.start} to {numbers.stop - 1}: the process died")
            continue
        outcomes[kind] += found[0]
        failures += found[1]
    for kind, counts in outcomes.items():
        total = sum(counts.values())
        print(f"{total:,} mutated {kind}: " + ", ".join(f"{count:,} {name}" for name, count in counts.most_common()))
    for failure in failures:
        print(failure)
    print(f"{len(failures)} failures, {time.perf_counter() - began:.0f} s")
    return 1 if failures else 0


def run_tasks(tasks, jobs):
    """Yield (task, result) of run_batch(); None where the process died, and the tasks after it in a new one."""
    while tasks:
        with ProcessPoolExecutor(jobs, initializer=limit_memory) as pool:
            futures = [pool.submit(run_batch, *task) for task in tasks]
            done = 0
            with contextlib.suppress(BrokenProcessPool):
                for task, future in zip(tasks, futures, strict=True):
                    yield task, future.result()
                    done += 1
        if done < len(tasks):
            with ProcessPoolExecutor(1, initializer=limit_memory) as pool:  # which of those under way was it?
                for task in tasks[done : done + jobs]:
                    try:
                        yield task, pool.submit(run_batch, *task).result()
                    except BrokenProcessPool:
                        yield task, None
                        pool = ProcessPoolExecutor(1, initializer=limit_memory)
            done += jobs
        tasks = tasks[done:]


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def run_batch(kind, seed, numbers, keep):
    """Return (Counter of outcomes, [line about each failure]) of some numbered mutations."""
    module = KINDS[kind]
    samples = sorted(module.samples().items())
    outcomes, failures = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            rng = random.Random(f"{kind} {seed} {number}")
            name, data = rng.choice(samples)
            path = Path(keep or folder) / f"{number}-{name}"
            path.write_bytes(mutate.mutate(data, rng))
            try:
                with deadline(SECONDS), quiet_stderr() as noise:
                    outcome = module.attempt(path)
                    said = noise()
                assert not said, f"said on stderr: {said[:200]}"
                outcomes[outcome] += 1
            except Exception:
                failures.append(f"{kind} {number} ({name}): {traceback.format_exc(limit=-2)}")
            if not keep:
                path.unlink()
    return outcomes, failures


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


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True, metavar="WHAT")
    verb = verbs.add_parser("mutations", help="damaged files give an image or a video, or one line")
    verb.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    verb.add_argument("--count", type=int, default=1000, help="of each kind")
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--first", type=int, default=0, help="number of the first")
    verb.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    verb.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the damaged files there")
    verb.set_defaults(run=mutations)
    args = parser.parse_args(arguments)
    unknown = set(getattr(args, "kinds", [])) - set(KINDS)
    if unknown:
        parser.error(f"there is no kind {unknown.pop()}: they are {', '.join(KINDS)}")
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
