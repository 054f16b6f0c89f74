"""tests/tools/prove.py: a short run of what it proves at length, and that it sees what it is to see."""

import subprocess
import sys

import pytest
from conftest import ROOT

PROVE = ROOT / "tests" / "tools" / "prove.py"


def prove(*arguments):
    return subprocess.run([sys.executable, PROVE, *arguments], capture_output=True, text=True, timeout=300)


def test_mutated_pictures_give_an_image_or_one_line():
    done = prove("mutations", "pictures", "--count", "400", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("400 mutated pictures: ") and "0 failures" in done.stdout


def test_mutated_films_give_a_video_or_one_line():
    done = prove("mutations", "films", "--count", "60", "--seed", "1")
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("60 mutated films: ") and "0 failures" in done.stdout


def test_mutated_checkpoints_give_arrays_or_one_line():
    done = prove("mutations", "checkpoints", "--count", "100", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("100 mutated checkpoints: ") and "0 failures" in done.stdout


def test_killed_runs_end_as_if_nothing_had_happened():
    done = prove("kills", "folder", "convert", "--count", "4", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 4 runs killed and ended alike by the next, 0 failures" in done.stdout


@pytest.mark.parametrize("first", [0, 18], ids=["pictures", "film"])
def test_bad_disks_take_nothing_away(first):
    done = prove("disk", "--first", str(first), "--count", "3", "--seed", "1")
    if done.stdout.startswith("skipped: "):
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 runs on bad disks, 0 failures" in done.stdout


def test_a_file_that_a_full_disk_spoils_is_seen(tmp_path):
    """The same tool on scripts that write in place, or leave what they began."""
    (tmp_path / "careless.py").write_text("open('out.png', 'wb').write(bytes(90_000))")
    (tmp_path / "untidy.py").write_text("open('.part-1', 'w'); open('out.png', 'wb').write(bytes(90_000))")
    (tmp_path / "bad.py").write_text(
        f"""import sys
sys.path.insert(0, {str(PROVE.parent)!r})
import material, prove
material.JOBS.clear()
for name in ("careless", "untidy"):
    material.JOBS[name] = material.Job(f"{tmp_path}/{{name}}.py", (), ("out.png",))
sys.exit(prove.main(["disk", "full", "--count", "4"]) + prove.main(["disk", "read-only", "--count", "4"]))
"""
    )
    done = subprocess.run([sys.executable, tmp_path / "bad.py"], capture_output=True, text=True, timeout=60)
    if done.stdout.startswith("skipped: "):
        pytest.skip(done.stdout)
    assert done.returncode == 2 and " 0 failures" not in done.stdout
    for words in ("not whole: out.png", "stays: ['.part-1']", "Read-only file system"):
        assert words in done.stdout


def test_tracebacks_noise_and_dead_processes_are_seen(tmp_path):
    """The same tool on a kind of files whose reader fails in every way."""
    (tmp_path / "bad.py").write_text(
        f"""import os, sys
sys.path.insert(0, {str(PROVE.parent)!r})
import prove
class Bad:
    samples = staticmethod(lambda: {{"a": b"0123456789abcdef"}})
    def attempt(path):
        number = int(path.name.split("-")[0])
        if number == 1:
            raise ValueError("not told")
        if number == 2:
            os.write(2, b"libnoise")
        if number == 60:
            os._exit(3)
        return "an image"
prove.KINDS["bad"] = Bad
sys.exit(prove.main(["mutations", "bad", "--count", "110", "--jobs", "1"]))
"""
    )
    done = subprocess.run([sys.executable, tmp_path / "bad.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "58 mutated bad: 58 an image" in done.stdout and "3 failures" in done.stdout
    for words in ("not told", "libnoise", "bad 50 to 99: the process died"):
        assert words in done.stdout


def test_runs_in_odd_places_end_as_in_usual_ones():
    kinds = ("sealed-home", "narrow", "no-terminal", "c-locale", "names", "interrupt", "closed-stdout", "two-at-once")
    done = prove("places", *kinds, "clock", "--count", "9", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 runs in odd places as in usual ones, 0 failures" in done.stdout
