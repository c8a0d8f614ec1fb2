"""PyTorch's one-cycle schedule, of the learning rate and of the momentum.

`OneCycleLR <https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.OneCycleLR.html>`_
is both; here they are two schedules.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from lion_jax._checks import check_choice, check_flag, check_number, check_positive_integer
from lion_jax.compat._moments import Scalar
from lion_jax.compat.torch._annealing import as_float, half_cosine


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
    r"""``OneCycleLR``: up to the largest learning rate, and down to next to nothing.

    From :math:`\eta_0 = \eta / d` at count 0 to :math:`\eta` at :math:`p = \rho T - 1`, then to
    :math:`\eta_0 / f` at :math:`T - 1`; with three phases first back to :math:`\eta_0` at
    :math:`2p`. From count :math:`a` to :math:`b` the rate goes from :math:`x` to :math:`y` as

    .. math::

      \eta_t = x\, w\left(\frac{b - t}{b - a}\right) + y\, w\left(\frac{t - a}{b - a}\right),
        \qquad w(s) = \frac{1 - \cos \pi s}{2} \text{ or, linear, } s

    Bounds may be fractions. ``optax.cosine_onecycle_schedule`` peaks and ends a step later. After
    its last step torch goes one step beyond the cycle, below 0 if linear, and then raises; here the
    last rate stays. Where it divides by zero, :math:`\rho T = 1`, this begins with the peak.
    torch cycles the momentum too, unless ``cycle_momentum=False``, which has no counterpart here:
    see :func:`one_cycle_momentum`.

    Args:
      max_lr: :math:`\eta` >= 0: a number or a traced scalar.
      total_steps: :math:`T` >= 1, in counts of updates.
      epochs: :math:`T` is their product with ``steps_per_epoch`` if it is not given itself.
      steps_per_epoch: see ``epochs``.
      pct_start: :math:`\rho` in [0, 1], the share of the steps on the way up: a number or a traced
        scalar.
      anneal_strategy: ``"cos"`` or ``"linear"``.
      div_factor: :math:`d` > 0: a number or a traced scalar.
      final_div_factor: :math:`f` > 0, likewise.
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
    check_number("learning_rate", max_lr, alias="max_lr")
    check_number("div_factor", div_factor)
    check_number("final_div_factor", final_div_factor)
    check_flag("three_phase", three_phase)
    total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
    initial_lr = max_lr / div_factor
    back = [initial_lr] if three_phase else []
    rates = [initial_lr, max_lr, *back, initial_lr / final_div_factor]
    return _one_cycle(rates, total_steps, pct_start, anneal_strategy)


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
    """What ``OneCycleLR`` makes of the momentum: low where the learning rate is high.

    The counterpart of :func:`one_cycle_lr`, between the same counts: down to ``base_momentum`` at
    the peak and back. Unless ``cycle_momentum=False``, torch sets the momentum of SGD so even where
    it was 0, and ``betas[0]`` of Adam.

    Args:
      total_steps: as for :func:`one_cycle_lr`, like all but the next two.
      epochs: likewise.
      steps_per_epoch: likewise.
      pct_start: likewise.
      anneal_strategy: likewise.
      base_momentum: in [0, 1), at the peak of the learning rate: a number or a traced scalar.
      max_momentum: in [0, 1), at both ends, likewise.
      three_phase: likewise; the third phase stays at ``max_momentum``.

    Returns:
      A schedule from the count to the momentum, for ``optax.inject_hyperparams``.

    Raises:
      ValueError, TypeError: an argument out of range, of the wrong type, or no number of steps.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from lion_jax import compat
      >>> tx = optax.inject_hyperparams(compat.torch.sgd, static_args=("nesterov",))(
      ...     lr=compat.torch.one_cycle_lr(0.1, total_steps=60),
      ...     momentum=compat.torch.one_cycle_momentum(total_steps=60),
      ... )
      >>> print(tx.init(jnp.zeros(2)).hyperparams["momentum"])
      0.95
    """
    check_number("momentum", base_momentum, alias="base_momentum")
    check_number("momentum", max_momentum, alias="max_momentum")
    check_flag("three_phase", three_phase)
    total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
    back = [max_momentum] if three_phase else []
    momenta = [max_momentum, base_momentum, *back, max_momentum]
    return _one_cycle(momenta, total_steps, pct_start, anneal_strategy)


def _total_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is not None:
        check_positive_integer("total_steps", total_steps, remedy=1000)
        return total_steps if isinstance(total_steps, jax.Array) else int(total_steps)
    if epochs is None or steps_per_epoch is None:
        raise ValueError(
            "total_steps must be an integer >= 1, unless epochs and steps_per_epoch both are; got "
            f"total_steps=None, epochs={epochs} and steps_per_epoch={steps_per_epoch}. "
            "Try total_steps=1000."
        )
    check_positive_integer("epochs", epochs, remedy=10)
    check_positive_integer("steps_per_epoch", steps_per_epoch, remedy=100)
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
    """Through three values in two phases, or through four in three."""
    check_number("pct_start", pct_start)
    check_choice("anneal_strategy", anneal_strategy, "cos", "linear")
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
