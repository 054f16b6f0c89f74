"""Contact sheets: small pictures in rows, each with its name below."""

import numpy as np

from .images import resize_image, to_levels

GAP, LINE = 8, 15  # pixels: between pictures, and a line of text


def contact_sheets(cells, width=200, columns=5, rows=6):
    """Yields sheets, float32 H x W x 3, of (label, image) cells; every sheet holds columns x rows of them.

    width: of a picture on the sheet, pixels; images of other widths are resized.
    """
    from PIL import Image, ImageDraw, ImageFont

    cells = [(label, resize_image(image, (max(1, round(image.shape[0] * width / image.shape[1])), width)))
             for label, image in cells]  # fmt: skip
    font = ImageFont.load_default(11)
    for start in range(0, len(cells), columns * rows):
        page = cells[start : start + columns * rows]
        height = max(image.shape[0] for _, image in page)
        across, down = min(columns, len(page)), -(-len(page) // columns)
        sheet = Image.new("RGB", (across * (width + GAP) + GAP, down * (height + LINE + GAP) + GAP), "white")
        draw = ImageDraw.Draw(sheet)
        for number, (label, image) in enumerate(page):
            x, y = GAP + number % columns * (width + GAP), GAP + number // columns * (height + LINE + GAP)
            sheet.paste(Image.fromarray(to_levels(image)), (x, y))
            while draw.textlength(label, font) > width:
                label = label[:-3] + ".."
            draw.text((x, y + height + 1), label, "black", font)
        yield np.asarray(sheet, np.float32)
