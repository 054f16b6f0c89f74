"""The README: its commands run, its options and pictures exist, its tree is the tree."""

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import models
from models import weights_file

import numpy as np
import pytest
from conftest import ROOT, smooth_image, write_grains, write_photo
from foreign import torch_save
from PIL import Image
from videos import moving_frames, write_video

import calc_cm
import convert
import dream
import dream_video
import train_dream
from assets.make_gallery import LOOKS
from dataset import prepare

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = {
    "dream.py": dream,
    "dream_video.py": dream_video,
    "train_dream.py": train_dream,
    "convert.py": convert,
    "calc_cm.py": calc_cm,
    "dataset/prepare.py": prepare,
}
ELSEWHERE = {  # what runs them
    "pip install": ".ci/run",
    "python -m pytest": ".ci/run",
    "python tests/tools/benchmark.py": "tests/tools/benchmark.py",
}
PICTURES = (".jpg", ".png", ".webp")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands():
    """The words of each command in the README's blocks, without comments."""
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def quick(script, words):
    """What makes a command of the README a matter of a second."""
    if script == "dream.py":
        return ["--quiet", "--steps", "4", *([] if "--visualize" in words else ["--octaves", "1"])]
    if script == "dream_video.py":
        return ["--quiet", "--steps", "1", "--octaves", "1", *([] if "clip.mp4" in words else ["--frames", "3"])]
    if script == "train_dream.py":
        small = ["--epochs", "1", "--image-size", "32", "--batch-size", "4", "--workers", "1", "--quiet"]
        return [*small, "-o", f"models/weights/{Path(words[0]).name}_mlx.npz"]
    return ["--quiet"]


def write_inputs(folder):
    """Write, small, what the README's commands are given: photographs, folders of them, a video, a checkpoint."""
    photographs = ("photo.jpg", "other.jpg", "flowers.jpg", "sky.png", "photos/a.jpg", "assets/sample.jpg")
    for seed, name in enumerate(photographs):
        (folder / name).parent.mkdir(exist_ok=True)
        write_photo(folder / name, 64, 96, seed)
    (folder / "assets/zoom.json").write_bytes((ROOT / "assets/zoom.json").read_bytes())
    write_grains(folder / "dataset/cat", 3)
    write_grains(folder / "dataset/garden", 3, seed=1)
    for seed, place in enumerate(("gathered/slug", "gathered/leaf", "dataset/twenty/one", "dataset/twenty/two")):
        (folder / place).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(smooth_image(48, 48, seed * 10 + i)).save(folder / place / f"{i}.png")
    write_video(folder / "clip.mp4", moving_frames(3))
    arrays = weights_file.read(models.STARTER)[0]
    state = {path: np.moveaxis(a, -1, 1) if a.ndim == 4 else a for path, a in arrays.items()}
    torch_save(folder / "my_network.pth", {path: np.ascontiguousarray(a, np.float32) for path, a in state.items()})


def test_commands_run(here, monkeypatch, capsys):
    """In the README's order, for some need what others made; a download is asked for, and not made."""
    write_inputs(here)
    asked = []
    monkeypatch.setattr(convert, "download", lambda name, args: asked.append(name))
    monkeypatch.setattr(dream, "show", lambda *shown: None)
    for words in commands():
        told = shlex.join(words)
        for start, place in ELSEWHERE.items():
            if told.startswith(start):
                assert (ROOT / place).exists(), told
                break
        else:
            words = words[words.index("python") :]  # test_dream_options.py and test_dream_video.py use mlx.launch
            if "--flow" in words and not importlib.util.find_spec("cv2"):
                continue
            script, words = words[1], [word for word in words[2:] if word != "--show"]  # no window of a test's
            monkeypatch.setattr(sys, "argv", [script, *words, *quick(script, words)])
            try:
                status = SCRIPTS[script].main()
            except (Exception, SystemExit) as error:
                pytest.fail(f"{told}: {type(error).__name__}: {error}")
            assert not status, told
            output = dict(zip(words, words[1:], strict=False)).get("-o")
            assert not output or Path(output).exists(), told
    assert asked == ["googlenet", "googlenet_bvlc", "vgg16"]
    made = {path.name for path in here.iterdir()}
    assert made >= {"sample_dream.png", "photo_dream.png", "photo_dream.mp4", "photo_dream_growth.gif", "cat.npz"}


def test_python_runs(here, monkeypatch):
    write_photo(here / "photo.jpg", 40, 56)
    (block,) = blocks("python")
    exec(compile(block, "README.md", "exec"), {})
    assert (here / "dream.png").exists()


def test_options_exist(monkeypatch, capsys):
    for script, module in SCRIPTS.items():
        monkeypatch.setattr(sys, "argv", [script, "--help"])
        with pytest.raises(SystemExit):
            module.main()
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out.replace("[no-]", "")))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README)) - known == set()


def test_pictures_are_there_and_shown():
    shown = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)) | set(re.findall(r'src="([^"]+)"', README))
    assert {path for path in shown if not (ROOT / path).exists()} == set()
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "assets").rglob("*") if path.suffix in PICTURES}
    assert there - shown - {"assets/sample.jpg"} == set()
    assert sum(path.stat().st_size for path in (ROOT / "assets").rglob("*") if path.is_file()) < 6e6


def test_links_lead_somewhere():
    links = set(re.findall(r"(?<!!)\[[^]]*\]\(([^)]+)\)", README))
    assert {link for link in links if "://" not in link and not (ROOT / link).exists()} == set() and links


def test_each_picture_of_the_gallery_stands_above_its_command():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line[:1] == "|"]
    captions = {}
    for pictures, texts in zip(rows, rows[1:], strict=False):
        if pictures[0].startswith("!"):
            texts = rows[rows.index(texts) + 1] if set(texts[0]) == {"-"} else texts
            for picture, text in zip(pictures, texts, strict=True):
                captions |= {Path(path).stem: text for path in re.findall(r"\((.+)\)", picture)}
    assert set(captions) == set(LOOKS)
    for name, words in LOOKS.items():
        words = [json.dumps(word) if " " in word else word for word in words if not word.endswith("sample.jpg")]
        words = words[2:] if words[:1] == ["--max-size"] else words
        assert captions[name] == (f"`{' '.join(words)}`" if words else "no option at all")


def test_the_tree_is_the_tree():
    (tree,) = blocks("text")
    folder = ROOT
    for line in tree.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = ROOT / name
        assert (ROOT / name if not line.startswith(" ") else folder / name).exists(), name
    parts = {path.name + "/" for path in (ROOT / "models").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert parts == set(re.findall(r"^  (\w+/)", tree, re.MULTILINE))
