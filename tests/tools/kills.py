"""prove.py kills: a run that is killed (SIGKILL) at any moment, and the next one that ends as if nothing had happened.

Half of the runs are killed at a random time, half before a random operation on files in their folder. The next run must
end with the bytes of an undisturbed one; no other file may stay, and no process.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from material import available_jobs, compare, contents, copy_inputs, environment, go_on, run, write_inputs

# loaded by every Python that finds its folder on PYTHONPATH: counts the operations of the first process of the run on
# files in its folder, and kills it before number KILL_AT
HOOK = """
import os, signal, sys
if len(sys.orig_argv) > 1 and sys.orig_argv[1].endswith(".py") and os.environ.get("MLX_RANK", "0") == "0":
    here, last, count = os.getcwd(), int(os.environ["KILL_AT"]), 0
    names = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod"}
    def watch(event, arguments):
        global count
        if event == "open":
            path, mode, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR):
                return
        elif event in names:
            path = arguments[0]
        else:
            return
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        path = os.path.abspath(os.fsdecode(path))
        if not path.startswith(here + os.sep) or path.endswith("count"):
            return
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        if not last:
            with open("count", "a") as file:
                file.write(".")
    sys.addaudithook(watch)
"""
MARK = "PROVE_KILLS"  # a variable by which processes of ours are known
GRACE = 20  # seconds in which all processes of a killed run have to go


def kills(args):
    """Kill runs of every job in turn; print what came of them."""
    jobs = available_jobs(args.kinds)
    counts, failures, began = Counter(), [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        template = write_inputs(folder / "inputs")
        whole = {}
        for number in range(args.first, args.first + args.count):
            rng = random.Random(f"kills {args.seed} {number}")
            name = list(jobs)[number % len(jobs)]
            if name not in whole:
                whole[name] = undisturbed(jobs[name], template, folder)
            try:
                counts[name, kill_once(jobs[name], template, folder, whole[name], rng, number // len(jobs) % 2)] += 1
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failures.append(f"kills {number} ({name}): {error}")
                if args.keep:
                    shutil.copytree(folder / "work", args.keep / f"{number}-{name}", dirs_exist_ok=True)
            shutil.rmtree(folder / "work", ignore_errors=True)
    for name in jobs:
        told = ", ".join(f"{count} {how}" for (job, how), count in sorted(counts.items()) if job == name)
        print(f"{name}: {told}")
    for failure in failures:
        print(failure)
    killed = sum(count for (_, how), count in counts.items() if how != "ended before")
    print(f"{killed} of {args.count} runs killed and ended alike by the next, {len(failures)} failures, "
          f"{time.perf_counter() - began:.0f} s")  # fmt: skip
    return 1 if failures else 0


def undisturbed(job, template, folder):
    """Return (seconds, number of operations on files, contents) of a run that nothing disturbs."""
    work = copy_inputs(template, folder / "work")
    began = time.perf_counter()
    done = run(job.words(), work)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    whole = contents(work, template)
    shutil.rmtree(work)
    copy_inputs(template, work)
    subprocess.run(job.words(), cwd=work, env=hooked(folder, 0), stdout=subprocess.DEVNULL, check=True)
    operations = (work / "count").stat().st_size
    shutil.rmtree(work)
    return seconds, operations, whole


def hooked(folder, operation, mark="0"):
    return environment(PYTHONPATH=str(folder / "hook"), KILL_AT=str(operation), **{MARK: mark})


def kill_once(job, template, folder, whole, rng, by_operation):
    """Kill a run, perhaps the one after it, too, and let the last go on; returns how it was killed."""
    seconds, operations, wanted = whole
    work = copy_inputs(template, folder / "work")
    how, mark = "ended before", f"{os.getpid()} {rng.random()}"
    for _ in range(rng.choice((1, 1, 2))):
        again = work if how != "ended before" else None
        if by_operation:
            killed = start(job.words(again), work, hooked(folder, rng.randrange(1, operations + 1), mark))
            killed.wait(timeout=120)
        else:
            killed = start(job.words(again), work, environment(**{MARK: mark}))
            try:
                killed.wait(timeout=rng.uniform(0.15, 1) * seconds)
            except subprocess.TimeoutExpired:
                os.killpg(killed.pid, signal.SIGKILL) if job.launch and rng.random() < 0.5 else killed.kill()
                killed.wait()
        if killed.returncode not in (0, -signal.SIGKILL) and not job.launch:
            raise AssertionError(f"ended with {killed.returncode}")
        if killed.returncode or (job.launch and contents(work, template) != wanted):  # a launcher's status may be 0
            how = "killed at an operation" if by_operation else "killed at a moment"
    go_on(job.words(work if how != "ended before" else None), work)
    compare(wanted, contents(work, template))
    until = time.monotonic() + GRACE
    while alive(mark) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(mark), f"processes that stay: {alive(mark)}"
    return how


def start(words, work, env):
    return subprocess.Popen(
        words, cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip


def alive(mark):
    """Return the processes whose environment has the mark; none where there is no /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            pass
    return found
