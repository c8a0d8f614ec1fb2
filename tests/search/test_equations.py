"""Every equation against NumPy, for generated numbers and gradients.

Eager steps take hyperparameters as arguments of what is compiled, so a case costs milliseconds.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search.counting import count, long, short
from search.equations import RULES, Case, check

from lion_jax import primitives
from lion_jax.primitives import signs


@st.composite
def cases(draw, name):
    """A rule's numbers and a seed for its gradients."""
    numbers = {n: draw(st.sampled_from(range_)) for n, range_ in RULES[name].ranges.items()}
    return Case(
        name,
        numbers,
        seed=draw(st.integers(0, 2**32 - 1)),
        scale=draw(st.sampled_from([1e-3, 0.3, 1.0, 30.0])),
        sparse=draw(st.booleans()),
    )


every_rule = pytest.mark.parametrize("name", RULES)


@every_rule
@short(4)
@given(st.data())
def test_a_rule_is_its_equation(name, data):
    check(data.draw(cases(name)))
    count("equals its equation in NumPy")


@pytest.mark.slow
@every_rule
@long(120)
@given(st.data())
def test_a_rule_is_its_equation_at_length(name, data):
    check(data.draw(cases(name)))
    count("equals its equation in NumPy")


@pytest.mark.slow
@every_rule
@long(4)
@given(st.data())
def test_a_compiled_rule_with_constants_is_its_equation(name, data):
    """Constants may have another form of the equation, and XLA another order of operations."""
    check(data.draw(cases(name)), jit=True)
    count("equals its equation in NumPy, compiled")


def test_every_public_primitive_has_an_equation():
    """So that a new one cannot come without."""
    public = {
        name
        for module in (primitives, signs)
        for name, x in vars(module).items()
        if hasattr(x, "static_args") and x.__module__.startswith("lion_jax.primitives")
    }
    assert len(public) > 20
    missing = {name for name in public if not any(rule.startswith(name) for rule in RULES)}
    assert not missing
