"""llm-foundry's Lion and its metrics, which zeta copied."""

import jax
import jax.numpy as jnp
import optax

from lion_jax._core.arithmetic import inverse, sqrt
from lion_jax._core.hyperparameters import hyperparameters
from lion_jax._core.leafwise import of_leaves
from lion_jax._core.paths import distinct_paths
from lion_jax._core.rule import takes
from lion_jax._core.states import the_only, unwrapped
from lion_jax._core.types import Betas, Scalar
from lion_jax.compat._moments import BETAS, LEARNING_RATE, WEIGHT_DECAY
from lion_jax.optimizers.lion import INITIAL_RATE, constant_rate, decoupled_lion

__all__ = ["decoupled_lionw", "report_metrics"]
__dir__ = __all__.copy  # TAB offers no more


@takes(lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, initial_lr=INITIAL_RATE.or_none())
def decoupled_lionw(
    lr: optax.ScalarOrSchedule = 1e-4,
    betas: Betas = (0.9, 0.99),
    weight_decay: Scalar = 0.0,
    initial_lr: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""``DecoupledLionW`` of llm-foundry 0.22 and of zeta 2.8.

    .. math::

      \theta_t &= \left(1 - \frac{\eta_t}{\eta_0} \lambda\right) \theta_{t-1}
        - \eta_t \operatorname{sign}(\beta_1 m_{t-1} + (1 - \beta_1) g_t) \\
      m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    It departs from the paper: the decay is scaled by :math:`\eta_t / \eta_0`, not by
    :math:`\eta_t`. llm-foundry reads :math:`\eta_0` from its parameter groups, where a one-cycle
    schedule overwrites it; here it is an argument. It is :func:`lion_jax.decoupled_lion` under
    llm-foundry's names.

    Args:
      lr: :math:`\eta` >= 0.
      betas: :math:`(\beta_1, \beta_2)`, each in [0, 1).
      weight_decay: :math:`\lambda` >= 0.
      initial_lr: :math:`\eta_0` > 0. None takes a constant ``lr``; with a schedule it must be
        given: the ``lr`` with which the original optimizer was constructed.

    Returns:
      A transformation from gradients to updates, to be added by ``optax.apply_updates``.

    Raises:
      ValueError: a hyperparameter out of range, or a schedule without ``initial_lr``; at
        ``update``, missing parameters.
      TypeError: a hyperparameter of the wrong type; at ``init``, a complex leaf.

    Example:
      >>> import jax.numpy as jnp
      >>> from lion_jax import compat
      >>> tx = compat.llm_foundry.decoupled_lionw(lr=0.5, weight_decay=0.25)
      >>> params = jnp.array([8.0, -8.0])
      >>> updates, _ = tx.update(jnp.ones(2), tx.init(params), params)
      >>> print(params + updates)
      [ 5.5 -6.5]

    References:
      ``llmfoundry.optim.DecoupledLionW`` of `llm-foundry
      <https://github.com/mosaicml/llm-foundry>`_ 0.22.
    """
    b1, b2 = betas
    if initial_lr is None:
        initial_lr = constant_rate(lr, "lr", "initial_lr")
    return decoupled_lion(lr, b1, b2, weight_decay=weight_decay, initial_learning_rate=initial_lr)


def report_metrics(
    gradients: optax.Updates, params: optax.Params, state: optax.OptState
) -> dict[str, jax.Array]:
    r"""``DecoupledLionW.report_per_parameter_metrics``, called after a step as there.

    .. math::

      \lVert m_t \rVert, \ \lVert \theta_t \rVert, \ \lVert g_t \rVert, \ \lVert \tilde u_t \rVert,
      \ \cos(g_t, \tilde u_t), \ \cos(g_t, m_t), \qquad \tilde u_t =
      \eta_t \operatorname{sign}(\beta_1 m_t + (1 - \beta_1) g_t)
      - \frac{\eta_t}{\eta_0} \lambda \theta_t

    The metrics are not those of the step that was taken: the update is computed again from the
    momentum and the parameters after the step, and its two parts differ in sign.
    :func:`lion_jax.with_metrics` measures the step itself. llm-foundry 0.22 reports the four norms,
    zeta 2.8 the cosines too.

    Args:
      gradients: :math:`g_t`, a tree like the parameters.
      params: :math:`\theta_t`, the parameters after the step.
      state: the state of :func:`decoupled_lionw` or :func:`lion_jax.decoupled_lion` after the step,
        also within a chain or a combinator.

    Returns:
      Metrics under llm-foundry's names: ``l2_norm/moment/<path>`` and so on for ``param``,
      ``update`` and ``grad``, ``cosine/update_grad/<path>`` and ``cosine/moment_grad/<path>``;
      scalars in at least float32. Paths are those of :func:`lion_jax.read_metrics`, so that slashes
      in names are safe.

    Raises:
      ValueError: a state of no such optimizer, or of several.

    Example:
      >>> import jax.numpy as jnp, lion_jax
      >>> from lion_jax import compat
      >>> tx = lion_jax.with_metrics(compat.llm_foundry.decoupled_lionw(lr=0.5, weight_decay=0.25))
      >>> params, gradients = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([1.0, 1.0])}
      >>> updates, state = tx.update(gradients, tx.init(params), params)
      >>> reported = compat.llm_foundry.report_metrics(
      ...     gradients, {"w": params["w"] + updates["w"]}, state
      ... )
      >>> print(f"{reported['l2_norm/update/w']:.3f}")
      0.140
      >>> print(f"{lion_jax.read_metrics(state)['norm/update']:.3f}")
      1.953

    References:
      ``llmfoundry.optim.DecoupledLionW`` of `llm-foundry
      <https://github.com/mosaicml/llm-foundry>`_ 0.22; ``zeta.optim.DecoupledLionW`` of zeta 2.8.
    """
    shown = hyperparameters(state)
    if "initial_learning_rate" not in shown:
        raise ValueError(
            "state must be that of decoupled_lionw or decoupled_lion; got one of a rule with "
            f"{', '.join(shown)}. Try lion_jax.with_metrics, which measures any rule."
        )
    rate = shown["learning_rate"]
    params = unwrapped(params)
    momentum = the_only(state, "mu", "decoupled_lion", "InterpolateMomentumState")
    rows = of_leaves(
        _reported,
        *(jax.tree.leaves(tree) for tree in (unwrapped(gradients), params, momentum)),
        rate=rate,
        b1=shown["b1"],
        decay=rate * shown["weight_decay"] * inverse(shown["initial_learning_rate"], 0.0),
    )
    names = (
        *("l2_norm/moment", "l2_norm/param", "l2_norm/update", "l2_norm/grad"),
        *("cosine/update_grad", "cosine/moment_grad"),
    )
    return {
        f"{name}/{path}": value
        for path, row in zip(distinct_paths(params), rows, strict=True)
        for name, value in zip(names, row, strict=True)
    }


def _reported(g, p, m, *, rate, b1, decay):
    u = rate * jnp.sign(b1 * m + (1 - b1) * g) - decay * p
    norms = [sqrt(jnp.sum(x * x)) for x in (m, p, u, g)]
    m_norm, _, u_norm, g_norm = (jnp.maximum(norm, 1e-8) for norm in norms)  # as torch divides
    return *norms, jnp.sum(g * u) / (g_norm * u_norm), jnp.sum(g * m) / (g_norm * m_norm)
