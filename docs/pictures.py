"""Pictures of every built page, wide and narrow, light and dark, and what does not fit on them.

    uv pip install playwright pillow        # and a Chromium, as of Debian's package `chromium`
    python docs/pictures.py docs/_build/html pictures [--only lab precision]

It prints each page that is wider than the screen, each block of code that is wider than its column
at 1400 pixels, each formula that KaTeX could not read, and each request that left this machine.
"""

import argparse
import shutil
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

WIDTHS = {1400: 1000, 400: 800}  # the height of a screen by its width
SCHEMES = ("light", "dark")
TALLEST = 6000  # pixels of a page that a picture shows

FAULTS = """() => {
  const found = [];
  const wide = document.scrollingElement.scrollWidth;
  if (wide > innerWidth) {
    const far = [...document.querySelectorAll('article *')]
      .filter(e => e.getBoundingClientRect().right > innerWidth + 1
                   && !e.closest('pre, .table-wrapper, .katex-display, .sidebar-drawer'))
      .slice(0, 3).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40));
    found.push(`${wide} pixels wide: ${far.join(' | ')}`);
  }
  for (const error of document.querySelectorAll('.katex-error'))
    found.push('formula: ' + error.textContent.slice(0, 80));
  if (innerWidth >= 1000)
    for (const pre of document.querySelectorAll('pre'))
      if (pre.scrollWidth > pre.clientWidth + 1 && !pre.closest('.output'))
        found.push(`code ${pre.scrollWidth} in ${pre.clientWidth}: `
                   + pre.textContent.split('\\n').reduce((a, b) => a.length > b.length ? a : b));
  return found;
}"""


def main():
    """Takes the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("html", type=Path, help="folder of the built pages")
    parser.add_argument("output", type=Path, help="folder for the pictures")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the pages' names")
    asked = parser.parse_args()
    pages = [
        page
        for page in sorted(asked.html.rglob("*.html"))
        if "_modules" not in page.parts and "_static" not in page.parts
        if not asked.only or any(part in str(page.relative_to(asked.html)) for part in asked.only)
    ]
    asked.output.mkdir(parents=True, exist_ok=True)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("request", _complain_if_remote)
        for page in pages:
            _photograph(tab, page, asked)
        browser.close()
    for width in WIDTHS:
        for scheme in SCHEMES:
            _contact_sheets(asked.output, width, scheme)


def _photograph(tab, page, asked):
    name = "-".join(page.relative_to(asked.html).with_suffix("").parts)
    tab.goto(page.resolve().as_uri(), wait_until="load")
    tab.evaluate("document.fonts.ready")
    for width, height in WIDTHS.items():
        tab.set_viewport_size({"width": width, "height": height})
        for fault in tab.evaluate(FAULTS):
            print(f"{name} at {width}: {fault}", flush=True)
        length = min(tab.evaluate("document.scrollingElement.scrollHeight"), TALLEST)
        for scheme in SCHEMES:
            tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            tab.screenshot(
                path=asked.output / f"{width}-{scheme}-{name}.png",
                full_page=True,
                clip={"x": 0, "y": 0, "width": width, "height": length},
            )


def _complain_if_remote(request):
    if not request.url.startswith(("file:", "data:")):
        print(f"a request to {request.url}", flush=True)


def _contact_sheets(folder, width, scheme, across=5, each=12):
    paths = sorted(folder.glob(f"{width}-{scheme}-*.png"))
    scale = 380 / width
    cell = (380, 620)
    for first in range(0, len(paths), each):
        chosen = paths[first : first + each]
        rows = -(-len(chosen) // across)
        sheet = Image.new("RGB", (across * cell[0], rows * cell[1]), "#888")
        for i, path in enumerate(chosen):
            with Image.open(path) as picture:
                picture = picture.convert("RGB").resize(
                    (cell[0] - 8, round(picture.height * scale)), Image.Resampling.LANCZOS
                )
            picture = picture.crop((0, 0, cell[0] - 8, cell[1] - 24))
            corner = (i % across * cell[0] + 4, i // across * cell[1] + 20)
            sheet.paste(picture, corner)
            ImageDraw.Draw(sheet).text((corner[0], corner[1] - 16), path.stem, fill="white")
        sheet.save(folder / f"sheet-{width}-{scheme}-{first // each}.png")


if __name__ == "__main__":
    main()
