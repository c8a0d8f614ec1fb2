"""Sphinx configuration."""

import shutil
import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

from elsewhere import inventories  # noqa: E402

# Sphinx reads nothing outside its own folder.
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True)

project = "lion_jax"
author = "The lion_jax authors"
copyright = "2026, The lion_jax authors"
release = version = version_of("lion-jax")

extensions = [
    "formulas",
    "myst_nb",
    "names",
    "offline",
    "signatures",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_codeautolink",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_extensions", "**.ipynb_checkpoints"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"lion_jax {release}"
html_math_renderer = "katex"

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks carry their outputs; the tests execute them

autodoc_member_order = "bysource"
autosummary_generate = False
suppress_warnings = ["autosummary.import_cycle"]  # the tables show full names on purpose
default_role = "code"
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 70
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False  # the signature has them

intersphinx_mapping = inventories(HERE / "_build" / "inventories")
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app):
    """Notebooks are beside `docs/` on a forge, and within it while Sphinx reads."""

    def read(app, page, source):
        source[0] = source[0].replace("](../notebooks/", "](notebooks/")

    app.connect("source-read", read)
