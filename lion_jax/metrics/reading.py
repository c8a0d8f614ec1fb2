"""Reads the metrics in a state, by name."""

from collections.abc import Mapping
from typing import Any, cast

import jax
import optax

from lion_jax._core.hyperparameters import by_name
from lion_jax._core.states import all_fields, the_only, unwrapped
from lion_jax.metrics._measuring import keeps


def read_metrics(state: optax.OptState) -> dict[str, jax.Array]:
    """Reads the metrics in a state, ready for a logger.

    - ``norm/grad``, ``norm/update``, ``norm/param``, ``norm/moment``: 2-norms of the gradient as it
      came, of the step that was taken, of the parameters before it and of the first moment after
      it, each in its own units;
    - ``cosine/update_grad``, ``cosine/moment_grad``: cosines of the angles between them, 0 where a
      norm is 0. The first is negative for a step downhill, since updates are added to the
      parameters;
    - ``share/agree``: the share of entries in which the step goes against the gradient, downhill;
    - ``share/sign_flips``: the share of entries whose update has the opposite sign of the last
      measured one; a change from or to 0 is no flip;
    - ``share/near_bound``, for a state of one optimizer: the share of parameters within a tenth of
      the ``weight_bound``, beyond which weight decay lets no step of a sign rule take them; a mask
      of the decay is ignored;
    - ``step``: the number of the update that was measured, from 1; 0 before the first, when all
      metrics are 0;
    - ``hyperparameter/learning_rate`` and the like: the hyperparameters of the last update, see
      :func:`hyperparameters`; if the state holds several optimizers, under the label of each in
      ``optax.partition``, or its number.

    Metrics of the moment exist if the rule has a first moment (``mu`` or ``trace``; with
    :func:`~lion_jax.precision.with_quantized_state`, only if the metrics are inside it). Its cosine
    needs moments of the parameters' shapes, unlike GaLore's. The last two shares exist for rules
    whose updates are signs. With ``per_parameter`` each metric also exists for every parameter, as
    ``norm/update/<path>``. A path is the keys joined by slashes; a slash or a percent sign within a
    key is ``%2F`` or ``%25``; the path of parameters that are a single array is a dot.

    Args:
      state: the optimizer state that holds one :class:`~lion_jax.metrics.MetricsState`, at any
        depth.

    Returns:
      The metrics by name, arrays of shape (): float32, or float64 where a parameter is; ``step``
      int32. Norms are roots of sums of squares, within float32's range for entries between 1e-19
      and 1e19. It may be called within ``jit``.

    Raises:
      ValueError: no metrics in the state, or several.

    Example:
      >>> import jax.numpy as jnp
      >>> import lion_jax
      >>> tx = lion_jax.with_metrics(lion_jax.lion(0.1), per_parameter=True)
      >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> metrics = {name: float(value) for name, value in lion_jax.read_metrics(state).items()}
      >>> for name in ("norm/grad", "norm/grad/kernel", "norm/grad/bias"):
      ...     print(name, metrics[name])
      norm/grad 2.0
      norm/grad/kernel 2.0
      norm/grad/bias 0.0
    """
    state = unwrapped(state)
    metrics = the_only(state, "metrics", "with_metrics", "MetricsState")
    # What is None has no place in a state without types.
    per_parameter, signs = (
        next((value for _, value in all_fields(state, field, "MetricsState")), None)
        for field in ("per_parameter", "signs")
    )
    is_left_out = {"share/sign_flips"} if signs is not None and not keeps(signs) else set()
    read = {name: value for name, value in metrics.items() if name not in is_left_out}
    for path, of_one in per_parameter.items() if isinstance(per_parameter, Mapping) else ():
        read |= {f"{name}/{path}": x for name, x in of_one.items() if name not in is_left_out}
    for label, numbers in shown_in(state).items():
        read |= {f"hyperparameter/{label}{name}": value for name, value in numbers.items()}
    return read


def shown_in(state: optax.OptState) -> dict[str, dict[str, jax.Array]]:
    """The numbers that each optimizer in the state shows, by what tells it from the others."""
    found = all_fields(state, "hyperparameters", "HyperparametersState")
    if len(found) == 1:
        return {"": by_name(found[0][1])}
    labels = [
        "/".join(str(k.key) for k in cast(Any, path) if hasattr(k, "key")) for path, _ in found
    ]
    if len(set(labels)) < len(labels):  # no partition's
        labels = list(map(str, range(len(labels))))
    return {
        f"{label}/": by_name(numbers) for label, (_, numbers) in zip(labels, found, strict=True)
    }
