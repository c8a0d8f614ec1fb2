"""Arguments that several commands share, and the readers of their values; imports no jax."""

import argparse
import math
from pathlib import Path
from typing import NoReturn


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names the defaults that are worth naming."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or not action.option_strings:
            return action.help
        return super()._get_help_string(action)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Wraps each line of a text by itself, so that a help text may be a list."""
        wrap = super()._split_lines
        return [part for line in text.splitlines() for part in wrap(line, width)]

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wraps each paragraph of a description by itself; indented lines stay as they are."""
        fill = super()._fill_text
        parts = text.split("\n\n")
        return "\n\n".join(
            part if part.startswith(" ") else fill(part, width, indent) for part in parts
        )


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line each."""

    def error(self, message: str) -> NoReturn:
        """Ends with the message, in one line whatever was given, and status 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.splitlines())}\n")


def add_task(parser: argparse._ActionsContainer) -> None:
    """Adds the task that rules are trained on."""
    parser.add_argument(
        "--task",
        default="digits",
        help="what to train: digits or text; with the extra 'tasks' also mnist, phonemes or "
        "diamonds; or a lab.Task of your own, as FILE.py:NAME. Arguments go in parentheses: "
        "'phonemes(size=2,tied=False)'",
    )


def add_rules(parser: argparse.ArgumentParser, default: str | None, otherwise: str = "") -> None:
    """Adds the rules to train; `otherwise` says what None stands for."""
    parser.add_argument(
        "--rules",
        default=default,
        help="update rules, separated by commas: names that lion-jax list shows, factories such "
        "as optax.adafactor, or a lab.Rule of your own, as FILE.py:NAME. Arguments go in "
        "parentheses: 'lion(b1=0.95)' fixes one, 'lion(weight_decay=(0.01,1.0))' tunes one in "
        "that range" + f" ({otherwise})" * bool(otherwise),
    )


def add_counts(parser: argparse.ArgumentParser, **counts: tuple[int, str]) -> None:
    """Adds whole numbers of at least 1, each with its default and its help."""
    for name, (default, text) in counts.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=count, default=default, metavar="N", help=text)


def add_batches(parser: argparse.ArgumentParser, *, schedule: bool = True) -> None:
    """Adds the size of a batch, and the schedule."""
    parser.add_argument(
        "--batch-size",
        type=count,
        metavar="N",
        help="examples in a batch (default: 64, or all if there are fewer)",
    )
    if schedule:
        parser.add_argument(
            "--schedule",
            default="cosine",
            help="cosine (a warm-up over a twentieth of the steps, then a decay to 0) or constant",
        )


def add_output(parser: argparse.ArgumentParser, folder: str) -> None:
    """Adds the folder of the result, and the format of its picture."""
    parser.add_argument(
        "--output",
        dest="folder",
        type=Path,
        default=Path(folder),
        metavar="DIR",
        help="folder for picture.png, records.csv and result.json, which lab.load reads back",
    )
    parser.add_argument(
        "--picture", choices=("png", "svg", "pdf"), default="png", help="format of the picture"
    )


def names(text: str) -> list[str]:
    """Splits a text at the commas that are in no parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def whole(text: str, least: int = 0) -> int:
    """A whole number."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {least}; got {text!r}"
        )
    return int(text)


def count(text: str) -> int:
    """A whole number of at least 1."""
    return whole(text, least=1)


def counts(text: str) -> list[int]:
    """Whole numbers of at least 1, between commas."""
    return [count(part.strip()) for part in text.split(",")]


def rate(text: str) -> float:
    """A learning rate."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a learning rate, finite and > 0, such as 1e-4; got {text!r}"
        )
    return value


def rates(text: str) -> float | dict[str, float]:
    """One learning rate, or several by rule."""
    if "=" not in text:
        return rate(text)
    pairs = [pair.rpartition("=") for pair in names(text)]
    by_rule = {rule.strip(): rate(value if rule else "") for rule, _, value in pairs}
    if len(by_rule) < len(pairs):
        raise argparse.ArgumentTypeError(f"must name each rule once; got {text!r}")
    return by_rule


def size(text: str) -> float:
    """A number of parameters."""
    units = {"K": 1e3, "M": 1e6, "B": 1e9}
    unit = units.get(text[-1:].upper(), 1)
    try:
        value = float(text if unit == 1 else text[:-1]) * unit
    except ValueError:
        value = math.nan
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(
            f"must be a number of parameters, such as 5e6, 124M or 1B; got {text!r}"
        )
    return value
