"""Means over seeds and their intervals, and ranges of good learning rates."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import scipy.stats


@dataclasses.dataclass(frozen=True)
class Band:
    """A range of good learning rates.

    Attributes:
      low: its lower end, interpolated between the rates tried.
      high: its upper end.
      is_open: whether it reaches an end of what was tried, so that it may be wider.
    """

    low: float
    high: float
    is_open: bool

    @property
    def factor(self) -> float:
        """The upper end divided by the lower one."""
        return self.high / self.low


class Difference(NamedTuple):
    """A mean over seeds and its interval, NaN for a single seed."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2

    @property
    def could_be_chance(self) -> bool:
        """Tells whether the interval holds 0, or is none."""
        return not (self.low > 0 or self.high < 0)


def difference(values: np.ndarray, comparisons: int = 1) -> Difference:
    """The mean of some values and its interval, one of so many that hold at once in 95%."""
    with np.errstate(invalid="ignore"):
        mean, half = float(values.mean()), float(half_interval(values, comparisons))
    return Difference(mean, mean - half, mean + half)


def form_of(value: float) -> str:
    """The format of a figure: four decimals, or four digits where they would say little."""
    return ".4f" if 0.01 <= abs(value) < 1000 or value == 0 else ".4g"


def in_words(mean: float, error: float, form: str, sign: str = "") -> str:
    """A figure with its error, which is a question mark where there is none.

    `sign` is ``"+"`` for differences.
    """
    return f"{mean:{sign}{form}} ± " + ("?" if math.isnan(error) else f"{error:{form}}")


def comparisons_among(rules: int, is_to_one: bool) -> int:
    """How many differences a comparison shows: to a rule named before, or among all pairs.

    Where the best rule is found by the same figures, any pair could have been shown.
    """
    return max(1, rules - 1 if is_to_one else rules * (rules - 1) // 2)


def standard_error(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the last axis; NaN for a single value."""
    count = values.shape[-1]
    if count == 1:
        return np.full(values.shape[:-1], np.nan)
    with np.errstate(invalid="ignore"):
        return values.std(axis=-1, ddof=1) / math.sqrt(count)


def half_interval(values: np.ndarray, comparisons: int = 1) -> np.ndarray:
    """Half the width of Student's interval for the mean over the last axis.

    Its level is 95%, or for several comparisons 1 - 0.05 / their number, so that all of them hold
    at once in at least 95% of cases (Bonferroni's correction; Dunn 1961).
    """
    level = 1 - 0.025 / comparisons
    return scipy.stats.t.ppf(level, max(values.shape[-1] - 1, 1)) * standard_error(values)


def good_band(rates: np.ndarray, scores: np.ndarray, within: float) -> Band:
    """The rates around the best whose score is less than `within` below its."""
    best = int(np.argmax(scores))
    surplus = scores - (scores[best] - within)
    log_rates = np.log(rates)
    low, is_low_open = _crossing(log_rates[: best + 1][::-1], surplus[: best + 1][::-1])
    high, is_high_open = _crossing(log_rates[best:], surplus[best:])
    return Band(math.exp(low), math.exp(high), is_low_open or is_high_open)


def _crossing(log_rates: np.ndarray, surplus: np.ndarray) -> tuple[float, bool]:
    """The log rate at which the surplus falls to 0, and False; else the last log rate, and True."""
    for i in range(1, len(surplus)):
        if surplus[i] < 0:
            if not np.isfinite(surplus[i]):
                return float(log_rates[i - 1]), False
            share = surplus[i - 1] / (surplus[i - 1] - surplus[i])
            return float(log_rates[i - 1] + share * (log_rates[i] - log_rates[i - 1])), False
    return float(log_rates[-1]), True
