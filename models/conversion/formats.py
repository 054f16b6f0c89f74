"""Reads other frameworks' files without the frameworks: tells the formats apart by their content.

Arrays keep the names and the layout of the source; state_dict.py makes them ours. Hostile files are expected:
what is not understood is a UserError in one line, no code in a file is ever run, and nothing is allocated that the
size of the file does not justify.
"""

import functools
import mmap
import os
from pathlib import Path

from dataset.cli import UserError
from dataset.files import check_no_pipe

from .caffe import read_caffemodel
from .caffejs import is_caffejs, read_caffejs
from .pytorch import LEGACY, largest, read_legacy_torch, read_npy, read_pickle, read_zip
from .safetensors import read_safetensors
from .tensors import DAMAGE, EXPANDED
from .torch7 import read_torch7


def read(path, choose=largest):
    """Read a file of any format known here, as a Checkpoint. Raises UserError.

    choose: which of several state dicts to take; see pytorch.to_checkpoint().
    """
    path = Path(path)
    check_no_pipe(path)
    if is_caffejs(path):
        return read_caffejs(path)
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name a file")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise UserError(f"{path}: the file is empty")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    try:
        checkpoint = find_reader(path, data, choose)(path, data)
        if sum(array.nbytes for array in checkpoint.arrays.values()) > 2 * size + EXPANDED:
            raise UserError("its arrays are larger than the file")
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except DAMAGE:
        raise UserError(f"{path}: the file is cut off or damaged; fetch it again") from None
    except MemoryError:
        raise UserError(f"{path}: the file asks for more memory than there is") from None
    if not checkpoint.arrays:
        raise UserError(f"{path}: there are no weights in this file")
    return checkpoint


def find_reader(path, data, choose):
    """Return the function that reads files which begin like this one."""
    start = bytes(data[:64])
    if start.startswith(b"PK"):
        return functools.partial(read_zip, choose=choose)
    if start.startswith(LEGACY):
        return functools.partial(read_legacy_torch, choose=choose)
    if start.startswith(b"\x80"):
        return functools.partial(read_pickle, choose=choose)
    if start.startswith(b"\x93NUMPY"):
        return functools.partial(read_npy, choose=choose)
    if start.startswith(b"version https://git-lfs"):
        raise UserError("a pointer of Git LFS, not the file itself: `git lfs pull` fetches it")
    if bytes(data[257:262]) == b"ustar":
        raise UserError("a tar archive; unpack it and convert the file inside")
    if start.lstrip()[:1] == b"<":
        raise UserError("a web page, not a checkpoint: whoever saved it was sent to another address")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= len(data) - 8:
        return read_safetensors
    if start[:4] in (b"\3\0\0\0", b"\4\0\0\0"):
        return read_torch7
    if start[:2] in (b"3\n", b"4\n"):
        raise UserError("Torch7's text form; save it in the binary one (torch.save's default)")
    if path.suffix == ".caffemodel" or start[:1] in (b"\n", b"\x12"):  # Protocol Buffers have no signature
        return read_caffemodel
    raise UserError("no format that is known here (.pth, .pt, .caffemodel, .safetensors, .t7, .npz, pickled arrays)")
