"""Carries an optimizer state over to a changed chain."""

from lion_jax.carrying.carry import CarryReport, carry_state

__all__ = [
    "CarryReport",
    "carry_state",
]
__dir__ = __all__.copy  # TAB offers no more
