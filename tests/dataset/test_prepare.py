"""dataset/prepare.py: planted faults and twins are found, the rest is written, and nothing else is touched."""

import csv
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageOps
from scenes import scene

from dataset import prepare, read_folder
from dataset.images import read_image


def save(picture, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, ROOT / "dataset" / "prepare.py", *map(str, arguments), "--workers", "2", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def report(output):
    with open(output / "report.csv", newline="", encoding="utf-8") as file:
        return {row["picture"]: row for row in csv.DictReader(file)}


def written(output):
    return sorted(str(path.relative_to(output)) for path in output.rglob("*.jpg") if path.parent != output)


def bomb(path, side=40_000):
    """A PNG of side x side pixels of one bit each, in a few kilobytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


@pytest.fixture
def raw(tmp_path):
    for seed in range(8):
        save(scene(seed), tmp_path / "raw" / ("ant" if seed < 4 else "bee") / f"{seed}.jpg", quality=90)
    return tmp_path / "raw"


def test_each_fault_is_found_and_nothing_else(raw, tmp_path):
    whole = (raw / "ant" / "0.jpg").read_bytes()
    planted = {}
    for name, content, reason in (
        ("half.jpg", whole[: len(whole) // 2], "broken"),
        ("nearly.jpg", whole[: len(whole) - 40], "broken"),
        ("text.jpg", b"not a picture", "not a picture"),
        ("empty.png", b"", "not a picture"),
        ("notes.txt", b"notes", "not a picture"),
    ):
        (raw / "ant" / name).write_bytes(content)
        planted[f"ant/{name}"] = reason
    for kind in ("png", "webp", "bmp", "gif", "tiff"):
        path = save(scene(90), raw / "bee" / f"cut.{kind}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        planted[f"bee/cut.{kind}"] = "broken"
    bomb(raw / "bee" / "bomb.png")
    planted["bee/bomb.png"] = "too large"
    save(scene(91, 40, 20), raw / "bee" / "small.png")
    planted["bee/small.png"] = "too small"
    (raw / "ant" / ".hidden").write_text("left alone")
    save(scene(92), raw / "stray.jpg")

    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in raw.rglob("*") if path.is_file()}
    done = run(raw, "-o", tmp_path / "out", "--size", 48, "--fit", "crop")
    assert done.returncode == 1, done.stderr  # what is broken is named, and what is no image is not
    assert read_image(tmp_path / "out" / "ant" / "0.jpg").shape == (48, 48, 3)
    named = [line for line in done.stderr.splitlines() if line.startswith("prepare.py: error: ")]
    assert len(named) == len(done.stderr.splitlines()) == 10 and not any("notes.txt" in line for line in named)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    rows = report(tmp_path / "out")
    assert {os.path.relpath(path, raw): row["reason"] for path, row in rows.items()} == planted
    assert written(tmp_path / "out") == [f"{'ant' if seed < 4 else 'bee'}/{seed}.jpg" for seed in range(8)]
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["class", "pictures", "left", "out"]
    assert lines[1].split() == ["ant", "4", "5"] and lines[2].split() == ["bee", "4", "7"]
    assert lines[3].split() == ["total", "8", "12"]
    assert "left out: 7 broken" in lines
    assert "mind: 1 pictures lie in no class folder and were not read" in lines
    assert "mind: class ant has 4 pictures to train on; 20 is few" in lines


def test_twins_are_found_and_the_better_one_is_kept(tmp_path):
    raw = tmp_path / "raw"
    for split, name, seeds in (
        ("train", "ant", range(10)),
        ("train", "bee", range(10, 14)),
        ("val", "ant", range(20, 24)),
    ):
        for seed in seeds:
            save(scene(seed), raw / split / name / f"{seed:02}.jpg", quality=90)
    ant = raw / "train" / "ant"
    twins = {}  # left out: (kept, reason, detail)

    def plant(seed, name, change, reason="near-duplicate", detail="", better=False, **options):
        path = save(change(Image.open(ant / f"{seed:02}.jpg")), raw / name, **options)
        worse, kept = (ant / f"{seed:02}.jpg", path) if better else (path, ant / f"{seed:02}.jpg")
        twins[str(worse)] = (str(kept), reason, detail)

    plant(0, "train/ant/encoded.jpg", lambda p: p, quality=30)
    plant(1, "train/ant/deep/small.png", lambda p: p.resize((70, 50)))
    plant(2, "train/ant/large.jpg", lambda p: p.resize((200, 150)), better=True)
    plant(3, "train/bee/mirrored.jpg", ImageOps.mirror, detail="mirrored, in another class", quality=70)
    plant(4, "val/ant/twin.jpg", lambda p: p, detail="in the other split", quality=60)
    plant(5, "train/ant/turned.webp", lambda p: p.transpose(Image.Transpose.ROTATE_90), detail="turned", quality=70)
    plant(6, "train/ant/grey.png", lambda p: p.convert("L"))
    plant(7, "train/bee/pixels.png", lambda p: p, "identical pixels", "in another class")
    sideways = Image.Exif()
    sideways[0x112] = 6  # shown turned by 90 degrees clockwise
    plant(8, "train/ant/exif.jpg", lambda p: p.transpose(Image.Transpose.ROTATE_90), exif=sideways, quality=60)
    shutil.copy(ant / "09.jpg", raw / "val" / "ant" / "same.jpg")
    twins[str(raw / "val" / "ant" / "same.jpg")] = (str(ant / "09.jpg"), "identical file", "in the other split")

    done = run(raw, "-o", tmp_path / "out", "--size", 40)
    assert done.returncode == 0, done.stderr
    rows = report(tmp_path / "out")
    assert {path: (row["twin"], row["reason"], row["detail"]) for path, row in rows.items()} == twins
    train, val = read_folder(tmp_path / "out")
    assert train.counts.tolist() == [10, 4] and val.counts.tolist() == [4, 0]
    assert "mind: 2 duplicates had their twin in another class" in done.stdout
    assert "mind: 2 duplicates had their twin in the other split" in done.stdout
    sheet = read_image(tmp_path / "out" / "left-out.jpg")
    assert sheet.shape[1] == prepare.SHEET_COLUMNS * (2 * prepare.CELL + 12) and sheet.std() > 20


def test_fits():
    source, lanczos = scene(0), Image.Resampling.LANCZOS  # 120 x 90
    kept = np.asarray(prepare.resize_to_fit(source, 48, "keep"))
    assert np.array_equal(kept, np.asarray(source.resize((64, 48), lanczos)))
    cropped = np.asarray(prepare.resize_to_fit(source, 48, "crop"))
    assert np.array_equal(cropped, np.asarray(source.resize((48, 48), lanczos, box=(15, 0, 105, 90))))
    padded = np.asarray(prepare.resize_to_fit(source, 48, "pad"))
    assert np.array_equal(padded[6:42], np.asarray(source.resize((48, 36), lanczos)))
    mean = np.asarray(source, np.float32).mean(axis=(0, 1))
    assert np.abs(np.concatenate([padded[:6], padded[42:]]) - mean).max() < 1


def test_modes_orientation_and_names(tmp_path):
    raw = tmp_path / "raw" / "a"
    exif = Image.Exif()
    exif[0x112] = 6
    save(scene(0), raw / "turned.jpg", exif=exif)
    save(scene(1).convert("L"), raw / "x.png")
    save(scene(2).convert("RGBA"), raw / "x.webp")
    save(scene(3).convert("CMYK"), raw / "deep" / "x.tiff")
    save(scene(4), raw / "X.gif", save_all=True, append_images=[scene(5)])
    save(scene(6), raw / "no-suffix", format="PNG")
    done = run(tmp_path / "raw", "-o", tmp_path / "out", "--size", 32)
    assert "total" in done.stdout and not report(tmp_path / "out")
    names = written(tmp_path / "out")
    assert names == ["a/X.jpg", "a/deep-x.jpg", "a/no-suffix.jpg", "a/turned.jpg", "a/x-2.jpg", "a/x-3.jpg"]
    for name in names:
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.mode == "RGB" and picture.format == "JPEG"
            assert picture.size == ((32, 43) if "turned" in name else (43, 32))


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_every_name_that_a_disk_takes_is_taken(tmp_path):
    raw = tmp_path / "raw" / "a"
    names = ["12:30.png", "new\nline.png", "\u202egnp.png", "\U0001f40c.png"]
    names += ["caf\udce9.png", "x" * 250 + ".png", "\u00e4" * 120 + ".png", "-o.png"]
    for seed, name in enumerate(names):
        save(scene(seed), raw / name, format="PNG")
    save(scene(20), raw / ("deep" * 60) / ("name" * 60 + ".png"))
    (raw / "bad\udcff\n.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    options = {"capture_output": True, "timeout": 60, "env": environment}
    command = [
        sys.executable,
        ROOT / "dataset" / "prepare.py",
        tmp_path / "raw",
        "-o",
        tmp_path / "out",
        "--size",
        "32",
    ]
    done = subprocess.run([*command, "--size", "32", "--quiet"], **options)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and b"bad\xff .png: broken picture" in done.stderr
    assert len(written(tmp_path / "out")) == len(names) + 1
    assert b"bad\xff" in (tmp_path / "out" / "report.csv").read_bytes()


def test_several_sources_are_merged_and_a_later_run_reads_only_what_is_new(raw, tmp_path):
    out = tmp_path / "out"
    run(raw, "-o", out, "--size", 40)
    first = {name: (out / name).stat().st_mtime_ns for name in written(out)}
    assert len(first) == 8
    save(scene(0).resize((240, 180)), tmp_path / "more" / "ant" / "better.jpg")  # a better 0.jpg
    save(scene(30), tmp_path / "more" / "cat" / "30.jpg")
    done = run(raw, tmp_path / "more", "-o", out, "--size", 40)
    assert done.returncode == 0
    second = {name: (out / name).stat().st_mtime_ns for name in written(out)}
    assert set(second) == set(first) - {"ant/0.jpg"} | {"ant/better.jpg", "cat/30.jpg"}
    assert all(second[name] == first[name] for name in set(first) & set(second))
    run(raw, "-o", out, "--size", 40)
    assert sorted(first) == written(out)
    assert not (out / "cat").exists()


def test_report_only_looks(raw, tmp_path):
    shutil.copy(raw / "ant" / "0.jpg", raw / "ant" / "copy.jpg")
    out = tmp_path / "out"
    assert run(raw, "-o", out, "--report").returncode == 0
    assert written(out) == [] and len(report(out)) == 1 and (out / "left-out.jpg").exists()
    assert run(raw, "-o", out, "--size", 40).returncode == 0
    assert len(written(out)) == 8


@pytest.mark.parametrize("end, status", [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_run_goes_on(tmp_path, end, status):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for seed in range(40):
        save(scene(seed, 320, 240), raw / "a" / f"{seed}.png")
    command = [sys.executable, ROOT / "dataset" / "prepare.py", raw, "-o", out, "--size", "256", "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while len(written(out)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(end)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == status
    assert "Traceback" not in errors
    assert not (out / "report.csv").exists()
    done = run(raw, "-o", out, "--size", 256)
    assert done.returncode == 0, done.stderr
    assert written(out) == sorted(f"a/{seed}.jpg" for seed in range(40))
    assert not [path for path in out.rglob(".*") if path.name != ".prepare.jsonl"]


def test_mistakes_end_in_one_line(raw, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.jpg").write_text("hands off")
    (tmp_path / "flat").mkdir()
    save(scene(0), tmp_path / "flat" / "0.jpg")
    save(scene(0), tmp_path / "split" / "train" / "a" / "0.jpg")
    save(scene(0), tmp_path / "split" / "val" / "a" / "1.jpg")
    save(scene(1), tmp_path / "case" / "a" / "0.jpg")
    (tmp_path / "broken" / "a").mkdir(parents=True)
    (tmp_path / "broken" / "a" / "0.jpg").write_text("no picture")
    out = tmp_path / "out"
    for arguments, status, text in (
        ([tmp_path / "none", "-o", out], 1, "no such folder"),
        ([raw / "ant" / "0.jpg", "-o", out], 1, "is not a folder"),
        ([raw, "-o", tmp_path / "split" / "val" / "a" / "1.jpg"], 1, "is a file, not a folder"),
        ([tmp_path / "flat", "-o", out], 1, "no class folders"),
        ([raw, "-o", raw / "ant"], 2, "lie in one another"),
        ([raw, "-o", tmp_path], 2, "lie in one another"),
        ([raw, "-o", tmp_path / "mine"], 1, "did not write"),
        ([raw, tmp_path / "split", "-o", out], 2, "prepare them one by one"),
        ([raw, "-o", out, "--size", "0"], 2, "argument --size: invalid whole number"),
        ([raw], 2, "required: -o"),
        ([tmp_path / "broken", "-o", tmp_path / "out2"], 1, "no picture is left"),
    ):
        done = run(*arguments)
        assert done.returncode == status, arguments
        assert text in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not out.exists()
    assert (tmp_path / "mine" / "precious.jpg").read_text() == "hands off"


def test_classes_that_differ_in_case_only_are_refused(raw, tmp_path):
    if (raw / "ANT").exists():
        pytest.skip("this file system does not tell them apart")
    save(scene(50), raw / "Ant" / "50.jpg")
    done = run(raw, "-o", tmp_path / "out")
    assert done.returncode == 1 and "differ in case only" in done.stderr
