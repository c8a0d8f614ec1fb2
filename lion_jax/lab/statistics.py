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
        """Tells whether the interval includes 0, or there is no interval."""
        return not (self.low > 0 or self.high < 0)


def difference(values: np.ndarray, comparisons: int = 1) -> Difference:
    """The mean of values, and its interval, corrected for a number of comparisons."""
    with np.errstate(invalid="ignore"):
        mean, half = float(values.mean()), float(half_interval(values, comparisons))
    return Difference(mean, mean - half, mean + half)


def form_of(value: float) -> str:
    """The format of a figure and of its differences: four digits or a few more."""
    if 0.1 <= abs(value) < 1000 or value == 0:
        return ".4f"
    return ".5f" if 0.01 <= abs(value) < 0.1 else ".4g"


def counted(count: int, noun: str) -> str:
    """A number of things, in words: one trial, 2 trials, 3 studies."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"one {noun}" if count == 1 else f"{count} {plural}"


def corrected_for(comparisons: int) -> str:
    """A remark on intervals, where several of them stand side by side."""
    return f", corrected for {comparisons} comparisons" if comparisons > 1 else ""


def in_words(mean: float, error: float, form: str, sign: str = "") -> str:
    """A figure with its error, which is a question mark where there is none.

    `sign` is ``"+"`` for differences.
    """
    return f"{mean:{sign}{form}} ± " + ("?" if math.isnan(error) else f"{error:{form}}")


def difference_with_tuning(
    values: np.ndarray, without_each: np.ndarray, comparisons: int = 1
) -> Difference:
    """The mean of some values, its interval widened by the luck of tuning.

    The variance of the mean over seeds and the jackknife's over studies are added, and their
    degrees of freedom combined (Tukey 1958; Welch 1947).

    Args:
      values: one for each seed.
      without_each: what the mean would be if tuning had gone without one study, for each of them.
      comparisons: as of :func:`half_interval`.
    """
    seeds, studies = len(values), len(without_each)
    with np.errstate(invalid="ignore"):
        mean = float(values.mean())
        of_seeds = float(standard_error(values)) ** 2
        of_tuning = float((studies - 1) * without_each.var())
    variance = of_seeds + of_tuning
    if not variance > 0:  # nothing varies, or there is one seed only
        return Difference(mean, mean - variance, mean + variance)
    freedom = variance**2 / (of_seeds**2 / (seeds - 1) + of_tuning**2 / max(studies - 1, 1))
    half = _quantile(comparisons, freedom) * math.sqrt(variance)
    return Difference(mean, mean - half, mean + half)


def comparisons_among(rules: int, is_to_one: bool) -> int:
    """The number of differences that a comparison shows: to a named rule, or among all pairs.

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
    return _quantile(comparisons, max(values.shape[-1] - 1, 1)) * standard_error(values)


def _quantile(comparisons: int, freedom: float) -> float:
    return float(scipy.stats.t.ppf(1 - 0.025 / comparisons, freedom))


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
