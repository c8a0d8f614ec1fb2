"""Reading a learning rate off the loss of a run whose learning rate grows."""

import itertools
import math
from typing import NamedTuple

import numpy as np

LEAST_STEPS = 40
CRITERION = "the learning rate at which the smoothed loss is lowest"
_WINDOWS = 20  # a twentieth of the steps decides where the loss begins, and what is smoothed over
_CLEAR = 5.0  # standard errors over a window; without any learning a loss falls by up to about four
_NOTICEABLE = 0.01  # share of the first loss: what it has to fall by where it has no noise
_EXPLODED = 100.0  # first losses: whatever comes after it does not count


class Reading(NamedTuple):
    """The reading of one run: its smoothed losses and the learning rate that they suggest.

    Attributes:
      smoothed: the smoothed losses before the divergence, of shape (steps until then,).
      suggestion: the learning rate at which they are lowest; NaN where there is an objection.
      steepest: the learning rate at which they fall fastest before; NaN in that case too.
      diverged_at: the learning rate after the lowest loss at which the smoothed loss is back where
        it began, or the loss is not finite; NaN where that never happens.
      objection: why there is no suggestion and what to try, in words; empty where there is one.
    """

    smoothed: np.ndarray
    suggestion: float
    steepest: float
    diverged_at: float
    objection: str


def read(learning_rates: np.ndarray, losses: np.ndarray) -> Reading:
    """Reads one run.

    Args:
      learning_rates: ascending and evenly spaced on a logarithmic scale, of shape (steps,).
      losses: of any sign, of shape (steps,).

    Returns:
      The :class:`Reading`.
    """
    window = len(losses) // _WINDOWS
    end = _before(~np.isfinite(losses))
    if end < window:
        objection = f"the loss is not finite after {end} steps: try a smaller low"
        return Reading(losses[:end], math.nan, math.nan, float(learning_rates[end]), objection)

    first = losses[:window].mean()
    size = max(abs(first), 10 * losses[:window].std())
    # An explosion should end the run, not outweigh all before it.
    end = _before(~(losses < first + _EXPLODED * size))
    smoothed = smooth(np.minimum(losses[:end], first + 3 * size), window)
    end = _before(smoothed > first + size)
    lowest = int(np.argmin(smoothed[:end])) if end else 0
    objection = ""
    if lowest < window or not _falls(first, smoothed[lowest], losses[: lowest + 1], window):
        is_over = end == len(losses)
        objection = (
            "the loss never falls by clearly more than its noise"
            f"{', nor does it diverge' if is_over else ''}: try larger batches, more steps or "
            f"a {'larger high' if is_over else 'smaller low'}"
        )
    elif end == len(losses) and lowest >= end - window:
        objection = "the loss still falls at the largest learning rate: try a larger high"
    else:
        end = lowest + _before(smoothed[lowest:end] > first)

    rates = [*learning_rates.tolist(), math.nan]
    if objection:
        return Reading(smoothed[:end], math.nan, math.nan, rates[end], objection)
    steepest = int(np.argmin(np.gradient(smoothed[: lowest + 1])))
    return Reading(smoothed[:end], rates[lowest], rates[steepest], rates[end], "")


def _before(is_over: np.ndarray) -> int:
    """Counts the steps before the first where it is over; all steps where it never is."""
    return int(np.argmax(is_over)) if is_over.any() else len(is_over)


def _falls(first: float, last: float, losses: np.ndarray, window: int) -> bool:
    """Tells whether a smoothed loss falls from `first` to `last` by more than chance."""
    standard_error = np.diff(losses).std() / math.sqrt(2 * window)
    return first - last > max(_CLEAR * standard_error, _NOTICEABLE * abs(first))


def smooth(losses: np.ndarray, window: int) -> np.ndarray:
    """An exponential average over both sides, its weights falling by 1 - 1 / window at each step.

    At the ends it is an average over what there is, as a bias-corrected one.
    """
    decay = 1 - 1 / window

    def sums(x):
        return np.array(list(itertools.accumulate(x, lambda total, term: decay * total + term)))

    def both_sides(x):
        return sums(x) + sums(x[::-1])[::-1] - x

    return both_sides(losses) / both_sides(np.ones_like(losses))
