"""PyTorch's one-cycle schedule, for the learning rate and for the momentum.

`OneCycleLR <https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.OneCycleLR.html>`_
is both; here they are two schedules.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.kinds import DECAY_RATE, FLAG, FRACTION, NON_NEGATIVE, POSITIVE, choice, integer
from lion_jax._core.rule import takes
from lion_jax._core.types import Scalar
from lion_jax.compat.torch._annealing import as_float, half_cosine

_CYCLE = {
    "total_steps": integer().or_none().trying("1000"),
    "epochs": integer().or_none().trying("10"),
    "steps_per_epoch": integer().or_none().trying("100"),
    "pct_start": FRACTION.constant(),
    "anneal_strategy": choice("cos", "linear"),
    "three_phase": FLAG,
}


@takes(
    max_lr=NON_NEGATIVE.constant().trying("0.1"),
    div_factor=POSITIVE.constant(),
    final_div_factor=POSITIVE.constant(),
    **_CYCLE,
)
def one_cycle_lr(
    max_lr: Scalar,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: Scalar = 0.3,
    anneal_strategy: str = "cos",
    *,
    div_factor: Scalar = 25.0,
    final_div_factor: Scalar = 1e4,
    three_phase: bool = False,
) -> optax.Schedule:
    r"""``OneCycleLR``: the learning rate rises to a maximum, then falls to almost 0.

    The rate goes from :math:`\eta_0 = \eta / d` at count 0 to :math:`\eta` at
    :math:`p = \rho T - 1`, then to :math:`\eta_0 / f` at :math:`T - 1`; with three phases it first
    goes back to :math:`\eta_0` at :math:`2p`. From count :math:`a` to :math:`b` it goes from
    :math:`x` to :math:`y` as

    .. math::

      \eta_t = x\, w\left(\frac{b - t}{b - a}\right) + y\, w\left(\frac{t - a}{b - a}\right),
        \qquad w(s) = \frac{1 - \cos \pi s}{2} \text{ or, linear, } s

    Bounds may be fractions. ``optax.cosine_onecycle_schedule`` peaks and ends a step later. After
    its last step torch goes one step beyond the cycle, below 0 if linear, and then raises; here the
    last rate stays. Where torch divides by zero, :math:`\rho T = 1`, this begins with the peak.
    torch cycles the momentum too, unless ``cycle_momentum=False``: here
    :func:`one_cycle_momentum` does.

    Args:
      max_lr: :math:`\eta` >= 0.
      total_steps: :math:`T` >= 1, in counts of updates.
      epochs: :math:`T` is their product with ``steps_per_epoch`` if it is not given itself.
      steps_per_epoch: see ``epochs``.
      pct_start: :math:`\rho` in [0, 1], the share of the steps on the way up.
      anneal_strategy: ``"cos"`` or ``"linear"``.
      div_factor: :math:`d` > 0.
      final_div_factor: :math:`f` > 0.
      three_phase: whether the way down has two parts.

    Returns:
      A schedule from the count t to the learning rate.

    Raises:
      ValueError, TypeError: an argument out of range, of the wrong type, or no number of steps.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> schedule = compat.torch.one_cycle_lr(
      ...     1.0, total_steps=6, pct_start=0.5, div_factor=4.0
      ... )
      >>> print(schedule(jnp.arange(8)).round(2))
      [0.25 0.62 1.   0.75 0.25 0.   0.   0.  ]

    References:
      Smith and Topin, `Super-Convergence: Very Fast Training of Neural Networks Using Large
      Learning Rates <https://arxiv.org/abs/1708.07120>`_, 2017.
    """
    total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
    initial_lr = max_lr / div_factor
    back = [initial_lr] if three_phase else []
    rates = [initial_lr, max_lr, *back, initial_lr / final_div_factor]
    return _one_cycle(rates, total_steps, pct_start, anneal_strategy)


@takes(base_momentum=DECAY_RATE.constant(), max_momentum=DECAY_RATE.constant(), **_CYCLE)
def one_cycle_momentum(
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: Scalar = 0.3,
    anneal_strategy: str = "cos",
    *,
    base_momentum: Scalar = 0.85,
    max_momentum: Scalar = 0.95,
    three_phase: bool = False,
) -> optax.Schedule:
    """``OneCycleLR``'s momentum: low while the learning rate is high.

    It goes between the counts of :func:`one_cycle_lr`: down to ``base_momentum`` at the peak of the
    rate and back. Unless ``cycle_momentum=False``, torch sets the momentum of SGD so even where
    it was 0, and ``betas[0]`` of Adam.

    Args:
      total_steps: as in :func:`one_cycle_lr`.
      epochs: as there.
      steps_per_epoch: as there.
      pct_start: as there.
      anneal_strategy: as there.
      base_momentum: in [0, 1), at the peak of the learning rate.
      max_momentum: in [0, 1), at both ends.
      three_phase: as there; the third phase stays at ``max_momentum``.

    Returns:
      A schedule from the count to the momentum, for ``optax.inject_hyperparams``.

    Raises:
      ValueError, TypeError: an argument out of range, of the wrong type, or no number of steps.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from lion_jax import compat
      >>> sgd = compat.torch.sgd
      >>> tx = optax.inject_hyperparams(sgd, static_args=sgd.static_args)(
      ...     lr=compat.torch.one_cycle_lr(0.1, total_steps=60),
      ...     momentum=compat.torch.one_cycle_momentum(total_steps=60),
      ... )
      >>> print(tx.init(jnp.zeros(2)).hyperparams["momentum"])
      0.95
    """
    total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
    back = [max_momentum] if three_phase else []
    momenta = [max_momentum, base_momentum, *back, max_momentum]
    return _one_cycle(momenta, total_steps, pct_start, anneal_strategy)


def _total_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is not None:
        return total_steps if isinstance(total_steps, jax.Array) else int(total_steps)
    if epochs is None or steps_per_epoch is None:
        raise ValueError(
            "total_steps must be an integer >= 1, unless epochs and steps_per_epoch both are; got "
            f"total_steps=None, epochs={epochs} and steps_per_epoch={steps_per_epoch}. "
            "Try total_steps=1000."
        )
    if isinstance(epochs, jax.Array) or isinstance(steps_per_epoch, jax.Array):
        return epochs * steps_per_epoch
    total_steps = int(epochs) * int(steps_per_epoch)
    if total_steps >= 2**31:
        raise ValueError(
            "epochs * steps_per_epoch must be an integer >= 1 and < 2**31, as counts of updates "
            f"are; got {epochs} * {steps_per_epoch} = {total_steps}. Try total_steps=2**31 - 1."
        )
    return total_steps


def _one_cycle(
    values: Sequence[Scalar], total_steps: int, pct_start: Scalar, anneal_strategy: str
) -> optax.Schedule:
    """Goes through three values in two phases, or through four in three."""
    peak, last = pct_start * total_steps - 1, total_steps - 1
    bounds = [0.0, peak, *([2 * peak] if len(values) == 4 else []), last]
    weight = half_cosine if anneal_strategy == "cos" else lambda share: share

    def schedule(count):
        t = jnp.minimum(as_float(count), last)
        phases = []
        for (a, b), (x, y) in zip(
            itertools.pairwise(bounds), itertools.pairwise(values), strict=True
        ):
            is_point = a == b  # where torch divides by zero, this has arrived
            length = b - a + is_point
            passed, remaining = (t - a + is_point) / length, (b - t) / length
            phases.append(as_float(x * weight(remaining) + y * weight(passed)))
        return jnp.select([t <= b for b in bounds[1:-1]], phases[:-1], phases[-1])

    return schedule
