"""Sphinx configuration."""

import shutil
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
# Sphinx reads nothing outside its own folder.
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True)

project = "lion_jax"
author = "The lion_jax authors"
copyright = "2026, The lion_jax authors"
release = version = version_of("lion-jax")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "furo"
html_static_path = ["_static"]
html_title = f"lion_jax {release}"

myst_enable_extensions = ["amsmath", "dollarmath"]
nb_execution_mode = "off"  # notebooks carry their outputs; the tests execute them

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what is allowed
napoleon_numpy_docstring = False
napoleon_use_rtype = False
