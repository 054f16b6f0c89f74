"""Nothing is asked of any network unless --download or --publish is given: in these runs, every socket is forbidden."""

import os

import pytest
from conftest import run, write_grains, write_photo

FORBID = """
import os, socket

def refuse(*arguments, **options):
    with open(os.environ["CONNECTIONS"], "a") as file:
        print(arguments, file=file)
    raise OSError("a test forbids this connection")

for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refuse)
for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
"""
QUICK = ["--octaves", "1", "--steps", "1", "--quiet"]
USES = [
    ["dream.py", "photo.png", "-o", "dream.png", *QUICK],
    ["dream.py", "photo.png", "-o", "cat.jpg", "--concept", "set/cat", *QUICK],
    ["dream.py", "photo.png", "-o", "atlas.html", "--survey", "classes:volcano", *QUICK],
    ["dream.py", "--recipe", "dream.png"],
    ["dream.py", "--list-models"],
    ["dream_video.py", "photo.png", "-o", "zoom.mp4", "--frames", "2", *QUICK],
    ["dataset/prepare.py", "raw", "-o", "clean", "--size", "32", "--min-size", "8", "--quiet"],
    [
        "train_dream.py",
        "set",
        "-o",
        "set_mlx.npz",
        "--image-size",
        "32",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--quiet",
    ],
    ["calc_cm.py", "set", "-o", "set_cm.npz", "--quiet"],
    ["convert.py", "set_mlx.npz", "-o", "small.npz", "--dtype", "int8", "--quiet"],
    ["convert.py", "--info", "set_mlx.npz"],
    ["convert.py", "--list"],
]


@pytest.fixture
def watched(tmp_path):
    """Return (environment in which every Python forbids connections, the file that tells of those it refused)."""
    (tmp_path / "sitecustomize.py").write_text(FORBID)
    refused = tmp_path / "connections.txt"
    return os.environ | {"PYTHONPATH": str(tmp_path), "CONNECTIONS": str(refused)}, refused


def test_a_full_use_makes_no_connection(watched, tmp_path):
    environment, refused = watched
    write_photo(tmp_path / "photo.png")
    for name, seed in (("cat", 0), ("garden", 1)):
        write_grains(tmp_path / "raw" / name, 4, seed=seed)
        write_grains(tmp_path / "set" / name, 4, seed=seed)
    for script, *words in USES:
        done = run(script, *words, cwd=tmp_path, env=environment)
        assert done.status == 0, (script, words, done.err)
        assert not refused.exists(), (script, words, refused.read_text())


def test_a_connection_would_be_seen(watched, tmp_path):
    environment, refused = watched
    done = run("convert.py", "--download", "googlenet", "-o", "out.npz", cwd=tmp_path, env=environment)
    assert done.status == 1 and "Traceback" not in done.err and refused.read_text().count("\n") >= 1
