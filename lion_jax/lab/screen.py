"""Tables and sentences on a terminal of any width."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.jupyter import JupyterMixin
from rich.measure import Measurement
from rich.table import Table

_WIDTH = 110  # where the output is no terminal


class Tables(Group, JupyterMixin):
    """Several tables, which a notebook shows as it shows one."""


def show(figures: RenderableType, lines: Sequence[str], rest: str) -> None:
    """Prints a table and sentences, wrapped between words on a terminal.

    Args:
      figures: the table, or several.
      lines: the sentences.
      rest: the file with the columns that the screen is too narrow for.
    """
    screen = console()
    table, left_out = fit(figures, screen)
    screen.print(table)
    if left_out:
        screen.print(
            f"The screen is too narrow for: {', '.join(left_out)}. See {rest}.", highlight=False
        )
    for line in lines:
        screen.print(line, highlight=False, soft_wrap=not screen.is_terminal)


def console() -> Console:
    """The console that results are printed on; a wide one if the output is no terminal."""
    found = _Screen(markup=False)
    return found if found.is_terminal else _Screen(markup=False, width=_WIDTH)


class _Screen(Console):
    """A console that leaves it to the command line what a broken pipe means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def fit(renderable: RenderableType, screen: Console) -> tuple[RenderableType, list[str]]:
    """Drops the last columns of tables until they fit the console; says which."""
    if isinstance(renderable, Group):
        fitted = [fit(part, screen) for part in renderable.renderables]
        return Group(*(part for part, _ in fitted)), [name for _, names in fitted for name in names]
    left_out = []
    if isinstance(renderable, Table):
        while len(renderable.columns) > 2 and _least(renderable, screen) > screen.width:
            header = str(renderable.columns.pop().header)
            left_out.insert(0, " ".join(header.split()))
    return renderable, left_out


def _least(table: Table, screen: Console) -> int:
    """The width below which a table's cells would break."""
    title, caption = table.title, table.caption
    table.title = table.caption = None
    width = Measurement.get(screen, screen.options.update(width=10_000), table).maximum
    table.title, table.caption = title, caption
    return width
