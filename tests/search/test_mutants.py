"""Wrong equations are caught: each mutant by a fast test that is named beside it."""

import functools

import pytest
from search import test_equations
from search.counting import count
from search.mutants import MUTANTS, applied

pytestmark = pytest.mark.slow


@functools.cache
def right(rule):
    """The test passes without a mutant."""
    test_equations.test_a_rule_is_its_equation(name=rule)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_killed_by_the_test_beside_it(mutant):
    right(mutant.rule)
    with applied(mutant), pytest.raises(AssertionError):
        test_equations.test_a_rule_is_its_equation(name=mutant.rule)
    print(f"{mutant.name}\n    killed by {mutant.killer}")
    count("mutants killed")
