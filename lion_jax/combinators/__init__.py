"""A transformation in, a transformation out; they know no algorithm by name."""

from lion_jax.combinators.lookahead import LookaheadState as LookaheadState
from lion_jax.combinators.lookahead import lookahead as lookahead
from lion_jax.combinators.lookahead import slow_params as slow_params
from lion_jax.combinators.scout import ScoutState as ScoutState
from lion_jax.combinators.scout import scout as scout
