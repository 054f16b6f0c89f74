"""Write a file whole or not at all, shorten names that no disk takes, and take digests of files."""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from pathlib import Path

from dataset.cli import UserError

NAME_BYTES = 255  # bytes; what every usual file system takes
WRITERS = 4  # of one file at a time, among whose temporary files abandoned ones are looked for


@contextlib.contextmanager
def atomic_write(path):
    """Write a file whole or not at all: yield a temporary path beside `path` (same suffix), which replaces
    `path` when the block ends well and is removed when it does not. Missing parent folders are made.

    What killed processes have left of earlier attempts is written over, or removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = claim_temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
        remove_abandoned(path, temporary)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename == os.fspath(temporary):
            error.filename, error.filename2 = os.fspath(path), None  # the name that its user knows
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def claim_temporary(path):
    """Return (handle, path) of an empty file beside `path`, its name made of that of `path` and the same each time.

    The handle holds a lock for as long as it is open, however its process ends: while another process writes the same
    file, the name gets a number.
    """
    number = 0
    while True:
        temporary = temporary_path(path, number)
        try:
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if not os.path.lexists(temporary):
                error.filename = os.fspath(path)
                raise
            number += 1  # another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_open_file(handle, temporary):
                os.ftruncate(handle, 0)
                return handle, temporary
        except BlockingIOError:
            number += 1
        except OSError:  # no locks on that disk: a name of this process's own
            if number == os.getpid():
                return handle, temporary
            number = os.getpid()
            temporary.unlink(missing_ok=True)
        os.close(handle)


def remove_abandoned(path, own):
    """Remove what processes that were killed left, while others wrote the same file: temporary files without a lock."""
    for number in range(WRITERS):
        temporary = temporary_path(path, number)
        if temporary == own or not os.path.lexists(temporary):
            continue
        with contextlib.suppress(OSError):  # it is in use, another user's, or on a disk without locks
            handle = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_open_file(handle, temporary):
                    temporary.unlink()
            finally:
                os.close(handle)


def temporary_path(path, number=0):
    """Return a hidden name beside `path`, made of its name: short, for one of NAME_BYTES bytes has no room for more."""
    mark = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    return path.with_name(f".part-{mark}{f'-{number}' if number else ''}{path.suffix[:16]}")


def is_open_file(handle, path):
    """Return whether an open file is still the one called `path`."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def check_no_pipe(path):
    """Raise UserError where a path leads to a pipe or a socket: reading would wait for ever, and cannot go back."""
    with contextlib.suppress(OSError):  # whoever opens it tells
        mode = os.stat(path).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            raise UserError(f"{os.fsdecode(path)}: is a pipe, not a file: save what comes out of it first")


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
    """Return whether an OSError is about the whole disk, so that no other file can be written either; or about stdout,
    whose reader has gone."""
    return error.errno in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)


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


def file_name(text):
    """Return a text as the name of a file, as it reads in a locale that knows all letters."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


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
