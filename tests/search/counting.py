"""Counts of generated cases, and the settings of short and long searches."""

import collections
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings

COUNTS: collections.Counter[str] = collections.Counter()
# Begins the name of what is asserted of cases that another property has counted.
AGAIN = "of these, "
# CI's slow part generates and asserts at least so many.
LEAST_IN_SLOW_RUN = 20_000
SEED = "LION_JAX_SEED"
_COMMON = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def seed_of_run() -> int:
    """The seed of the long searches: that of the environment, which the first to ask sets anew.

    Workers inherit the environment of the process that starts them.
    """
    return int(os.environ.setdefault(SEED, str(random.SystemRandom().randrange(2**32))))


def count(what: str, cases: int = 1) -> None:
    """Notes that a property was asserted of so many further cases."""
    COUNTS[what] += cases


def cases(counts: collections.Counter[str]) -> int:
    """The number of inputs that were generated and judged, each once."""
    others = sum(n for what, n in counts.items() if what.startswith(AGAIN))
    return counts.total() - others - counts["mutants killed"]


def short(examples: int) -> Any:
    """A search that is the same in every run; what it finds it tells as it is."""
    phases = [Phase.explicit, Phase.generate]
    return settings(_COMMON, max_examples=examples, derandomize=True, database=None, phases=phases)


def long(examples: int) -> Callable[[Any], Any]:
    """A search from the seed of the run."""

    def decorate(test):
        return seed(seed_of_run())(settings(_COMMON, max_examples=examples)(test))

    return decorate


class Reporter:
    """Adds up the counts of all workers, prints them, and fails a slow run of too few."""

    def __init__(self):
        self.counts: collections.Counter[str] = collections.Counter()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        """Adds the counts of a worker that has ended."""
        del error
        self.counts.update(getattr(node, "workeroutput", {}).get("searched", {}))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        """A worker hands its counts over; the process that started it judges them."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["searched"] = dict(COUNTS)
            return
        self.counts.update(COUNTS)
        if session.exitstatus == 0 and self.is_too_little(session.config):
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter, config):
        """Prints the counts and the seed."""
        if not self.counts:
            return
        terminalreporter.section("generated cases")
        for what, n in sorted(self.counts.items(), key=lambda item: item[0].startswith(AGAIN)):
            terminalreporter.write_line(f"{n:7,}  {what}")
        seed = f"the long searches' seed: {SEED}={seed_of_run()}"
        total = f"{cases(self.counts):7,}  in all, each once; {seed}"
        terminalreporter.write_line(total)
        if self.is_too_little(config):
            least = f"a run of all slow tests must search at least {LEAST_IN_SLOW_RUN:,} cases"
            terminalreporter.write_line(least, red=True)

    def is_too_little(self, config) -> bool:
        """Tells whether a run of all slow tests has searched less than it must."""
        is_whole = config.args_source is config.ArgsSource.TESTPATHS and not config.option.keyword
        is_slow = config.option.markexpr == "slow"
        return is_whole and is_slow and cases(self.counts) < LEAST_IN_SLOW_RUN
