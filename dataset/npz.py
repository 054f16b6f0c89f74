"""Zip archives of arrays (.npz), read with suspicion: no pickle, and nothing larger than the file justifies."""

import contextlib
import math
import os
import re
import struct
import zipfile
import zlib

import numpy as np

from dataset.cli import UserError
from dataset.files import check_no_pipe

INFLATION = 64  # how many times its size a file may grow when it is unpacked; trained weights hardly shrink at all
HEADER = re.compile(
    r"\{'descr': '([<>|=][a-zA-Z]\d{1,2})', 'fortran_order': (True|False), 'shape': \((\d[\d, ]*)?\),? *\}\s*", re.ASCII
)
STORED = {f"{order}{kind}" for order in "<>|=" for kind in ("f2", "f4", "f8", "V2", "i1", "u1", "i4", "i8", "u8")}


def npy_entries(path, wanted=lambda name: True):
    """Yield (name, array) for every .npy in a zip archive whose name is `wanted`. Raises UserError."""
    with archive(path) as (names, entry):
        foreign = [name for name in names if not name.endswith(".npy")]
        if foreign or not names:
            raise UserError(f"{path}: not a weights file; if it is a checkpoint: python convert.py {path}")
        for name in names:
            if wanted(name.removesuffix(".npy")):
                yield name.removesuffix(".npy"), npy(entry(name), f"{path}: {name}")


def is_npz(path):
    """Say whether a file is a zip archive of arrays: a weights file of ours, or a published one."""
    check_no_pipe(path)
    try:
        with zipfile.ZipFile(path) as file:
            return all(name.endswith(".npy") for name in file.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return False  # whoever reads it as something else says what is wrong with it


@contextlib.contextmanager
def archive(path):
    """Open a zip file: `with archive(path) as (names, entry)`, entry(name) being the bytes of one.

    Whatever is wrong with the file is a UserError. Its entries together may be INFLATION times as large as the file.
    """
    check_no_pipe(path)
    try:
        size = os.path.getsize(path)
        file = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, IsADirectoryError, EOFError):
        raise UserError(f"{path}: {what_instead(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None

    def entry(name):
        try:
            info = file.getinfo(name)
            with file.open(info) as stream:
                data = stream.read(info.file_size)  # and no more, whatever the compressed stream would give
            if len(data) != info.file_size:
                raise EOFError
            return data
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, struct.error, KeyError):
            # RuntimeError: encrypted, or a compression that this Python does not know
            raise UserError(f"{path}: {name} is damaged; fetch or make the file again") from None

    with file:
        entries = file.infolist()
        unpacked = sum(info.file_size for info in entries)
        packed = sum(info.compress_size for info in entries)
        if packed > size or unpacked > INFLATION * size:
            raise UserError(f"{path}: its entries are larger than the file can hold: damaged, or made to do harm")
        yield [info.filename for info in entries], entry


def what_instead(path):
    """Say why a path that is no zip archive cannot be read, and what to do."""
    if os.path.isdir(path):
        return "this is a folder; name a file"
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself: `git lfs pull` fetches it"
    if start.startswith(b"PK"):
        return "the file is cut off or damaged; fetch or make it again"
    return f"not a weights file; if it is a checkpoint: python convert.py {path}"


def npy(data, name):
    """Read the bytes of a .npy file as an array, a view of them. Only numbers, and only as many as there are."""
    dtype, shape, fortran, start = npy_header(data, name)
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise UserError(f"{name} is cut off or damaged")
    array = np.frombuffer(data, dtype, offset=start)
    if not dtype.isnative:
        array = array.byteswap().view(dtype.newbyteorder())
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def npy_header(data, name):
    """Return (dtype, shape, whether the first axis runs fastest, where the numbers begin) of a .npy file's first bytes.

    The header is the text that numpy and MLX write (numpy.lib.format), matched and never evaluated.
    """
    version = data[6:7]
    length_format, start = ("<H", 10) if version == b"\x01" else ("<I", 12)
    if data[:6] != b"\x93NUMPY" or version not in (b"\x01", b"\x02", b"\x03") or len(data) < start:
        raise UserError(f"{name} is no array")
    end = start + struct.unpack_from(length_format, data, 8)[0]
    header = HEADER.fullmatch(data[start:end].decode("latin-1"))
    if not header or header[1] not in STORED:
        raise UserError(f"{name} is no plain array of numbers")
    shape = [int(size) for size in re.findall(r"\d{1,18}", header[3] or "")]
    if len(shape) > 8:
        raise UserError(f"{name} is cut off or damaged")
    return np.dtype(header[1]), shape, header[2] == "True", end


def map_npy(path):
    """Map a .npy file into memory, read-only. Raises UserError where it is none, or not whole."""
    with open(path, "rb") as file:
        dtype, shape, fortran, start = npy_header(file.read(4096), path)
    if fortran or start + math.prod(shape) * dtype.itemsize != os.path.getsize(path) or not math.prod(shape):
        raise UserError(f"{path} is cut off or damaged")
    return np.memmap(path, dtype, "r", start, tuple(shape))


def to_bfloat16(array):
    """Round to the upper half of float32, ties to even; as two raw bytes a number (dtype V2)."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").view("V2")


def from_bfloat16(array):
    """Convert two raw bytes a number to float32."""
    return (np.ascontiguousarray(array).view("<u2").astype(np.uint32) << 16).view(np.float32)
