"""Open an image file by what it is, and turn whatever goes wrong there into one line about it."""

import contextlib
import os
import sys
import warnings

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from dataset.cli import UserError
from dataset.filetypes import identify

# raw photos that begin like TIFFs, some of which Pillow does not open at all
RAW_SUFFIXES = {
    *(".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw", ".pef", ".rwl"),
    *(".sr2", ".srf", ".srw"),
}

# TIFF tags and values. Source: TIFF 6.0; TIFF/EP and Adobe's DNG specification for the raw ones
SUBFILE_TYPE, PHOTOMETRIC, SUB_IFDS, DNG_VERSION = 254, 262, 330, 50706
COLOR_FILTER_ARRAY, LINEAR_RAW = 32803, 34892

Image.MAX_IMAGE_PIXELS = None  # MEMORY_LIMIT instead; Pillow's own would warn at 89 megapixels
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # ComfyUI and others write megabytes


class ImageError(UserError):
    """A file that is no whole image; `reason` says in a word or two what is wrong, without its path."""

    def __init__(self, path, reason, detail):
        super().__init__(f"{path}: {detail}")
        self.reason = reason


@contextlib.contextmanager
def opened(path):
    """Yield the PIL image of a file, not yet loaded. Whatever goes wrong in the block becomes an ImageError."""
    with image_errors(path):
        formats = check_kind(path)
        silenced = libtiff_silenced() if "TIFF" in formats else contextlib.nullcontext()
        with warnings.catch_warnings(), silenced, open(path, "rb") as file:
            warnings.simplefilter("ignore")  # damaged EXIF is not worth a warning: the pixels count
            with Image.open(file, formats=formats) as image:
                if image.format == "TIFF":
                    to_largest_page(path, image)
                yield image


@contextlib.contextmanager
def libtiff_silenced():
    """Keep off the terminal what libtiff, a library in C, writes there of broken files; we report those ourselves."""
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@contextlib.contextmanager
def image_errors(path):
    """Turn whatever is raised in the block into an ImageError about a file, one line that names it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise ImageError(path, "no such file", "no such file") from None
    except IsADirectoryError:
        raise ImageError(path, "not a picture", "is a folder, not a picture") from None
    except PermissionError:
        raise ImageError(path, "no permission", "no permission to read it") from None
    except MemoryError:
        raise ImageError(path, "too large", "not enough memory to decode it; shrink it first") from None
    except Exception as error:  # what a decoder may raise is not ours to list
        if special := unreadable_jpeg(path):
            raise ImageError(path, "not a picture", special) from None
        if os.path.splitext(os.fsdecode(path))[1].lower() in RAW_SUFFIXES:
            raise ImageError(path, "a raw photo", "a raw photo: develop it to a JPEG, PNG or TIFF first") from None
        unidentified = isinstance(error, UnidentifiedImageError)  # its text is no more than the file's name
        text = "its header is damaged, or of a kind that is not read" if unidentified else str(error)
        text = text or type(error).__name__
        raise ImageError(path, "broken", f"broken picture: {text}") from None


def check_kind(path):
    """Return the Pillow formats to try. Raises ImageError where the file is of another kind, and says where to go.

    Left to itself, Pillow would run Ghostscript on an EPS, whatever it is called.
    """
    kind, name = identify(path)
    if name == "HEIF":
        register_heif(path)
        return ("HEIF",)
    if kind == "image":
        return (name, "MPO") if name == "JPEG" else (name,)  # MPO: two-frame JPEGs of phones
    if kind == "video":
        raise ImageError(path, "a video", f"{name}, not a picture: python dream_video.py takes videos")
    if kind == "raw":
        raise ImageError(path, "a raw photo", f"{name}: develop it to a JPEG, PNG or TIFF first")
    what = f"{name}, " if name else ""
    raise ImageError(path, "not a picture", f"{what}not a picture that can be read")


def register_heif(path):
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(path, "needs pillow-heif", "HEIC pictures need `pip install pillow-heif`") from None
    pillow_heif.register_heif_opener()


def to_largest_page(path, image):
    """Go to the first page of a TIFF that is no preview. Raises ImageError where it is a raw photo."""
    pages = getattr(image, "n_frames", 1)
    for page in range(pages):
        image.seek(page)
        tags = image.tag_v2
        raw = tags.get(PHOTOMETRIC) in (COLOR_FILTER_ARRAY, LINEAR_RAW)
        if raw or DNG_VERSION in tags or (SUB_IFDS in tags and is_preview(tags)):
            size = f"{image.width} x {image.height}"
            message = f"a raw photo, of which only a preview of {size} can be read: develop it to a JPEG or PNG first"
            raise ImageError(path, "a raw photo", message)
        if not is_preview(tags):
            return
    image.seek(0)


def is_preview(tags):
    kind = tags.get(SUBFILE_TYPE, 0)
    return bool(kind & 1) if isinstance(kind, int) else False


def unreadable_jpeg(path):
    """Return what is special about a JPEG that libjpeg does not read, or "". Source: ITU-T T.81, B.2.2."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        data = file.read(1 << 20)
        at = 2
        while data[:2] == b"\xff\xd8" and at + 5 <= len(data) and data[at] == 0xFF:
            marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
            if marker in (0xC3, 0xC7, 0xCB, 0xCF):
                return "a lossless JPEG, which is not read: convert it to PNG first"
            if 0xC0 <= marker <= 0xCE and marker not in (0xC4, 0xC8, 0xCC):
                return f"a JPEG of {data[at + 4]} bits, not 8: convert it to PNG first" if data[at + 4] != 8 else ""
            at += 2 + length
    return ""
