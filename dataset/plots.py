"""Numbers and images drawn with Pillow: curves, a confusion matrix, images in rows and columns with captions.

Each returns a float32 image H x W x 3, 0..255, for dataset.images.write_image.
"""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.images import resize_image, to_uint8

GAP, LINE = 8, 15  # pixels: between the images of a contact sheet, and a line of text
COLORS = ("#c0392b", "#2471a3", "#229954", "#b9770e")


@functools.cache
def font(size=13):
    return ImageFont.load_default(size)


def blank(width, height):
    """Return a white PIL image and its ImageDraw."""
    image = Image.new("RGB", (width, height), "white")
    return image, ImageDraw.Draw(image)


def curves(panels, x, label):
    """Draw panels side by side, each (title, {name: values}); values go with the numbers `x` and may be None in places.

    label: what x is, under the axis.
    """
    width, height, left, top = 440, 300, 56, 44
    image, draw = blank(width * len(panels), height)
    for number, (title, lines) in enumerate(panels):
        origin = number * width
        values = [v for line in lines.values() for v in line if v is not None and math.isfinite(v)]
        ticks = nice_ticks(min(values, default=0.0), max(values, default=1.0))
        low, high = ticks[0], ticks[-1]
        right, bottom = origin + width - 16, height - 44
        first, last = x[0], max(x[-1], x[0] + 1)

        def place(a, b, origin=origin, right=right, bottom=bottom, low=low, high=high, first=first, last=last):
            across = (a - first) / (last - first)
            return (
                origin + left + across * (right - origin - left),
                bottom - (b - low) / (high - low) * (bottom - top),
            )

        draw.text((origin + left, 8), title, "black", font(15))
        for tick in ticks:
            y = place(first, tick)[1]
            draw.line((origin + left, y, right, y), "#dddddd")
            draw.text((origin + left - 6, y), f"{tick:g}", "#555555", font(11), anchor="rm")
        for tick in dict.fromkeys((first, (first + last) // 2, last)):
            draw.text((place(tick, low)[0], bottom + 6), f"{tick:g}", "#555555", font(11), anchor="mt")
        draw.text(((origin + left + right) / 2, bottom + 22), label, "#555555", font(12), anchor="mt")
        for (name, line), color, row in zip(lines.items(), COLORS, range(len(lines)), strict=False):
            points = [place(a, b) for a, b in zip(x, line, strict=True) if b is not None and math.isfinite(b)]
            if len(points) > 1:
                draw.line(points, color, 2, joint="curve")
            for a, b in points if len(points) < 40 else points[-1:]:
                draw.ellipse((a - 2, b - 2, a + 2, b + 2), color)
            draw.text((right - 110 * (len(lines) - row) + 20, 28), name, color, font(12))
    return np.asarray(image, np.float32)


def nice_ticks(low, high):
    """Return some four round numbers that span low..high."""
    span = max(high - low, 1e-6 * max(abs(low), abs(high))) or 1.0
    step = 10 ** math.floor(math.log10(span))
    step *= next(factor for factor in (0.2, 0.25, 0.5, 1, 2, 2.5, 5) if span / (step * factor) <= 5)
    start, count = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * i:.10g}") for i in range(start, max(count, start + 1) + 1)]


def shorten(text, length=22, ellipsis="…"):
    text = drawable(text)
    return text if len(text) <= length else text[: length - len(ellipsis)] + ellipsis


def confusion(matrix, classes):
    """Draw a confusion matrix, counts (C, C): a row is what images are, a column what they were taken for; the darker a
    cell, the larger its share of the row."""
    count = len(classes)
    cell = max(6, min(48, 720 // count))
    names = [shorten(name) for name in classes]
    size = min(12, max(7, cell - 1))
    margin = int(max(font(size).getlength(name) for name in names)) + 16
    image, draw = blank(max(margin + cell * count + 16, 310), margin + cell * count + 34)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    top = 30
    draw.text((8, 8), "rows: what it is; columns: what it was taken for", "black", font(12))
    for row in range(count):
        y = top + margin + row * cell
        draw.text((margin - 6, y + cell / 2), names[row], "black", font(size), anchor="rm")
        for column in range(count):
            x = margin + column * cell
            share = shares[row, column]
            tint = (255 - np.array([205, 140, 75]) * share).astype(int)
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), tuple(int(v) for v in tint))
            if cell >= 24 and matrix[row, column]:
                ink = "white" if share > 0.55 else "black"
                text = str(int(matrix[row, column]))
                draw.text((x + cell / 2 - 1, y + cell / 2), text, ink, font(size), anchor="mm")
    for column in range(count):
        label, pen = blank(margin - 6, size + 4)
        pen.text((0, 0), names[column], "black", font(size))
        image.paste(label.rotate(90, expand=True), (margin + column * cell + (cell - size) // 2, top + 4))
    return np.asarray(image, np.float32)


def draw_grid(cells, columns, pitch, margin=(0, 0)):
    """Return a white PIL image and its ImageDraw, with `cells` in rows of `columns`.

    A cell is a list of (x, y, PIL image) and (x, y, text, color), in pixels from its corner. pitch: width and height of
    a cell with the gap after it. margin: left and top of the first one.
    """
    rows = -(-len(cells) // columns)
    sheet, draw = blank(margin[0] + min(columns, len(cells)) * pitch[0], margin[1] + rows * pitch[1])
    for number, cell in enumerate(cells):
        left, top = margin[0] + number % columns * pitch[0], margin[1] + number // columns * pitch[1]
        for x, y, content, *color in cell:
            if color:
                draw.text((left + x, top + y), content, *color, font(11))
            else:
                sheet.paste(content, (left + x, top + y))
    return sheet, draw


def strip(rows, columns):
    """Draw rows of images of one size, {caption: images}, with `columns`, captions above. None is an empty place."""
    names = [shorten(name) for name in rows]
    height, width = next(image.shape[:2] for row in rows.values() for image in row if image is not None)
    left, top = int(max(font().getlength(name) for name in names)) + 16, 24
    cells = [[] if image is None else [(0, 0, to_pil(image))] for row in rows.values() for image in row]
    sheet, draw = draw_grid(cells, len(columns), (width + 4, height + 4), (left, top))
    for column, caption in enumerate(columns):
        draw.text((left + column * (width + 4) + width / 2, 5), caption, "black", font(13), anchor="mt")
    for row, name in enumerate(names):
        draw.text((left - 8, top + row * (height + 4) + height / 2), name, "black", font(13), anchor="rm")
    return np.asarray(sheet, np.float32)


def contact_sheets(cells, width=200, columns=5, rows=6):
    """Yield sheets, float32 H x W x 3, of (label, image) cells; every sheet holds columns x rows of them.

    width: of an image on the sheet, pixels; images of other widths are resized.
    """
    resized = []
    for label, image in cells:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        resized.append((label, to_pil(resize_image(image, (height, width)))))
    for start in range(0, len(resized), columns * rows):
        page = resized[start : start + columns * rows]
        height = max(image.height for _, image in page)
        cells = [[(0, 0, image), (0, height + 1, shorten_to_width(label, width), "black")] for label, image in page]
        sheet, _ = draw_grid(cells, columns, (width + GAP, height + LINE + GAP), (GAP, GAP))
        yield np.asarray(sheet, np.float32)


def to_pil(image):
    return Image.fromarray(to_uint8(image))


def drawable(text):
    """Return a text without what no font draws: line breaks, and bytes of names that are no UTF-8."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def shorten_to_width(text, pixels):
    text = drawable(text)
    while font(11).getlength(text) > pixels:
        text = text[:-3] + ".."
    return text


def color_axes(mean, matrix, colors):
    """Return an image 620 x 880: the colors along each column of a color matrix, from -2 to 2 standard deviations about
    the mean (3,), 0..1; then a sample of pixels N x 3, 0..255, and the same whitened, along the first two axes."""
    sheet = Image.new("RGB", (880, 620), "gainsboro")
    draw = ImageDraw.Draw(sheet)
    share = (matrix**2).sum(axis=0) / max((matrix**2).sum(), 1e-12)
    steps = np.linspace(-2, 2, 840)
    for axis in range(3):
        strip = np.clip(mean + steps[:, None] * matrix[:, axis], 0, 1) * 255
        strip = np.broadcast_to(np.rint(strip).astype(np.uint8), (26, 840, 3))
        sheet.paste(Image.fromarray(np.ascontiguousarray(strip)), (20, 24 + 46 * axis))
        text = f"colour axis {axis + 1}, -2 to 2 standard deviations; {share[axis]:.1%} of the variance"
        draw.text((20, 7 + 46 * axis), text, "black", font())

    dots = np.asarray(sheet).copy()
    values = colors / 255
    variances = (matrix**2).sum(axis=0)
    inverse = matrix / np.where(variances > 1e-9, variances, np.inf)  # columns are orthogonal: M^-1 = inverse^T
    whitened = (values - mean) @ inverse
    for left, points in ((20, values[:, [0, 2]]), (450, whitened[:, :2] / 8 + 0.5)):
        column = left + np.rint(points[:, 0] * 409).astype(int)
        row = 599 - np.rint(points[:, 1] * 409).astype(int)
        inside = (column >= left) & (column < left + 410) & (row >= 190) & (row < 600)
        dots[row[inside], column[inside]] = colors[inside]
    sheet = Image.fromarray(dots)
    draw = ImageDraw.Draw(sheet)
    for left, text in (
        (20, "before: red to the right, blue upwards, 0..255"),
        (450, "whitened: axes 1 and 2, -4 to 4 standard deviations"),
    ):
        draw.rectangle((left - 1, 189, left + 410, 600), outline="grey")
        draw.text((left, 164), text, "black", font())
    return np.asarray(sheet, np.float32)
