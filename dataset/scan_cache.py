"""What prepare.py knows of every source file, kept in the output folder: an interrupted run goes on where it was."""

import base64
import contextlib
import fcntl
import json
import os
import time
from dataclasses import fields
from pathlib import Path

from dataset.cli import UserError
from dataset.duplicates import ImageInfo
from dataset.files import atomic_write

NAME, FORMER = ".prepare.jsonl", ".prepare.sqlite"
BINARY = ("file_digest", "pixel_digest", "hashes", "thumbnail")  # fields of ImageInfo
SIZES = [16, 16, 64, 768]  # of those, in bytes
FLUSH_SECONDS = 2


class ScanCache:
    """.prepare.jsonl in the output folder: a line of JSON for each thing that happened, read back at the next start.

    {"planned": [target, ...]}     names that are going to be written, noted before they are
    {"read": path, "stamp": text, ...ImageInfo, its bytes as base64}
    {"written": target, "path": path, "stamp": text}
    {"removed": [target, ...]}

    A stamp tells by its change that the file, or an option that matters, is another. A later line about the same thing
    counts; a last line that a kill has cut off does not.
    """

    def __init__(self, output):
        self.output, self.path = output, output / NAME
        if output.is_dir() and any(output.iterdir()) and not self.path.exists():
            if (output / FORMER).exists():
                raise UserError(f"{output}: an earlier version of prepare.py began it; delete it and run again")
            raise UserError(f"{output}: holds files that prepare.py did not write; choose another --output")
        output.mkdir(parents=True, exist_ok=True)
        self.infos, self.written = {}, {}  # path: (stamp, ImageInfo); target: (path, stamp), or None if only planned
        self.lines, self.flushed = 0, time.monotonic()
        self.file = open(self.path, "a+b")  # noqa: SIM115
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.load()
        except BlockingIOError:
            self.file.close()
            raise UserError(f"{output}: another prepare.py is at work there") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            self.file.close()
            raise UserError(f"{self.path}: damaged; delete {output} and run again") from None

    def load(self):
        self.file.seek(0)
        whole = 0
        for line in self.file:
            if not line.endswith(b"\n"):
                break
            self.note(json.loads(line))
            whole += len(line)
        self.file.truncate(whole)

    def note(self, entry):
        """Remember what a line says."""
        self.lines += 1
        if "read" in entry:
            info = {field.name: entry[field.name] for field in fields(ImageInfo)}
            info |= {name: base64.b64decode(info[name]) for name in BINARY}
            self.infos[text(entry["read"])] = text(entry["stamp"]), checked_info(ImageInfo(**info))
        elif "written" in entry:
            self.written[inside(entry["written"])] = text(entry["path"]), text(entry["stamp"])
        elif "planned" in entry:
            for target in entry["planned"]:
                self.written.setdefault(inside(target))
        else:
            for target in entry["removed"]:
                self.written.pop(text(target), None)

    def append(self, entry):
        self.file.write(json.dumps(entry).encode() + b"\n")
        self.lines += 1
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.file.flush()
            self.flushed = time.monotonic()

    def plan(self, sources):
        """Note the names before anything is written under them, so that remove_all_but() finds it after any crash."""
        planned = [source.target for source in sources if source.target not in self.written]
        if planned:
            self.written |= dict.fromkeys(planned)
            self.append({"planned": planned})
            self.file.flush()

    def knows(self, source, options):
        """Return whether a file need not be read. What was left out is read again: pillow-heif may be there by now."""
        stamp, info = self.infos.get(absolute_path(source), ("", None))
        return stamp == read_stamp(source, options) and not info.reason

    def record(self, source, info, options):
        """Note what reading, and unless --report is on writing, a source came to."""
        path, stamp = absolute_path(source), read_stamp(source, options)
        self.infos[path] = stamp, info
        self.append(read_entry(path, stamp, info))
        if not options.report and not info.reason:
            self.written[source.target] = path, written_stamp(source, options)
            self.append({"written": source.target, "path": path, "stamp": written_stamp(source, options)})

    def info(self, source):
        return self.infos[absolute_path(source)][1]

    def has_written(self, source, options):
        wanted = absolute_path(source), written_stamp(source, options)
        return self.written.get(source.target) == wanted and (self.output / source.target).exists()

    def remove_all_but(self, targets):
        """Remove what this or an earlier run wrote and is not among `targets`, and folders left empty."""
        removed = [target for target in self.written if target not in targets]
        for target in removed:
            (self.output / target).unlink(missing_ok=True)
            del self.written[target]
        if removed:
            self.append({"removed": removed})
        for folder, _, files in os.walk(self.output, topdown=False):
            for name in files:
                if name.startswith(".part-"):  # atomic_write's, of a process that was killed
                    os.unlink(os.path.join(folder, name))
            if Path(folder) != self.output and not os.listdir(folder):
                os.rmdir(folder)

    def rewrite(self):
        """Write one line a file instead of all that happened to it."""
        with atomic_write(self.path) as temporary, open(temporary, "wb") as file:
            for path, (stamp, info) in self.infos.items():
                file.write(json.dumps(read_entry(path, stamp, info)).encode() + b"\n")
            for target, source in self.written.items():
                entry = {"written": target, "path": source[0], "stamp": source[1]} if source else {"planned": [target]}
                file.write(json.dumps(entry).encode() + b"\n")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with contextlib.closing(self.file):
            if kind is None and self.lines > 2 * (len(self.infos) + len(self.written)):
                self.rewrite()


def text(value):
    """Return a value of a line if it is text."""
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def inside(target):
    """Return the name of a file that was written if it lies in the output folder, for it may be removed one day."""
    parts = text(target).split("/")
    if not target.endswith(".jpg") or {"", ".", ".."} & set(parts) or "\0" in target:
        raise ValueError(target)
    return target


def checked_info(info):
    """Return an ImageInfo if its fields are such as describe() makes them."""
    kinds = {field.name: field.type for field in fields(info)} | dict.fromkeys(BINARY, bytes)
    wrong = [name for name, kind in kinds.items() if type(getattr(info, name)) is not kind]
    sizes = [len(getattr(info, name)) for name in BINARY]
    if wrong or sizes != ([0] * 4 if info.reason else SIZES):
        raise ValueError(wrong)
    return info


def read_entry(path, stamp, info):
    values = {field.name: getattr(info, field.name) for field in fields(ImageInfo)}
    values |= {name: base64.b64encode(values[name]).decode() for name in BINARY}
    return {"read": path, "stamp": stamp, **values}


def absolute_path(source):
    return os.path.abspath(source.path)


def read_stamp(source, options):
    return f"{source.stamp} {options.min_size} {options.max_megapixels}"


def written_stamp(source, options):
    return f"{source.stamp} {options.size} {options.fit} {options.quality}"
