"""A warning for each script, style or picture that a built page would fetch from elsewhere."""

import re
from pathlib import Path

from sphinx.util import logging

ASSET = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>"""
)
log = logging.getLogger(__name__)


def setup(app):
    """Registers the search, after all pages are written."""
    app.connect("build-finished", _search)
    return {"parallel_read_safe": True}


def _search(app, exception):
    if exception is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            for asset in ASSET.findall(page.read_text()):
                if 'rel="canonical"' not in asset:
                    log.warning("%s fetches %s", page.relative_to(app.outdir), asset)
