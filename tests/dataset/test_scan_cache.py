"""dataset/scan_cache.py: what was found is there at the next start, whatever happened in between."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from dataset.cli import UserError
from dataset.duplicates import ImageInfo
from dataset.prepare import Source
from dataset.scan_cache import NAME, ScanCache, read_entry

ARGS = SimpleNamespace(min_size=32, max_megapixels=128, size=256, fit="keep", quality=92, report=False)
BYTES = {"file_digest": b"\0\xff" * 8, "pixel_digest": b"p" * 16, "hashes": b"h" * 64, "thumbnail": b"t" * 768}
INFO = ImageInfo(width=3, height=2, bytes=9, **BYTES)


def source(name):
    return Source(f"raw/a/{name}.png", "", "a", f"a/{name}.jpg", "1 2")


def record(cache, name, info=INFO):
    cache.record(source(name), info, ARGS)
    if not info.reason:
        (cache.output / "a").mkdir(exist_ok=True)
        (cache.output / source(name).target).touch()


def test_findings_are_read_back_but_for_a_line_that_was_cut_off(tmp_path):
    with ScanCache(tmp_path) as cache:
        cache.plan([source("x"), source("caf\udce9"), source("y")])
        record(cache, "x")
        record(cache, "caf\udce9")  # a name that is no UTF-8
        record(cache, "y", ImageInfo("broken", "cut"))
    file = tmp_path / NAME
    file.write_bytes(file.read_bytes() + b'{"read": "raw/a/z.png", "st')
    with ScanCache(tmp_path) as cache:
        assert cache.info(source("x")) == cache.info(source("caf\udce9")) == INFO
        assert cache.knows(source("x"), ARGS) and cache.has_written(source("x"), ARGS)
        assert not cache.knows(source("y"), ARGS) and not cache.knows(source("z"), ARGS)
        other = SimpleNamespace(**{**vars(ARGS), "size": 128})
        assert cache.knows(source("x"), other) and not cache.has_written(source("x"), other)
        record(cache, "z")
    assert all(line.endswith(b"}\n") for line in file.open("rb"))


def test_what_is_not_wanted_any_more_is_removed_and_nothing_else(tmp_path):
    with ScanCache(tmp_path) as cache:
        cache.plan([source("x"), source("y")])
        record(cache, "x")
        record(cache, "y")
        (tmp_path / "mine.txt").write_text("hands off")
    with ScanCache(tmp_path) as cache:
        cache.remove_all_but({"a/x.jpg"})
    with ScanCache(tmp_path) as cache:
        assert list(cache.written) == ["a/x.jpg"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == [NAME, "a", "mine.txt", "x.jpg"]


def test_the_file_does_not_grow_for_ever(tmp_path):
    for _ in range(9):
        with ScanCache(tmp_path) as cache:
            record(cache, "x")
            lines = cache.lines
    assert lines <= 8 and len((tmp_path / NAME).read_bytes().splitlines()) <= 6
    with ScanCache(tmp_path) as cache:
        assert cache.info(source("x")) == INFO and cache.has_written(source("x"), ARGS)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"planned": ["a/x.jpg", "../precious.jpg"]}',
        b'{"written": "/tmp/precious.jpg", "path": "raw/a/x.png", "stamp": "1 2"}',
        b'{"written": "a/x.jpg", "path": 5, "stamp": "1 2"}',
        json.dumps(read_entry("raw/a/x.png", "1 2", INFO) | {"width": "wide"}).encode(),
        json.dumps(read_entry("raw/a/x.png", "1 2", INFO) | {"hashes": "aGFzaA=="}).encode(),
    ],
)
def test_a_damaged_file_is_told_and_names_nothing_outside(tmp_path, line):
    (tmp_path / "precious.jpg").touch()
    out = tmp_path / "out"
    with ScanCache(out) as cache:
        record(cache, "x")
    with open(out / NAME, "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UserError, match="damaged"):
        ScanCache(out)
    assert (tmp_path / "precious.jpg").exists()


def test_folders_of_others_are_refused(tmp_path):
    with ScanCache(tmp_path / "out"), pytest.raises(UserError, match="another prepare.py is at work"):
        ScanCache(tmp_path / "out")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / ".prepare.sqlite").write_bytes(b"SQLite format 3")
    with pytest.raises(UserError, match="earlier version"):
        ScanCache(tmp_path / "old")
    Path(tmp_path / "out" / NAME).write_text("[1]\n")
    with pytest.raises(UserError, match="damaged"):
        ScanCache(tmp_path / "out")
