"""Writing a file whole or not at all, and digests of files."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path):
    """Write a file whole or not at all: yield a temporary path beside `path` (same suffix), which replaces
    `path` when the block ends well and is removed when it does not. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
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


def file_digest(path, digest):
    """Feed the bytes of a file to a hashlib object, and return it."""
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest


def sha256(path):
    """Return the hexadecimal SHA-256 of a file."""
    return file_digest(path, hashlib.sha256()).hexdigest()
