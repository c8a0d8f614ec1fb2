"""The combinators as plain NumPy objects in float64: an opinion independent of the library's.

Each has `step(p, g)`, which returns the parameters after a gradient, for one array.
"""

import copy

import numpy as np


class Momentum:
    """Heavy-ball SGD, to wrap."""

    def __init__(self, rate=0.1, momentum=0.9):
        self.rate, self.momentum, self.m = rate, momentum, 0.0

    def step(self, p, g):
        self.m = self.momentum * self.m + g
        return p - self.rate * self.m


class Lookahead:
    """Zhang et al. 2019, Algorithm 1."""

    def __init__(self, inner, p, period, size):
        self.inner, self.slow, self.period, self.size, self.t = inner, p, period, size, 0

    def step(self, p, g):
        p, self.t = self.inner.step(p, g), self.t + 1
        if self.t % self.period == 0:
            p = self.slow = self.slow + self.size * (p - self.slow)
        return p


class Average:
    """Keras's moving average of the parameters, which starts at the first of them."""

    def __init__(self, inner, decay, every):
        self.inner, self.decay, self.every, self.t, self.average = inner, decay, every, 0, None

    def step(self, p, g):
        p, self.t = self.inner.step(p, g), self.t + 1
        decay = 0.0 if self.t == 1 else self.decay
        self.average = p if self.t == 1 else decay * self.average + (1 - decay) * p
        return self.average if self.t % self.every == 0 else p


class Accumulation:
    """One step by the mean of every so many gradients."""

    def __init__(self, inner, every):
        self.inner, self.every, self.seen = inner, every, []

    def step(self, p, g):
        self.seen.append(g)
        if len(self.seen) < self.every:
            return p
        mean, self.seen = np.mean(self.seen, axis=0), []
        return self.inner.step(p, mean)


class Guard:
    """No step by a gradient that is not finite; but loss scales within still fall."""

    def __init__(self, inner):
        self.inner = inner

    def step(self, p, g):
        if np.all(np.isfinite(g)):
            return self.inner.step(p, g)
        tried = copy.deepcopy(self.inner)
        tried.step(p, g)
        for mine, theirs in zip(chain(self.inner), chain(tried), strict=True):
            if isinstance(mine, LossScale):
                mine.scale, mine.finite = theirs.scale, theirs.finite
        return p


class LossScale:
    """Micikevicius et al. 2018, Section 3.2, in the order of Keras's LossScaleOptimizer."""

    def __init__(self, inner, scale, interval):
        self.inner, self.scale, self.interval, self.finite = inner, scale, interval, 0

    def step(self, p, g):
        if not np.all(np.isfinite(g)):
            self.scale, self.finite = self.scale / 2, 0
            return p
        p, self.finite = self.inner.step(p, g / self.scale), self.finite + 1
        if self.finite == self.interval:
            self.scale, self.finite = self.scale * 2, 0
        return p


def chain(outermost):
    """An object and what it wraps, from the outside in."""
    return [outermost, *chain(outermost.inner)] if hasattr(outermost, "inner") else [outermost]
