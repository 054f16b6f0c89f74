"""prove.py disk: a disk that is full, that is or becomes read-only, and a folder that vanishes, at any stage of a run.

Each run works in a tmpfs of its own, on inputs beside old files of its outputs' names. If the disk has no room for what
it writes, or takes nothing, it has to end with one line and to leave each old file, or a whole new one, and no
temporary file; with room made, the next run ends with the bytes of an undisturbed one.
"""

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from models import weights_file
from models.dreaming import atlas

from material import available_jobs, compare, contents, copy_inputs, environment, go_on, run, write_inputs

from dataset.cli import UserError

AMPLE = 256 << 20  # bytes of a tmpfs with room for everything
PAGE = 4096  # bytes, in which a tmpfs counts
OLD = b"an old file"


def disk(args):
    """Run every job on every kind of bad disk in turn; print what came of them."""
    kinds, jobs = args.kinds or list(KINDS), available_jobs()
    counts, failures, began = Counter(), [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if refused := mount(folder):
            print(f"skipped: a tmpfs cannot be mounted here: {refused}")
            return 0
        subprocess.run(["umount", folder], check=True)
        template, whole = write_inputs(folder / "inputs"), {}
        for number in range(args.first, args.first + (args.count or len(kinds) * len(jobs))):
            kind, name = kinds[number % len(kinds)], list(jobs)[number // len(kinds) % len(jobs)]
            with small_disk(folder / "disk") as place:
                if name not in whole:
                    whole[name] = undisturbed(jobs[name], template, place)
            with small_disk(folder / "disk") as place:
                rng = random.Random(f"disk {args.seed} {number}")
                try:
                    counts[kind, KINDS[kind](jobs[name], template, place, whole[name], rng)] += 1
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    failures.append(f"disk {number} ({kind}, {name}): {error}")
                    if args.keep:
                        shutil.copytree(place, args.keep / f"{number}-{name}", dirs_exist_ok=True)
    for kind in kinds:
        told = ", ".join(f"{count} {how}" for (which, how), count in sorted(counts.items()) if which == kind)
        print(f"{kind}: {told}")
    for failure in failures:
        print(failure)
    total = sum(counts.values()) + len(failures)
    print(f"{total} runs on bad disks, {len(failures)} failures, {time.perf_counter() - began:.0f} s")
    return 1 if failures else 0


# --- Kinds: what happens to the disk ---


def fill_up(job, template, place, whole, rng):
    """Leave room for a random part of what the run writes at once."""
    work, before = begin(job, template, place)
    room = whole.peak * rng.random() ** rng.choice((1, 4))  # small files come first, and are most of the stages
    remount(place, f"size={used(place) + int(room) // PAGE * PAGE}")
    how = check_ended(job, run(job.words(), work), work, before, whole)
    remount(place, f"size={AMPLE}")
    return with_room(job, template, work, whole, how)


def forbid(job, template, place, whole, rng):
    """Make the disk read-only, before the run or while it works."""
    work, before = begin(job, template, place)
    if rng.random() < 0.5:
        remount(place, "ro")
        done = run(job.words(), work)
    else:
        with started(job, work) as process:
            time.sleep(rng.uniform(0, 1) * whole.seconds)
            while process.poll() is None:  # not while a file is open for writing
                with contextlib.suppress(subprocess.CalledProcessError):
                    remount(place, "ro")
                    break
            done = finished(process)
    how = check_ended(job, done, work, before, whole)
    remount(place, "rw")
    return with_room(job, template, work, whole, how)


def vanish(job, template, place, whole, rng):
    """Delete the folder that a run works in, inputs and all."""
    work, _ = begin(job, template, place)
    with started(job, work) as process:
        time.sleep(rng.uniform(0.05, 1) * whole.seconds)
        while work.exists():
            shutil.rmtree(work, ignore_errors=True)
        done = finished(process)
    if done.returncode or job.launch:
        check_lines(job, done, beside="no such file")  # a line for each image
    assert not list(place.iterdir()), f"made again: {sorted(place.rglob('*'))}"
    return "told in one line" if done.returncode else "ended before"


KINDS = {"full": fill_up, "read-only": forbid, "vanishing": vanish}


# --- The promise ---


class Whole:
    """What an undisturbed run leaves: its contents(), how many bytes it has on the disk at most, and its seconds."""

    def __init__(self, found, peak, seconds):
        self.found, self.peak, self.seconds = found, peak, seconds


def undisturbed(job, template, place):
    work, _ = begin(job, template, place)
    start, peak, began = used(place), 0, time.perf_counter()
    with started(job, work) as process:
        while process.poll() is None:
            peak = max(peak, used(place) - start)
            time.sleep(0.001)
        done = finished(process)
    assert done.returncode == 0, done.stderr
    return Whole(contents(work, template), max(peak, used(place) - start), time.perf_counter() - began)


def begin(job, template, place):
    """Copy the inputs, put old files in the places of outputs, and return (folder, its contents)."""
    work = copy_inputs(template, place / "work")
    for name in () if job.resume else job.outputs:  # which --resume would take for finished ones
        if "." in name:
            (work / name).write_bytes(OLD)
    return work, contents(work)


def check_ended(job, done, work, before, whole):
    """Check that a run ended well, or with one line and all that is promised; returns which in words."""
    found = contents(work)
    temporary = [name for name in found if ".part-" in name]
    assert not temporary, f"stays: {temporary}"
    lost = sorted(before.keys() - found.keys())
    assert not lost, f"lost: {lost}"
    for name, digest in found.items():
        if digest not in (before.get(name), whole.found.get(name)) and name.split("/")[0] in (*job.outputs, *before):
            assert is_step_on_the_way(work / name), f"not whole: {name}"
    if done.returncode or job.launch:
        check_lines(job, done, beside="error: out/")  # a line for each picture of a folder
    if done.returncode:
        return "told in one line"
    if not job.launch:  # whose launcher does not tell how its processes ended
        changed = [name for name in job.outputs if found.get(name) != whole.found[name]]
        assert not changed, f"ended with 0, but not the same: {changed}"
    return "had room enough"


def check_lines(job, done, beside=None):
    """Check that a run says in one line what was wrong; before it, only lines that hold the text `beside`."""
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr[-1500:]
    if job.launch:  # which adds lines of its own
        return
    assert done.returncode > 0, f"ended by signal {-done.returncode}: {done.stderr[-600:]}"
    *others, last = done.stderr.strip().splitlines() or [""]
    stray = [line for line in others if not beside or beside not in line.lower()]
    assert "error: " in last and not stray, f"not one line: {done.stderr}"


def is_step_on_the_way(path):
    """Tell whether a file is whole, but not the last: the weights of an epoch, or a page that is not finished."""
    try:
        return bool(atlas.read_page(path) if path.suffix == ".html" else weights_file.read(path))
    except (UserError, ValueError):
        return False


def with_room(job, template, work, whole, how):
    """Run again, now that there is room; returns `how`."""
    go_on(job.words(work), work)
    compare(whole.found, contents(work, template))
    return how


# --- Disks and processes ---


def mount(place):
    """Mount a tmpfs; returns why not, or None."""
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={AMPLE}", "tmpfs", place], capture_output=True, text=True
        )
    except OSError as error:
        return error.strerror
    return " ".join(done.stderr.split()) or "no permission" if done.returncode else None


def remount(place, options):
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def small_disk(place):
    place.mkdir(exist_ok=True)
    refused = mount(place)
    assert not refused, refused
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def used(place):
    told = os.statvfs(place)
    return (told.f_blocks - told.f_bfree) * told.f_frsize


@contextlib.contextmanager
def started(job, work):
    """Yield the process of a job; it is killed if it has not ended."""
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            job.words(), cwd=work, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=noise
        )
        process.noise = noise
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def finished(process):
    """Wait for a process of started(); returns subprocess.CompletedProcess."""
    process.wait(timeout=120)
    process.noise.seek(0)
    stderr = process.noise.read().decode(errors="replace")
    return subprocess.CompletedProcess(process.args, process.returncode, None, stderr)
