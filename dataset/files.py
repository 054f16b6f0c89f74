"""Write a file whole or not at all, shorten names that no disk takes, and take digests of files."""

import contextlib
import errno
import hashlib
import os
import tempfile
from pathlib import Path

from dataset.cli import UserError

NAME_BYTES = 255  # bytes; what every usual file system takes


@contextlib.contextmanager
def atomic_write(path):
    """Write a file whole or not at all: yield a temporary path beside `path` (same suffix), which replaces
    `path` when the block ends well and is removed when it does not. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # short: a name of NAME_BYTES bytes has no room for more
    handle, name = tempfile.mkstemp(prefix=".part-", suffix=path.suffix[:16], dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path):
    """Raise UserError if no file can be written at `path`: its name is too long, or its folder cannot be written to."""
    path = Path(path)
    if len(os.fsencode(path.name)) > NAME_BYTES:
        raise UserError(f"{path}: the name is longer than {NAME_BYTES} bytes")
    if path.is_dir():
        raise UserError(f"{path}: is a folder")
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not folder.is_dir():
        raise UserError(f"{path}: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{path}: no permission to write in {folder}")


def disk_error(error):
    """Return whether an OSError is about the whole disk, so that no other file can be written either."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)


def shorten(stem, end):
    """Return the file name `stem` + `end`, its stem cut where the name is longer than NAME_BYTES bytes.

    A cut stem ends with a digest of the whole, so that two long names do not become one.
    """
    room = NAME_BYTES - len(os.fsencode(end))
    stem_bytes = os.fsencode(stem)
    if len(stem_bytes) <= room:
        return stem + end
    mark = "~" + hashlib.sha256(stem_bytes).hexdigest()[:8]
    kept = os.fsdecode(stem_bytes[: room - len(mark)])
    while kept and "\udc80" <= kept[-1] <= "\udcff":  # half a character
        kept = kept[:-1]
    return kept + mark + end


def file_digest(path, digest):
    """Feed the bytes of a file to a hashlib object, and return it."""
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest


def sha256(path):
    """Return the hexadecimal SHA-256 of a file."""
    return file_digest(path, hashlib.sha256()).hexdigest()


def same_file(one, other):
    """Say whether two paths lead to one file, be it by a link or by a file system that takes A and a for the same."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there yet
        return Path(one).resolve() == Path(other).resolve()
