"""The README's promises: its example learns, its commands are those of CI, it stays short."""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(text, language):
    found = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def test_it_is_short():
    assert len(README.splitlines()) <= 110


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
