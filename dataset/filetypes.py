"""Tell what a file is by its first bytes, whatever it is called."""

import struct

from dataset.files import check_no_pipe

LENGTH = 4096  # bytes that are looked at

MAGIC = (
    (b"\xff\xd8\xff", "image", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "image", "PNG"),
    (b"GIF8", "image", "GIF"),
    (b"BM", "image", "BMP"),
    (b"II\x2a\0\x10\0\0\0CR", "raw", "a raw photo (CR2)"),
    (b"II\x2a\0", "image", "TIFF"),
    (b"MM\0\x2a", "image", "TIFF"),
    (b"II\x2b\0", "image", "TIFF"),
    (b"MM\0\x2b", "image", "TIFF"),
    (b"IIRO", "raw", "a raw photo (ORF)"),
    (b"IIRS", "raw", "a raw photo (ORF)"),
    (b"MMOR", "raw", "a raw photo (ORF)"),
    (b"IIU\0", "raw", "a raw photo (RW2)"),
    (b"FUJIFILMCCD-RAW", "raw", "a raw photo (RAF)"),
    (b"FOVb", "raw", "a raw photo (X3F)"),
    (b"\0MRM", "raw", "a raw photo (MRW)"),
    (b"\x1aE\xdf\xa3", "video", "a video"),
    (b"FLV", "video", "a video"),
    (b"0&\xb2u\x8ef\xcf\x11", "video", "a video"),
    (b"\0\0\1\xba", "video", "a video"),
    (b"\0\0\1\xb3", "video", "a video"),
    (b"OggS", "video", "a video or sound"),
    (b"\x06\x0e+4", "video", "a video"),
    (b"ID3", "audio", "sound"),
    (b"\xff\xfb", "audio", "sound"),
    (b"\xff\xf3", "audio", "sound"),
    (b"\xff\xf1", "audio", "sound"),
    (b"fLaC", "audio", "sound"),
    (b"FORM", "audio", "sound"),
    (b"%PDF", "other", "a PDF"),
    (b"%!PS", "other", "PostScript"),
    (b"8BPS", "other", "a Photoshop file"),
    (b"gimp xcf", "other", "a GIMP file"),
    (b"\xff\x0a", "other", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "other", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "other", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "other", "JPEG 2000"),
    (b"v/1\1", "other", "OpenEXR"),
    (b"#?RADIANCE", "other", "Radiance HDR"),
    (b"\0\0\1\0", "other", "an icon"),
    (b"DDS ", "other", "a DirectDraw texture"),
    (b"qoif", "other", "a QOI picture"),
    (b"PK\3\4", "other", "a ZIP archive"),
    (b"\x1f\x8b", "other", "a gzip archive"),
    (b"Rar!", "other", "a RAR archive"),
    (b"7z\xbc\xaf", "other", "a 7z archive"),
    (b"version https://git-lfs", "other", "a pointer of Git LFS to a file that was not fetched"),
    (b"\0\5\x16\7", "other", "what a Mac keeps beside a file, not the file"),
)
# ISO base media: the brand of the ftyp box. Source: MP4 registration authority; libheif and libavif on mif1 and msf1
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
AVIF_BRANDS = {b"avif", b"avis"}
QUICKTIME_BOXES = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}


def identify(path):
    """Return (kind, name) of a file: kind is image, raw, video, audio or other, or "" where nothing is known of it.

    The name of an image is its format, as Pillow names it; others have names for a message, with their article.
    Raises OSError where the file cannot be read.
    """
    check_no_pipe(path)
    with open(path, "rb") as file:
        return identify_bytes(file.read(LENGTH))


def identify_bytes(start):
    """Return what identify() says of a file that begins with these bytes, LENGTH of them or the whole of it."""
    if not start:
        return "other", "an empty file"
    if start[:4] == b"RIFF":
        of_form = {b"WEBP": ("image", "WEBP"), b"AVI ": ("video", "a video"), b"WAVE": ("audio", "sound")}
        return of_form.get(start[8:12], ("", ""))
    if start[4:8] == b"ftyp":
        return identify_brands(start)
    for magic, kind, name in MAGIC:
        if start.startswith(magic):
            return kind, name
    if start[4:8] in QUICKTIME_BOXES or is_transport_stream(start):
        return "video", "a video"
    if start[:1] == b"P" and start[1:2] in b"123456f" and start[2:3].isspace():
        return "image", "PPM"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return "other", "an SVG drawing"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<script")):
        return "other", "a web page"
    return "", ""


def identify_brands(start):
    """Return what identify() says of ISO base media: photos of phones and videos begin alike."""
    length = min(struct.unpack(">I", start[:4])[0], len(start))
    major, compatible = start[8:12], {start[i : i + 4] for i in range(16, length, 4)}
    if major == b"crx ":
        return "raw", "a raw photo (CR3)"
    if major in HEIF_BRANDS:
        return "image", "HEIF"
    if major in AVIF_BRANDS:
        return "image", "AVIF"
    if major in (b"mif1", b"msf1", b"miaf"):
        return "image", "AVIF" if compatible & AVIF_BRANDS else "HEIF"
    if major in (b"M4A ", b"M4B ", b"M4P "):
        return "audio", "sound"
    return "video", "a video"


def is_transport_stream(start):
    """Return whether these are MPEG packets of 188 bytes, or of 192 with a time before each."""
    for packet, first in ((188, 0), (192, 4)):
        marks = start[first::packet]
        if len(marks) > 3 and set(marks) == {0x47}:
            return True
    return False
