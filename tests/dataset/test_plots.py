"""Images of images."""

from conftest import sky_image

from dataset.plots import contact_sheets


def test_sheets_have_pages():
    cells = [(f"a rather long name of the cell number {i}", sky_image()) for i in range(7)]
    sheets = list(contact_sheets(cells, width=40, columns=2, rows=2))
    assert len(sheets) == 2 and sheets[0].shape[1] == 2 * 48 + 8 and sheets[0].std() > 10
