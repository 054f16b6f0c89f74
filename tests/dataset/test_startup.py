"""dataset/startup.py and cli.run: scripts whose streams are closed, whose readers go, and that Ctrl-C interrupts."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, script_command, write_photo

TINY = ("--layers", "conv2", "--octaves", "1", "--steps", "2")
SLOW_IMPORT = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "PIL":
            print("importing", flush=True)
            time.sleep(20)
sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize("closed", ["0>&-", "1>&-", "2>&-", "0>&- 1>&- 2>&-"])
def test_closed_streams_lead_nowhere(photo, closed):
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *script_command("dream.py", photo, *TINY, "-o", "out.png")]
    done = subprocess.run(command, cwd=photo.parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and (photo.parent / "out.png").exists()
    assert "Traceback" not in done.stderr


def test_workers_are_heard_where_stderr_is_closed(tmp_path):
    (tmp_path / "set/ants").mkdir(parents=True)
    write_photo(tmp_path / "set/ants/a.png")
    words = script_command("dataset/prepare.py", "set", "-o", "out", "--min-size", "32")
    subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "out/ants/a.jpg").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words", [("--help",), ("--list-models",)])
def test_help_that_cannot_be_written_is_one_line(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            script_command("dream.py", *words), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 1 and done.stderr == "dream.py: error: No space left on device\n"


def test_the_first_of_many_pictures_ends_a_run_whose_reader_has_gone(tmp_path):
    for i in range(3):
        write_photo(tmp_path / f"{i}.png", seed=i)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        script_command("dream.py", "0.png", "1.png", "2.png", *TINY, "--quiet", "-o", "out"),
        cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 1 and done.stderr == ""
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0_dream.png"]


@pytest.mark.parametrize("script", ["dream.py", "dataset/prepare.py"])
def test_ctrl_c_during_the_imports_is_one_line(tmp_path, script):
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)
    started = subprocess.Popen(
        script_command(script), env={**os.environ, "PYTHONPATH": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    started.stdout.readline()
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=10)[1]
    assert (started.returncode, said) == (130, f"{script.split('/')[-1]}: interrupted\n")


def test_a_second_ctrl_c_does_not_disturb_the_clean_up_of_the_first(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"""import sys, time
sys.path.insert(0, {str(ROOT)!r})
from dataset import cli, startup
startup.is_script = lambda: True
def main():
    try:
        print("ready", flush=True)
        time.sleep(20)
    finally:
        print("cleaning", flush=True)
        time.sleep(0.3)
        print("clean", flush=True)
cli.run(main)
"""
    )
    started = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for word in ("ready\n", "cleaning\n"):
        assert started.stdout.readline() == word
        started.send_signal(signal.SIGINT)
    out, said = started.communicate(timeout=10)
    assert (started.returncode, out, said) == (130, "clean\n", "script.py: interrupted\n")


def test_a_job_in_the_background_goes_on(photo):
    """A shell starts it with Ctrl-C ignored, which the imports leave so."""
    words = script_command("dream.py", photo, *TINY[:-1], "100000", "--quiet", "-o", photo.with_name("out.png"))
    started = subprocess.Popen(["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words])
    time.sleep(1)
    started.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(1)
    started.terminate()
    assert started.wait(30) == 143


def test_results_are_printed_above_the_bar():
    """On a terminal: not into the line that shows how far the work has come."""
    code = """
from dataset.cli import log, print_result, progress
with progress(2, desc="work") as bar:
    bar.update()
    print_result("a.png")
    log("a note")
"""
    master, slave = pty.openpty()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=slave, stderr=slave, check=True, timeout=60)
    os.close(slave)
    said = os.read(master, 1 << 16).decode()
    os.close(master)
    lines = [line.split("\r")[-1] for line in said.replace("\r\n", "\n").split("\n")]
    assert lines[:2] == ["a.png", "a note"]
