"""The main job, at its full size."""

import pytest

from lion_jax import lab


@pytest.mark.slow
def test_digits_are_learned_and_the_result_is_told_straight():
    comparison = lab.compare("digits", ["lion", "adamw"])
    lion, adamw = (result.test for result in comparison.results)
    assert lion > 0.95
    assert adamw > 0.96
    assert not any(result.is_best_at_edge for result in comparison.results)
    winner = "lion" if lion >= adamw else "adamw"
    assert comparison.lines()[0].startswith(f"{winner} has the best test accuracy")
