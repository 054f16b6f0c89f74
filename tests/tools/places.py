"""prove.py places: a run in an odd place ends with the outputs of one in a usual place, or says one line and why not.

A kind is a function of a Visit, which it leads to such a place; it returns in a few words what came of the run, or
raises AssertionError. No file may stay that an undisturbed run would not have left, and no traceback be shown.
"""

import contextlib
import fcntl
import os
import pty
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from kept import essences
from material import ROOT, available_jobs, compare, contents, copy_inputs, environment, go_on, run, write_inputs

SECONDS = 120  # that a run may take
JUMPS = 8 * 3600  # seconds by which the clock jumps, at each look at it
# loaded by every Python that finds its folder on PYTHONPATH
CLOCK = f"""
import random, time
for name, unit in (("time", 1), ("time_ns", 10**9)):
    def jumping(real=getattr(time, name), unit=unit):
        return real() + random.randint(-{JUMPS}, {JUMPS}) * unit
    setattr(time, name, jumping)
"""
# what a name may begin with: of the files that are given, and of those that are made
NAMES = {
    "spaces": "a  b ", "a newline": "a\nb", "emoji": "\U0001f40c\u200d\U0001f308", "quotes": "'\"`$(x)\\",
    "a dash": "-", "signs": "%d{0}*?[a]~#&;:=", "bytes": "\udcff\udc80", "accents": "e\u0301\u00e9\u4e2d",
    "controls": "\x1b[31m\x07\t",
}  # fmt: skip
PADS = ("photo.png", "photos", "set", "film.mp4", "weights.safetensors", "own.npz", "c.npz", "survey.png", "atlas.html")


@dataclass(frozen=True)
class Whole:
    """What a run leaves that nothing disturbs."""

    seconds: float
    files: dict  # relative path: digest
    folder: Path


@dataclass(frozen=True)
class Visit:
    """A job that is to be done in `work`, a folder that does not exist yet, with what `template` holds."""

    job: object
    template: Path
    work: Path
    hooks: Path  # a folder for what Python loads
    whole: Whole
    rng: random.Random

    def prepared(self):
        copy_inputs(self.template, self.work)
        return self

    def start(self, words=None, env=None, **options):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} | options
        env = environment() if env is None else env
        return subprocess.Popen(words or self.job.words(), cwd=self.work, env=env, **options)

    def do(self, words=None, env=None, **options):
        """Run the job to its end; returns (status, what it said on stderr)."""
        started = self.start(words, env, **options)
        said = told(started)
        return started.returncode, said

    def check(self, prefix=""):
        """Assert that all is there as an undisturbed run leaves it; but for names, where they have a prefix."""
        if not prefix:
            compare(self.whole.files, contents(self.work, self.template))
        else:
            learnt = self.job.script == "train_dream.py"
            compare(essences(self.whole.folder, "", learnt), essences(self.work, prefix, learnt))


def told(process):
    try:
        return process.communicate(timeout=SECONDS)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def check_quiet(status, said):
    """Assert that a run with --quiet went well."""
    assert status == 0, f"ended with {status}: {said[-600:]}"
    assert not said, f"said on stderr: {said[-600:]}"


def check_line(status, said):
    """Assert that a run that could not do its work said why in one line."""
    assert status in (1, 2), f"ended with {status}: {said[-600:]}"
    assert re.fullmatch(r"\w+\.py: (error: )?\S[^\n]*\n", said), f"no line about it: {said[-600:]}"


# --- Homes, locales and the like: the same bytes ---


def simple(**changes):
    """Return the kind of place that is another environment; None leaves a variable out."""

    def visit(place):
        env = {name: value for name, value in environment(**changes).items() if value is not None}
        check_quiet(*place.prepared().do(env=env))
        place.check()
        return "as elsewhere"

    return visit


def without_shm(place):
    """/dev/shm is there, but nothing can be written to it."""
    seal = 'mount -t tmpfs -o ro none /dev/shm && exec "$@"'
    prefix = ["unshare", "-m", "sh", "-c", seal, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        return "skipped: mounting is not permitted"
    check_quiet(*place.prepared().do([*prefix, *place.job.words()]))
    place.check()
    return "as elsewhere"


def jumping_clock(place):
    """Each look at the clock tells another hour, and files come from 1970 and from years to come."""
    (place.hooks / "sitecustomize.py").write_text(CLOCK)
    place.prepared()
    for path in sorted(place.work.rglob("*")):
        os.utime(path, (place.rng.choice((0, 1, 4e9)),) * 2)
    check_quiet(*place.do(env=environment(PYTHONPATH=str(place.hooks))))
    compare(timeless(place.whole.files), timeless(contents(place.work, place.template)))
    return "as elsewhere"


def timeless(files):
    """Leave out what tells of the times of files: the names in runs/.cache, and of what a background was made."""
    files = {name: digest for name, digest in files.items() if not name.startswith("runs/.cache/")}
    return files | dict.fromkeys({"own.background.npz"} & files.keys(), "there")


# --- Names ---


def odd_names(place, names=NAMES, env=None):
    """All files that are given and made have odd names, and so has the folder they are in."""
    kind = place.rng.choice(sorted(names))
    prefix = names[kind]
    place = replace(place, work=place.work / (prefix + "folder"))
    place.work.parent.mkdir()
    place.prepared()
    for path in sorted(place.work.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(prefix + path.name))
    words = [odd_word(word, prefix) for word in place.job.words()]
    check_quiet(*place.do(words, env))
    place.check(prefix)
    return f"{kind} in names"


def odd_word(word, prefix):
    """Return a word of a command with the prefix before each name in it."""
    if not (word in PADS or word.startswith(("out.", "out_", "set/")) or word == "out"):
        return word
    named = "/".join(prefix + part for part in word.split("/"))
    return "./" + named if prefix[0] in "-~" else named


def with_locale(**changes):
    """Return the kind of place that is another locale, with names that it has no letters for."""

    def visit(place):
        if place.job.launch:
            return "skipped: the shell of mlx.launch complains about the locale"
        letters = {name: NAMES[name] for name in ("emoji", "accents", "bytes", "spaces")}
        return odd_names(place, letters, environment(PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", **changes))

    return visit


# --- Terminals and streams ---


def narrow_terminal(place):
    if place.job.launch:
        return "skipped: mlx.launch gives its processes no terminal"
    columns = place.rng.choice((40, 40, 20, 0))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    words = [word for word in place.job.words() if word != "--quiet"]
    started = place.prepared().start(words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    said = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while block := os.read(master, 1 << 16):
            said += block
    os.close(master)
    assert started.wait(SECONDS) == 0, f"ended with {started.returncode}: {said[-600:]}"
    said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said.decode())
    assert "Traceback" not in said and "Exception" not in said, said[-600:]
    wide = [line for line in re.split(r"[\r\n]+", said) if re.search(r"\d%?\|.*\||\d[a-z]*/s", line)]
    wide = [line for line in wide if len(line) > columns] if columns else []
    assert not wide, f"wider than {columns} columns: {wide[:2]}"
    compare_all_but_words(place)
    return f"{columns} columns"


def compare_all_but_words(place):
    """Compare all but the command, which was another, without --quiet."""
    found = contents(place.work, place.template)
    for files in (found, wanted := dict(place.whole.files)):
        files.pop("runs/out/command", None)
    compare(wanted, found)


def without_terminal(place):
    """Started by a daemon: no terminal, and some of the three streams are closed."""
    if place.job.launch:
        return "skipped: mlx.launch itself needs its streams"
    closed = place.rng.choice(((0,), (0, 1), (2,), (0, 1, 2)))

    words = ["sh", "-c", 'exec "$@" ' + " ".join(f"{number}>&-" for number in closed), "sh"]
    words += [word for word in place.job.words() if word != "--quiet"]
    status, said = place.prepared().do(words, start_new_session=True)
    assert status == 0, f"ended with {status}, {closed} closed: {said[-600:]}"
    assert "Traceback" not in said and "Exception" not in said, said[-600:]
    compare_all_but_words(place)
    return f"{'and'.join(map(str, closed))} closed"


def full_stdout(place):
    """Nothing can be written to stdout: its reader has gone, or its disk is full."""
    if place.job.launch:
        return "skipped: mlx.launch reads what its processes write"
    reader, writer = os.pipe()
    os.close(reader)
    full = place.rng.random() < 0.5 and Path("/dev/full").exists()
    with open("/dev/full" if full else writer, "wb", closefd=bool(full)) as stdout:
        status, said = place.prepared().do(stdout=stdout)
    os.close(writer)
    if status and not full:
        assert status in (1, 141) and not said, f"ended with {status}: {said[-600:]}"
    elif status:
        check_line(status, said)
        assert "No space left" in said, said
    else:
        check_quiet(status, said)
    again(place)
    return "full" if full else "its reader has gone"


def again(place):
    """Do the job again after a run that came to nothing: it ends as if there had been none."""
    no_temporary_files(place)
    go_on(place.job.words(place.work), place.work)
    place.check()


def no_temporary_files(place):
    left = [str(path.relative_to(place.work)) for path in place.work.rglob(".*part*")]
    assert not left, f"left: {left}"


# --- Ctrl-C, and two at once ---


def interrupted(times):
    """Return the kind of place where somebody types Ctrl-C."""

    def visit(place):
        if place.job.launch:
            return "skipped: mlx.launch has a Ctrl-C of its own"
        started = place.prepared().start(start_new_session=True)
        for number in range(times):
            try:
                started.wait(place.rng.uniform(0.05, place.whole.seconds) if not number else place.rng.uniform(0, 0.3))
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGINT)
        said = told(started)
        if started.returncode == 0:
            check_quiet(0, said)
        elif not hardly_begun(said):
            assert started.returncode in (130, -signal.SIGINT), f"ended with {started.returncode}: {said[-900:]}"
            assert re.fullmatch(r"(saved: [^\n]+\n)?\w+\.py: interrupted\n", said), f"no line about it: {said[-900:]}"
        again(place)
        return "before its end" if started.returncode else "after its end"

    return visit


def hardly_begun(said):
    """Return whether a traceback is from before a script's first import that is ours."""
    ours = re.findall(rf'File "{re.escape(str(ROOT))}/([^"]+)", line \d+, in (.+)', said)
    return "Traceback" in said and len(ours) < 2 and all(where == "<module>" for _, where in ours)


def two_at_once(place):
    """Two runs of the same command in the same folder: each ends well or says a line, and the output is whole."""
    place.prepared()
    first = place.start()
    time.sleep(place.rng.choice((0, 0, 0.1, place.rng.uniform(0, place.whole.seconds))))
    second = place.start()
    ends = []
    for process in (first, second):
        said = told(process)
        if process.returncode:
            check_line(process.returncode, said)
        else:
            check_quiet(process.returncode, said)
        ends.append(process.returncode)
    assert 0 in ends, f"none ended well: {ends}"
    no_temporary_files(place)
    place.check()
    return "both well" if ends == [0, 0] else "one well, one with a line"


KINDS = {
    "no-home": simple(HOME=None, USER=None, LOGNAME=None, XDG_CACHE_HOME=None),
    "sealed-home": simple(HOME="/proc/self", XDG_CACHE_HOME=None),  # where nobody may write, root included
    "no-shm": without_shm,
    "narrow": narrow_terminal,
    "no-terminal": without_terminal,
    "c-locale": with_locale(LANG="C", LC_ALL="C"),
    "latin-1": with_locale(LC_ALL="en_US.ISO-8859-1", PYTHONIOENCODING="latin-1"),
    "names": odd_names,
    "interrupt": interrupted(1),
    "interrupt-twice": interrupted(2),
    "closed-stdout": full_stdout,
    "two-at-once": two_at_once,
    "clock": jumping_clock,
}


def places(args):
    """Do every job in every kind of place; print what came of it."""
    kinds, jobs = args.kinds or list(KINDS), available_jobs()
    counts, failures, began = {kind: Counter() for kind in kinds}, [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        template = write_inputs(folder / "inputs")
        whole = {}
        for number in range(args.first, args.first + (args.count or len(kinds) * len(jobs))):
            kind, name = kinds[number % len(kinds)], list(jobs)[number // len(kinds) % len(jobs)]
            if name not in whole:
                whole[name] = undisturbed(jobs[name], template, folder, name)
            hooks = folder / "hooks"
            hooks.mkdir()
            rng = random.Random(f"places {args.seed} {kind} {name} {number}")
            visit = Visit(jobs[name], template, folder / "work", hooks, whole[name], rng)
            try:
                counts[kind][KINDS[kind](visit)] += 1
            except (AssertionError, subprocess.TimeoutExpired) as error:
                failures.append(f"places {number} ({kind}, {name}): {error}")
                if args.keep:
                    shutil.copytree(folder / "work", args.keep / f"{number}-{kind}-{name}", dirs_exist_ok=True)
            for used in ("work", "hooks"):
                shutil.rmtree(folder / used, ignore_errors=True)
    for kind, counted in counts.items():
        print(f"{kind}: " + ", ".join(f"{count} {how}" for how, count in sorted(counted.items())))
    for failure in failures:
        print(failure)
    done = sum(count for counted in counts.values() for how, count in counted.items() if not how.startswith("skipped"))
    print(f"{done} runs in odd places as in usual ones, {len(failures)} failures, {time.perf_counter() - began:.0f} s")
    return 1 if failures else 0


def undisturbed(job, template, folder, name):
    """Return the Whole of a job, done where the others will be."""
    work = copy_inputs(template, folder / "work")
    began = time.perf_counter()
    done = run(job.words(), work)
    seconds = time.perf_counter() - began
    work = work.rename(folder / name)
    assert done.returncode == 0, done.stderr
    return Whole(seconds, contents(work, template), work)
