"""models/launch.py: no process of an mlx.launch stays when the launcher has gone, whatever it is doing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

WORKS = """
import sys, time, models
from models import launch
from dataset import cli
launch.SOON, launch.LINGER = 0.1, 1
print("begun", flush=True)
def main():
    try:
        launch.join_group()
        print("joined", flush=True)
        time.sleep(60)
    finally:
        time.sleep(float(sys.argv[1]))
        print("saved", flush=True)
cli.run(main)
"""


def start(script, seconds=0, stdin=subprocess.PIPE, **env):
    """Start a process as mlx.launch does, whose death closes its stdin."""
    words = [sys.executable, "-c", script, str(seconds)]
    env = {**os.environ, "MLX_RANK": "0", **env}
    process = subprocess.Popen(words, cwd=ROOT, env=env, stdin=stdin, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    return process


def test_it_ends_with_its_launcher_and_without_one_it_does_not():
    with start(WORKS) as launched, start(WORKS, stdin=subprocess.DEVNULL) as other:
        assert launched.stdout.readline() == other.stdout.readline() == "joined\n"
        with pytest.raises(subprocess.TimeoutExpired):
            launched.wait(timeout=0.5)
        launched.stdin.close()
        assert launched.wait(timeout=10) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("seconds, saved", [(0.5, "saved\n"), (30, "")])
def test_what_was_told_to_end_may_save_first_but_not_for_long(seconds, saved):
    with start(WORKS, seconds) as process:
        assert process.stdout.readline() == "joined\n"
        process.send_signal(signal.SIGTERM)
        process.stdin.close()
        assert process.wait(timeout=10) == (143 if saved else -signal.SIGKILL)
        assert process.stdout.read() == saved


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX gives up by itself, after a while")
@pytest.mark.parametrize("how", ["launcher gone", "Ctrl-C"])
def test_it_ends_while_it_waits_for_the_others(tmp_path, how):
    (tmp_path / "hosts").write_text(json.dumps([["127.0.0.1:41871"], ["127.0.0.1:41872"]]))
    launcher = f"""
import sys, time
sys.path[:0] = {[str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/models")]!r}
from test_launch import WORKS, start
process = start(WORKS, MLX_HOSTFILE={str(tmp_path / "hosts")!r})
print(process.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    rank = int(parent.stdout.readline())
    time.sleep(1)  # it waits
    if how == "Ctrl-C":
        os.kill(rank, signal.SIGINT)
    else:
        parent.kill()
    until = time.monotonic() + 10
    while is_alive(rank) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(rank)
    parent.kill()
    parent.communicate()


def is_alive(pid):
    """Tell whether a process runs; one that has ended may still be listed."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
