"""The weights that a learning rate cannot move."""

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.checks import check_storable
from lion_jax._core.dtypes import at_least_float32, round_to
from lion_jax._core.kinds import NON_NEGATIVE
from lion_jax._core.types import PyTree


def audit_dead_steps(params: optax.Params, learning_rate: jax.typing.ArrayLike) -> PyTree:
    r"""The share of weights in each leaf that a step of the learning rate's size cannot move.

    .. math::

      \frac{1}{d} \#\{ i : \operatorname{store}(\theta_i + \eta) = \theta_i =
        \operatorname{store}(\theta_i - \eta) \}

    with sums in at least float32 and :math:`\operatorname{store}` rounding to the parameter's
    dtype. Such a weight does not move until steps grow, however many there are. Of weights drawn
    from N(0, 0.02) these are

    ========== ====== ====== ====== ======
    dtype      1e-3   1e-4   3e-5   1e-5
    ========== ====== ====== ====== ======
    bfloat16   0%     12%    70%    84%
    float16    0%     0%     0.2%   12%
    ========== ====== ====== ====== ======

    Use it for rules whose steps have the size of the learning rate: Lion, where each entry moves by
    exactly that, and Adam and its relatives, where most entries move by less, so that more are
    dead. It does not apply to SGD and layerwise rules, whose steps have the size of gradients or
    weights. A schedule that decays to 0 leaves every weight dead in the end: ask about several
    counts, to see how early that happens. The remedies are :func:`round_stochastically` or more
    bits.

    Args:
      params: the parameters, as they are stored: a tree of float16, bfloat16, float32 or float64.
      learning_rate: :math:`\eta` >= 0, in the parameters' units; of a schedule ``schedule(count)``.

    Returns:
      A tree like the parameters of shares in [0, 1], float32 of shape (). A weight that is not
      finite counts as dead; a leaf of size 0 has a share of 0.

    Raises:
      ValueError: ``learning_rate`` out of range.
      TypeError: a schedule, or a leaf of another dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax.precision import audit_dead_steps
      >>> kernel = jnp.array([0.5, 0.1, 0.01, 0.001], jnp.bfloat16)
      >>> shares = audit_dead_steps({"kernel": kernel, "scale": jnp.ones(3)}, 1e-4)
      >>> print(shares["kernel"], shares["scale"])
      0.5 0.0
    """
    if callable(learning_rate):
        raise TypeError(
            f"learning_rate must be a number, finite and >= 0; got the schedule {learning_rate!r}. "
            "Try learning_rate=schedule(count), at the count of updates that you ask about."
        )
    NON_NEGATIVE.constant().trying("1e-4").check("learning_rate", learning_rate)
    check_storable(params, "audit_dead_steps", "None in its place")
    return jax.tree.map(lambda p: _dead_share(p, learning_rate), params)


@jax.jit
def _dead_share(p: jax.Array, learning_rate: jax.Array) -> jax.Array:
    dtype, wide = p.dtype, at_least_float32(p)
    # Stored again, since a compiler may have dropped the cast to p's dtype.
    p, lr = round_to(p.astype(wide), dtype), jnp.asarray(learning_rate, wide)
    is_alive = (round_to(p + lr, dtype) > p) | (round_to(p - lr, dtype) < p)
    dead = jnp.sum(~is_alive, dtype=jnp.uint32)  # float32 could not count beyond 2**24
    return dead.astype(jnp.float32) / max(p.size, 1)
