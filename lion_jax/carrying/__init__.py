"""An optimizer state carried over to a changed chain."""

from lion_jax.carrying.carry import CarryReport as CarryReport
from lion_jax.carrying.carry import carry_state as carry_state
