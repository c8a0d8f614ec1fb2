"""The notebooks run from top to bottom, make a claim, and are committed with their outputs."""

import os
import re
from pathlib import Path

import nbclient
import nbformat
import pytest
import quick

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
MOST_LINES = 60
LONGER = {"training": "a whole run to copy, with checkpoints and early stopping"}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_is_one():
    assert NOTEBOOKS


@pytest.mark.slow
@every_notebook
def test_it_runs_with_a_smaller_budget(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = smaller(cell.source)
    client = nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3")
    client.execute(env=os.environ | {"XLA_FLAGS": quick.flags()})
    assert has_picture(notebook)


@every_notebook
def test_it_begins_with_a_title_and_a_claim(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert re.match(r"# \S", first.source)
    assert "**Claim. " in first.source


@every_notebook
def test_it_is_short(path):
    lines = [line for cell in code(path) for line in cell.source.splitlines() if line.strip()]
    assert (len(lines) <= MOST_LINES) != (path.stem in LONGER), f"{len(lines)} lines of code"


@every_notebook
def test_it_is_committed_with_its_outputs(path):
    assert has_picture(nbformat.read(path, as_version=4))
    counts = [cell.execution_count for cell in code(path)]
    assert counts == list(range(1, len(counts) + 1)), "was not run once, from top to bottom"


@every_notebook
def test_its_outputs_have_neither_errors_nor_warnings(path):
    kinds = [(output.output_type, output.get("name")) for output in outputs(path)]
    assert all(kind != "error" and name != "stderr" for kind, name in kinds)


@every_notebook
def test_its_outputs_name_no_path_of_a_machine(path):
    assert not re.findall(r"/(?:tmp|home|root|work|usr|Users)\b\S*", text_of(path))


@every_notebook
def test_its_text_quotes_what_its_outputs_show(path):
    cells = nbformat.read(path, as_version=4).cells
    text = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert not set(re.findall(r"\b0\.\d{4}\b", text)) - set(re.findall(r"0\.\d{4}", text_of(path)))


def smaller(source):
    """The cell with fewer steps, trials, studies and seeds, but enough of them for intervals."""
    for budget, most in {"steps": 40, "trials": 2, "studies": 2, "seeds": 3}.items():
        number = rf'(?<=\b{budget}=)\d+|(?<=\b{budget}": )\d+'
        source = re.sub(number, lambda found, most=most: str(min(int(found[0]), most)), source)
    return source


def code(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def outputs(path):
    return [output for cell in code(path) for output in cell.outputs]


def text_of(path):
    kinds = ("text/plain", "text/html")
    texts = [
        [o.get("text"), *(o.get("data", {}).get(kind) for kind in kinds)] for o in outputs(path)
    ]
    return "\n".join(text for of_output in texts for text in of_output if text)


def has_picture(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return any("image/png" in output.get("data", {}) for output in outputs)
