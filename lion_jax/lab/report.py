"""The result of a command: a table, a summary, a picture, records; saved, shown and loaded."""

import base64
import dataclasses
import html
import importlib
import io
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import cattrs
import numpy as np
from rich.console import Console, RenderableType

from lion_jax.lab import files, screen
from lion_jax.lab.errors import RequestError, known
from lion_jax.lab.plots import Picture

RESULT, RECORDS = "result.json", "records.csv"
PICTURES = ("png", "svg", "pdf")
_WIDTH = 110  # of a table in a notebook


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class Report:
    """The result of a command, of plain data.

    Attributes:
      provenance: date, command, device and versions.
      settings: the settings asked for.
      missing: the rules that an interruption left undone.
    """

    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()
    command: ClassVar[str]
    picture_names: ClassVar[tuple[str, ...]] = ("picture",)

    def table(self) -> RenderableType:
        """The figures as a table of rich, which prints it and shows it in a notebook."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """Sentences on what the figures say."""
        raise NotImplementedError

    def picture(self) -> Picture:
        """The figures as a picture of matplotlib."""
        raise NotImplementedError

    def pictures(self) -> dict[str, Picture]:
        """All pictures by their files' names; the first is that of :meth:`picture`."""
        return {"picture": self.picture()}

    def records(self) -> list[dict[str, Any]]:
        """One record for each measurement: plain values by name."""
        raise NotImplementedError

    def headline(self) -> str:
        """The result in a few words."""
        raise NotImplementedError

    def summary(self) -> list[Any]:
        """One record for each row of the table, for readers of the JSON."""
        return []

    def show(self) -> None:
        """Prints the table and the sentences."""
        screen.show(self.table(), self.lines(), RESULT)

    @property
    def is_empty(self) -> bool:
        """Tells whether an interruption left nothing to show."""
        return not self.records()

    @property
    def is_finished(self) -> bool:
        """Tells whether every rule was run."""
        return not self.missing

    def save(self, folder: str | Path, picture: str = "png") -> list[Path]:
        """Writes picture, records and the whole result into a folder, after all are ready.

        Args:
          folder: where to; created if need be. Files of an earlier result are replaced.
          picture: ``"png"``, ``"svg"`` or ``"pdf"``.

        Returns:
          The paths written: ``result.json``, which :func:`lion_jax.lab.load` reads;
          ``records.csv``; and ``picture.png`` and whatever else :meth:`pictures` has, unless there
          is nothing to draw.

        Raises:
          RequestError: an unknown kind of picture, or a folder that cannot be written to; nothing
            was.
        """
        known("picture", picture, PICTURES)
        writers: dict[str, Callable[[Path], None]] = {}
        if not self.is_empty:
            for name, drawn in self.pictures().items():
                writers[f"{name}.{picture}"] = drawn.savefig
        written = files.write(Path(folder), writers | self._texts())
        self._drop_pictures(Path(folder), kept=writers)
        return written

    def checkpoint(self, folder: Path) -> None:
        """Writes records and result, and drops the picture of what was there before."""
        files.write(folder, self._texts())
        self._drop_pictures(folder)

    def _drop_pictures(self, folder: Path, kept: Iterable[str] = ()) -> None:
        """Removes the pictures of an earlier result."""
        stale = {f"{name}.{kind}" for name in self.picture_names for kind in PICTURES} - set(kept)
        for name in stale:
            (folder / name).unlink(missing_ok=True)

    def _texts(self) -> dict[str, Callable[[Path], None]]:
        document = {
            "command": self.command,
            "is_finished": self.is_finished,
            "provenance": self.provenance,
            "settings": self.settings,
            "summary": [] if self.is_empty else self.summary(),
            "result": _CONVERTER.unstructure(self),
        }
        return {
            RECORDS: lambda path: files.write_csv(self.records(), path),
            RESULT: lambda path: files.write_json(document, path),
        }

    def __repr__(self) -> str:
        """The result in a line."""
        missing = ", ".join(self.missing[:3]) + (", ..." if len(self.missing) > 3 else "")
        state = "" if self.is_finished else f", unfinished: {missing} not run"
        return (
            f"{type(self).__name__}({'nothing yet' if self.is_empty else self.headline()}{state})"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The table, the sentences and the picture, for a notebook."""
        del include, exclude
        if self.is_empty:
            return {"text/plain": repr(self)}
        console = Console(
            record=True, width=_WIDTH, file=io.StringIO(), force_jupyter=False, markup=False
        )
        console.print(self.table())
        table = console.export_html(
            inline_styles=True, code_format="<pre style='line-height:1.2'>{code}</pre>"
        )
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in self.lines())
        encoded = base64.b64encode(self.picture()._repr_png_()).decode()
        image = f"<img style='max-width:100%' src='data:image/png;base64,{encoded}'>"
        return {"text/plain": repr(self), "text/html": table + lines + image}

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The result of a document that :meth:`save` wrote."""
        return _CONVERTER.structure(document, cls)


def load(folder: str | Path) -> Any:
    """Reads a result back from the folder that it was saved to, finished or not.

    Raises:
      RequestError: there is no result, or it is damaged.
    """
    path = Path(folder) / RESULT
    try:
        document = json.loads(path.read_text())
        of = importlib.import_module(f"lion_jax.lab.{document['command']}.report").REPORT
        return of.from_document(document["result"])
    except OSError as error:
        raise RequestError(
            f"there is no result in {folder} ({error.strerror or error}); "
            "possible: a folder that lion-jax or save(folder) wrote"
        ) from error
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RequestError(f"cannot read {path} ({reason})") from error


def _converter() -> cattrs.Converter:
    """A converter of results to plain values and back; null stands for NaN."""
    converter = cattrs.Converter()
    converter.register_unstructure_hook(
        np.ndarray, lambda x: {"dtype": x.dtype.name, "values": x.tolist()}
    )
    converter.register_structure_hook(
        np.ndarray, lambda x, _: np.array(_with_nan(x["values"]), x["dtype"])
    )
    converter.register_structure_hook(float, lambda x, _: math.nan if x is None else float(x))
    return converter


def _with_nan(x: Any) -> Any:
    if isinstance(x, list):
        return [_with_nan(item) for item in x]
    return math.nan if x is None else float(x) if isinstance(x, str) else x


_CONVERTER = _converter()
