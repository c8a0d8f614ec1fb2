"""The notebooks run from top to bottom, and are committed with their outputs."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_is_one():
    assert NOTEBOOKS


@pytest.mark.slow
@every_notebook
def test_it_runs(path):
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    assert has_picture(notebook)


@every_notebook
def test_it_is_committed_with_its_outputs(path):
    assert has_picture(nbformat.read(path, as_version=4))


def has_picture(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return any("image/png" in output.get("data", {}) for output in outputs)
