"""The README's promises: its examples run, its commands are those of CI, it stays short."""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(text, language):
    found = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def test_it_is_short():
    assert len(README.splitlines()) <= 110


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/index.md",
        "docs/arguments.md",
        "docs/design.md",
        "docs/training-loop.md",
        "docs/precision.md",
        "docs/many-chips.md",
        "docs/state.md",
        "docs/finding-a-learning-rate.md",
        pytest.param("docs/your-model.md", marks=pytest.mark.slow),
    ],
)
def test_its_python_runs(page):
    examples = blocks((ROOT / page).read_text(), "python")
    assert examples
    namespace = {}  # a reader goes from one to the next
    for example in examples:
        exec(compile(example, page, "exec"), namespace)


def test_the_loop_is_twelve_lines_and_learns(capsys):
    (example,) = blocks(README, "python")
    assert len(example.splitlines()) == 12
    exec(example, {})
    assert float(capsys.readouterr().out.split()[-1]) < 0.01


def test_its_commands_are_what_ci_runs():
    (commands,) = blocks(README, "sh")
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    first, second = (line.split("#")[0].strip() for line in commands.splitlines())
    assert first == "pip install uv && uv run lion-jax compare"
    assert any(line.startswith("uv run lion-jax compare") for line in ci)
    assert second == "uv run pytest"
    assert second in ci


@pytest.mark.parametrize("page", ["README.md", ".github/CONTRIBUTING.md"])
def test_its_links_lead_somewhere(page):
    path = ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())
    assert links
    for link in links:
        assert (path.parent / link).exists(), link
