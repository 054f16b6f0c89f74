"""dataset/decoding.py: what a file says of itself, its orientation, colors and alpha, is obeyed in every format."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from dataset import decoding
from dataset.decoding import TURNS, decode, is_animation
from dataset.images import ImageError, read_image, read_image_and_alpha, read_rgb

CORNERS = np.array([[[250, 20, 20], [20, 250, 20]], [[20, 20, 250], [250, 250, 20]]], np.uint8)


def corners(height=24, width=40):
    """Four fields of red, green, blue and yellow: every orientation looks different."""
    return CORNERS[np.arange(height)[:, None] * 2 // height, np.arange(width) * 2 // width]


def png(path, header, data, *chunks):
    """Write a PNG from its IHDR (width, height, bits, color type), its unfiltered rows and other chunks."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)), *(chunk(*pair) for pair in chunks)]
    rows = b"".join(b"\0" + row for row in data)
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def profile(
    gamma=2.2, space=b"RGB ", columns=((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142))
):
    """An ICC profile of version 2: one gamma, primaries (XYZ at D50; by default those of sRGB)."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {
        b"wtpt": xyz((0.9642, 1, 0.8249)),
        b"desc": b"desc" + b"\0" * 4 + struct.pack(">I", 2) + b"x\0" + b"\0" * 78,
    }
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {name + b"XYZ": xyz(column) for name, column in zip((b"r", b"g", b"b"), columns, strict=True)}
        tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"\0\0\0\0", 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


WIDE = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))  # Display P3


def srgb_of(linear):
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


# --- Orientation ---


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "heic", "avif"])
def test_every_orientation_is_obeyed_in_every_format(tmp_path, suffix, embedded):
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    upright = corners()
    for orientation in range(1, 9):
        stored = Image.fromarray(upright)
        if orientation in TURNS:  # the transposition that undoes TURNS
            undo = {
                Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
                Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
            }
            stored = stored.transpose(undo.get(TURNS[orientation], TURNS[orientation]))
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"exif": exif} | ({"icc_profile": profile()} if embedded else {})
        path = tmp_path / f"{orientation}.{suffix}"
        stored.save(path, quality=95, **options) if suffix != "png" else stored.save(path, **options)
        image = read_image(path)
        assert image.shape == upright.shape, orientation
        inner = np.s_[4::16, 4::28]  # away from the edges of the fields
        assert np.abs(image[inner] - upright[inner]).max() < 24, orientation


@pytest.mark.parametrize("kind, value", [(3, 6), (4, 6), (5, (6, 1)), (2, b"6\0"), (9, 6), (10, (6, 1))])
def test_orientation_is_read_whatever_its_type_and_whatever_else_is_wrong(tmp_path, kind, value):
    """Fields after it: a resolution of -1/0, which Pillow cannot write again, and an offset beyond the end."""
    size = {3: "H", 4: "I", 5: "2I", 2: "2s", 9: "i", 10: "2i"}[kind]
    data = struct.pack("<" + size, *(value if isinstance(value, tuple) else (value,)))
    entries = [
        (0x0112, kind, 2 if kind == 2 else 1, data),
        (0x011A, 10, 1, struct.pack("<2i", -1, 0)),
        (0x8769, 4, 1, b"\xff\xff\xff\0"),
    ]
    table, extra = struct.pack("<H", len(entries)), b""
    for tag, type_, count, content in entries:
        offset = (
            struct.pack("<I", 8 + 2 + 12 * len(entries) + 4 + len(extra))
            if len(content) > 4
            else content.ljust(4, b"\0")
        )
        extra += content if len(content) > 4 else b""
        table += struct.pack("<HHI", tag, type_, count) + offset
    exif = b"Exif\0\0II\x2a\0\x08\0\0\0" + table + b"\0\0\0\0" + extra
    Image.fromarray(corners()).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (40, 24, 3)
    assert read_rgb(tmp_path / "a.jpg").size == (24, 40)


def test_a_tiff_is_turned_whatever_is_wrong_with_its_exif(tmp_path):
    Image.fromarray(corners()).save(tmp_path / "a.tif", tiffinfo={0x0112: 6, 0x8769: 0xFFFFFF})
    image = read_image(tmp_path / "a.tif")
    assert image.shape == (40, 24, 3) and np.array_equal(image[0, 0], CORNERS[1, 0])


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(corners()).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"eXIf") - 4
    length = struct.unpack(">I", data[at : at + 4])[0] + 12
    chunk, rest = data[at : at + length], data[:at] + data[at + length :]
    (tmp_path / "b.png").write_bytes(rest[:-12] + chunk + rest[-12:])
    assert np.array_equal(read_image(tmp_path / "b.png"), read_image(tmp_path / "a.png"))
    assert read_image(tmp_path / "b.png").shape == (40, 24, 3)


# --- Colors ---


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "PA"])
def test_a_profile_counts_in_every_mode(tmp_path, mode):
    """Display P3's (230, 30, 30) is beyond sRGB's red."""
    image = Image.new("RGB", (8, 8), (230, 30, 30))
    image = {"P": lambda: image.quantize(4), "PA": lambda: image.quantize(4)}.get(mode, lambda: image.convert(mode))()
    options = {"transparency": b"\x80"} if mode == "PA" else {}
    image.save(tmp_path / "a.png", icc_profile=profile(2.2, columns=WIDE), **options)
    image, alpha = read_image_and_alpha(tmp_path / "a.png")
    assert image[0, 0, 0] > 245 and image[0, 0, 1:].max() < 20
    assert (alpha is None) == (mode != "PA")


def test_a_profile_of_cmyk_counts(tmp_path):
    lab = ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), (230, 30, 30)), ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
    )
    image.save(tmp_path / "lab.tif")
    assert np.abs(read_image(tmp_path / "lab.tif") - (230, 30, 30)).max() < 4
    Image.new("CMYK", (8, 8), (0, 220, 220, 20)).save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "cmyk.jpg")[0, 0] - (235, 32, 32)).max() < 6


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_profile_of_grey_counts(tmp_path, mode):
    """90, 130 and 53 of linear light are 160, 189 and 126 in sRGB."""
    levels = np.array([[90, 130, 53]], np.uint8)
    image = Image.fromarray(levels)
    image = Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.png", icc_profile=profile(1.0, b"GRAY"))
    assert np.abs(read_image(tmp_path / "a.png")[0] - np.array([[160], [189], [126]])).max() < 1.5


def test_deep_grey_with_a_profile_keeps_its_shadows(tmp_path):
    values = np.array([[16, 64, 256, 1024, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=profile(1.0, b"GRAY"))
    assert np.abs(read_image(tmp_path / "a.png")[0, :, 0] - srgb_of(values[0] / 65535)).max() < 0.5


def test_profiles_that_are_broken_or_of_another_kind_are_passed_over(tmp_path):
    for name, data, mode in (
        ("a", b"no profile", "RGB"),
        ("b", profile(1.0, b"GRAY"), "RGB"),
        ("c", profile()[:200], "L"),
    ):
        Image.new(mode, (8, 8), (90, 90, 90) if mode == "RGB" else 90).save(tmp_path / f"{name}.png", icc_profile=data)
        assert np.array_equal(read_image(tmp_path / f"{name}.png")[0, 0], (90, 90, 90)), name


def test_gamma_counts_where_it_is_far_from_srgb(tmp_path):
    row = [bytes([10, 100, 200])]
    for gamma, expected in ((100000, srgb_of(np.array([10, 100, 200]) / 255)), (45455, np.array([10, 100, 200]))):
        png(tmp_path / "a.png", (1, 1, 8, 2), row, (b"gAMA", struct.pack(">I", gamma)))
        assert np.abs(read_image(tmp_path / "a.png")[0, 0] - expected).max() <= 0.51
        png(tmp_path / "b.png", (1, 1, 8, 2), row, (b"gAMA", struct.pack(">I", gamma)), (b"sRGB", b"\0"))
        assert np.array_equal(read_image(tmp_path / "b.png")[0, 0], (10, 100, 200))
    png(tmp_path / "c.png", (2, 1, 16, 0), [struct.pack(">2H", 257 * 10, 100)], (b"gAMA", struct.pack(">I", 100000)))
    assert np.abs(read_image(tmp_path / "c.png")[0, :, 1] - srgb_of(np.array([10 / 255, 100 / 65535]))).max() < 0.1


@pytest.mark.parametrize("values, expected", [
    (np.array([[0, 0.5, 1]], np.float32), (0, 127.5, 255)),
    (np.array([[0, 0.5, 1.3]], np.float32), (0, 127.5, 255)),
    (np.array([[0, 100, 255]], np.float32), (0, 100, 255)),
    (np.array([[-5, np.nan, 65535]], np.float32), (0, 0, 255)),
    (np.array([[0, 32768, np.inf]], np.float32), (0, 127.5, 255)),
    (np.array([[0, 1 << 20, 1 << 21]], np.int32), (0, 127.5, 255)),
    (np.array([[0, 25700, 65535]], np.uint16), (0, 100, 255)),
    (np.array([[0, 100, 200]], np.uint16), (0, 100, 200)),
])  # fmt: skip
def test_tiff_of_many_bits(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif")[0, :, 0] - expected).max() < 0.3


def test_a_dark_png_of_16_bits_stays_dark(tmp_path):
    Image.fromarray(np.array([[0, 200]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").max() < 1


# --- Alpha ---


@pytest.mark.parametrize("bits, kind, pixels, key, opaque", [
    (1, 0, [0, 1], (1,), (0, None)),
    (2, 0, [1, 3], (3,), (85, None)),
    (4, 0, [3, 9], (9,), (51, None)),
    (8, 0, [30, 99], (99,), (30, None)),
    (16, 0, [30 * 257, 99], (99,), (30, None)),
    (16, 0, [30 * 257, 30 * 257 + 1], (30 * 257 + 1,), (30, None)),
    (8, 2, [30, 30, 30, 9, 8, 7], (9, 8, 7), (30, None)),
    (16, 2, [7710, 7710, 7710, 7710, 7710, 7711], (7710, 7710, 7711), (30, None)),
])  # fmt: skip
def test_one_transparent_color_is_transparent_at_all_depths(tmp_path, bits, kind, pixels, key, opaque):
    if bits < 8:
        row = bytes([sum(value << (8 - bits * (i + 1)) for i, value in enumerate(pixels))])
    else:
        row = struct.pack(f">{len(pixels)}{'H' if bits == 16 else 'B'}", *pixels)
    width = len(pixels) // (3 if kind == 2 else 1)
    path = png(tmp_path / "a.png", (width, 1, bits, kind), [row], (b"tRNS", struct.pack(f">{len(key)}H", *key)))
    image, alpha = read_image_and_alpha(path)
    assert alpha.tolist() == [[255, 0]]
    assert np.abs(image[0, 0] - opaque[0]).max() < 0.01
    assert np.array_equal(read_image(path)[0, 1], (255, 255, 255))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_may_be_transparent_in_part(tmp_path, bits):
    row = bytes([1 << (8 - 2 * bits)]) if bits < 8 else b"\0\1"  # colors 0 and 1
    palette = (b"PLTE", bytes([200, 0, 0, 0, 200, 0])), (b"tRNS", b"\x40")
    image, alpha = read_image_and_alpha(png(tmp_path / "a.png", (2, 1, bits, 3), [row], *palette))
    assert alpha.tolist() == [[64, 255]] and image.tolist() == [[[200, 0, 0], [0, 200, 0]]]


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "avif", "gif"])
def test_alpha_of_every_format_is_kept_and_what_nobody_sees_is_white(tmp_path, suffix):
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, :8] = 200, 10, 10, 255
    pixels[:, 8:] = 255, 0, 255, 0  # magenta that nobody sees
    lossless = {"webp": {"lossless": True, "exact": True}, "avif": {"quality": 100, "subsampling": "4:4:4"}}
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **lossless.get(suffix, {}))
    image, alpha = read_image_and_alpha(tmp_path / f"a.{suffix}")
    assert alpha[0, 0] == 255 and alpha[0, -1] == 0
    for shown in (image, read_image(tmp_path / f"a.{suffix}"), np.asarray(read_rgb(tmp_path / f"a.{suffix}"))):
        assert np.abs(shown[0, 0] - (200.0, 10, 10)).max() < 4
        assert np.array_equal(shown[0, -1], (255, 255, 255))


def test_alpha_that_a_bitmap_leaves_unused_hides_nothing(tmp_path):
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + b"\0" * 48
    for alpha, expected in ((0, None), (7, [[7, 0]])):
        pixels = bytes([30, 20, 10, alpha, 60, 50, 40, 0])
        start = b"BM" + struct.pack("<IHHI", 14 + 108 + 8, 0, 0, 14 + 108)
        (tmp_path / "a.bmp").write_bytes(start + header + masks + pixels)
        image, found = read_image_and_alpha(tmp_path / "a.bmp")
        assert np.array_equal(image[0, 0], (10, 20, 30))
        assert found is None if expected is None else found.tolist() == expected


def test_resizing_brings_no_hidden_color_to_the_edge(tmp_path):
    pixels = np.full((40, 40, 4), (0, 0, 0, 255), np.uint8)
    pixels[:, 20:] = 255, 0, 255, 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image, alpha = read_image_and_alpha(tmp_path / "a.png", max_size=9)
    assert image[alpha > 10].max() < 20


# --- Size ---


def test_large_images_are_reduced_while_they_are_decoded(tmp_path, monkeypatch):
    y, x = np.mgrid[:300, :400]
    levels = np.stack([x * 255 / 400, y * 255 / 300, np.full(x.shape, 90)], axis=2).astype(np.uint8)
    alpha = np.where(x < 200, 255, 64).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(levels).save(tmp_path / "b.png")
    Image.fromarray(np.dstack([levels, alpha])).save(tmp_path / "c.png")
    Image.fromarray(levels).quantize(64).save(tmp_path / "d.gif")
    Image.fromarray((levels[:, :, 0].astype(np.uint16)) * 257).save(tmp_path / "e.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(levels).save(tmp_path / "f.jpg", quality=95, exif=exif)
    Image.fromarray(levels).save(tmp_path / "g.webp", quality=95)
    Image.fromarray(np.dstack([levels, alpha])).save(tmp_path / "h.webp", quality=95)
    Image.fromarray(np.dstack([levels, alpha])).save(tmp_path / "i.webp", lossless=True)
    for path in sorted(tmp_path.iterdir()):
        whole = read_image_and_alpha(path, max_size=40)
        with monkeypatch.context() as patch:
            patch.setattr(decoding, "LARGE", 1000)
            patch.setattr(decoding, "BAND", 4000)
            decoded = decode(path, lambda width, height: (width // 3, height // 3))
            assert decoded.size == ((300, 400) if path.name[0] == "f" else (400, 300))
            assert 100 <= min(decoded.color.size) <= 150, path.name
            reduced = read_image_and_alpha(path, max_size=40)
        assert reduced[0].shape == whole[0].shape
        assert np.abs(reduced[0] - whole[0]).max() < (20 if path.suffix == ".gif" else 6), path.name
        if whole[1] is not None:
            assert np.abs(reduced[1] - whole[1]).max() < 40 and np.abs(reduced[1] - whole[1]).mean() < 1


def test_what_takes_too_much_memory_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    png(tmp_path / "bomb.png", (30000, 30000, 1, 0), [b"\0" * 3750])
    with pytest.raises(ImageError, match="30000 x 30000 are too many pixels: .* at most 333 megapixels .* shrink it"):
        read_image_and_alpha(tmp_path / "bomb.png", max_size=100)
    Image.fromarray(corners(300, 400)).save(tmp_path / "a.jpg")
    Image.fromarray(corners(300, 400)).save(tmp_path / "progressive.jpg", progressive=True)
    monkeypatch.setattr(decoding, "LARGE", 1000)
    monkeypatch.setattr(decoding, "MEMORY_LIMIT", 400 * 300 * 3)
    with pytest.raises(ImageError, match="too many"):
        read_image(tmp_path / "a.jpg")
    assert read_image_and_alpha(tmp_path / "a.jpg", max_size=20)[0].shape == (15, 20, 3)
    with pytest.raises(ImageError, match="too many"):  # libjpeg keeps the whole of it until the last pixel
        read_image_and_alpha(tmp_path / "progressive.jpg", max_size=20)


# --- Kinds of files ---


def test_the_first_page_that_is_no_preview_is_read_and_raw_photos_are_told(tmp_path):
    small, large = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (200, 100), "blue")
    small.encoderinfo, large.encoderinfo = {"tiffinfo": {254: 1}}, {"tiffinfo": {254: 0}}
    small.save(tmp_path / "a.tif", save_all=True, append_images=[large])
    assert read_image(tmp_path / "a.tif").shape == (100, 200, 3)
    small = Image.new("RGB", (20, 10), "red")
    small.save(tmp_path / "b.tif", tiffinfo={254: 1, 50706: b"\1\4\0\0"})
    with pytest.raises(ImageError, match="raw photo, of which only a preview of 20 x 10"):
        read_image(tmp_path / "b.tif")
    cr2, cr3 = b"II\x2a\0\x10\0\0\0CR\2\0", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"
    for name, start in (("c.cr2", cr2), ("d.raf", b"FUJIFILMCCD-RAW 0201"), ("e.jpg", cr3)):
        (tmp_path / name).write_bytes(start + (tmp_path / "b.tif").read_bytes())
        with pytest.raises(ImageError, match="a raw photo .*: develop it"):
            read_image(tmp_path / name)


def test_raw_photos_that_pillow_does_not_open_are_told(tmp_path):
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (259, 3, 1, 65535), (262, 3, 1, 32803)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    data = b"II\x2a\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(100)
    for name, text in (("a.PEF", "a raw photo: develop it"), ("a.tif", "damaged, or of a kind that is not read")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=text):
            read_image(tmp_path / name)


@pytest.mark.parametrize("start, text", [
    (b"", "an empty file, not a picture"),
    (b"hello", "not a picture that can be read"),
    (b"\0\0\0\x20ftypisom\0\0\2\0", "a video, not a picture: python dream_video.py"),
    (b"\0\0\0\x14ftypqt  \0\0\2\0", "a video"),
    (b"\x1aE\xdf\xa3\x01", "a video"),
    (b"RIFF\x10\0\0\0AVI LIST", "a video"),
    (b"G" + b"\0" * 187 + b"G" + b"\0" * 187 + b"G" + b"\0" * 187 + b"G" + b"\0" * 187, "a video"),
    (b"ID3\4\0\0\0\0", "sound"),
    (b"%PDF-1.7", "a PDF"),
    (b"<?xml version='1.0'?>\n<svg width='3'>", "an SVG"),
    (b"<!DOCTYPE html><html>", "a web page"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
])  # fmt: skip
def test_what_is_no_picture_is_told_by_its_content(tmp_path, start, text):
    (tmp_path / "a.jpg").write_bytes(start)
    with pytest.raises(ImageError, match=text):
        read_image(tmp_path / "a.jpg")


def test_suffixes_do_not_matter(tmp_path):
    image = Image.fromarray(corners())
    kinds = {"AVIF": {}, "PPM": {}, "WEBP": {}, "TIFF": {}, "GIF": {}, "BMP": {}, "JPEG": {"quality": 95}, "PNG": {}}
    for kind, options in kinds.items():
        image.save(tmp_path / "photo.jpg", format=kind, **options)
        assert np.abs(read_image(tmp_path / "photo.jpg")[4, 4] - CORNERS[0, 0]).max() < 24, kind
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    image.save(tmp_path / "photo.jpg", format="HEIF")
    assert np.abs(read_image(tmp_path / "photo.jpg")[4, 4] - CORNERS[0, 0]).max() < 24


def test_heic_without_pillow_heif_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        read_image(tmp_path / "a.jpg")


def test_jpegs_that_libjpeg_does_not_read_are_told(tmp_path):
    for marker, bits, text in ((0xC1, 12, "a JPEG of 12 bits"), (0xC3, 8, "a lossless JPEG")):
        frame = struct.pack(">BBHBHHB", 0xFF, marker, 11, bits, 8, 8, 1) + b"\1\x11\0"
        (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + frame)
        with pytest.raises(ImageError, match=text):
            read_image(tmp_path / "a.jpg")


def test_animations_are_told_from_pictures(tmp_path):
    image = Image.fromarray(corners())
    for suffix in ("gif", "png", "webp"):
        image.save(tmp_path / f"still.{suffix}")
        image.save(tmp_path / f"moving.{suffix}", save_all=True, append_images=[image.rotate(180)])
        assert is_animation(tmp_path / f"moving.{suffix}") and not is_animation(tmp_path / f"still.{suffix}"), suffix
        assert np.abs(read_image(tmp_path / f"moving.{suffix}")[4, 4] - CORNERS[0, 0]).max() < 24


def test_megabytes_of_text_and_profile_do_not_matter(tmp_path):
    text = b"workflow\0\1\0\0\0" + zlib.compress(b"x" * (3 << 20))
    path = png(tmp_path / "a.png", (1, 1, 8, 0), [b"\x50"], (b"iTXt", text))
    assert read_image(path)[0, 0, 0] == 80
    path = png(tmp_path / "b.png", (1, 1, 8, 0), [b"\x50"], (b"iCCP", b"x\0\0" + zlib.compress(b"\0" * (3 << 20))))
    assert read_image(path)[0, 0, 0] == 80


@pytest.mark.parametrize(
    "error", [struct.error("x"), MemoryError(), RuntimeError("x"), ZeroDivisionError(), RecursionError()]
)
def test_whatever_a_decoder_raises_is_one_line_with_the_name(tmp_path, monkeypatch, error):
    Image.fromarray(corners()).save(tmp_path / "a.png")

    def load(self):
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.png")
    assert str(caught.value).startswith(f"{tmp_path / 'a.png'}: ") and str(caught.value).strip()[-1] != ":"


def test_nothing_is_written_anew_to_be_read(tmp_path, monkeypatch):
    """Pillow's exif_transpose() writes EXIF, and dies of values that it cannot write."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(corners()).save(tmp_path / "a.jpg", exif=exif)
    monkeypatch.setattr(Image.Exif, "tobytes", lambda self, *_: 1 / 0)
    assert read_image(tmp_path / "a.jpg").shape == (40, 24, 3)
