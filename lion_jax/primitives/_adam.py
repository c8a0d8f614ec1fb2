"""optax's directions by second moments: its numbers and states, with derivatives finite at 0.

optax asks for an `eps_root` above 0, which changes the numbers, to differentiate through a step;
and strict promotion refuses its powers of counts.
"""

# pyright: reportArgumentType=false

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lion_jax._arithmetic import sqrt
from lion_jax.primitives._moments import next_count, unbiased


def scale_by_adam(b1: Any, b2: Any, eps: Any) -> optax.GradientTransformation:
    """`optax.scale_by_adam`."""

    def update_fn(updates, state, params=None):
        del params
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        t = next_count(state.count)
        updates = _over_root(unbiased(mu, b1, t), unbiased(nu, b2, t), eps)
        return updates, optax.ScaleByAdamState(t, mu, optax.tree.cast_like(nu, state.nu))

    return optax.GradientTransformation(optax.scale_by_adam().init, update_fn)


def scale_by_belief(b1: Any, b2: Any, eps: Any, *, eps_root: Any) -> optax.GradientTransformation:
    """`optax.scale_by_belief`."""

    def update_fn(updates, state, params=None):
        del params
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        deviation = optax.tree.sub(updates, mu)
        nu = optax.tree.update_moment_per_elem_norm(deviation, state.nu, b2, 2)
        nu = jax.tree.map(lambda v: v + eps_root, nu)
        t = next_count(state.count)
        updates = _over_root(unbiased(mu, b1, t), unbiased(nu, b2, t), eps)
        return updates, optax.ScaleByBeliefState(t, mu, nu)

    return optax.GradientTransformation(optax.scale_by_belief().init, update_fn)


def scale_by_two_speeds(
    b1: Any, b2: Any, b3: Any, alpha: Any, eps: Any
) -> optax.GradientTransformation:
    """`optax.contrib.scale_by_ademamix`; `b3` and `alpha` are numbers or functions of the count."""

    def update_fn(updates, state, params=None):
        del params
        slow_b = b3(state.count_m2) if callable(b3) else b3
        share = alpha(state.count_m2) if callable(alpha) else alpha
        m1 = optax.tree.update_moment(updates, state.m1, b1, 1)
        m2 = optax.tree.update_moment(updates, state.m2, slow_b, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        t = next_count(state.count)
        mixed = jax.tree.map(lambda fast, slow: fast + share * slow, unbiased(m1, b1, t), m2)
        updates = _over_root(mixed, unbiased(nu, b2, t), eps)
        return updates, state._replace(
            count=t, count_m2=next_count(state.count_m2), m1=m1, m2=m2, nu=nu
        )

    return optax.GradientTransformation(optax.contrib.scale_by_ademamix().init, update_fn)


def scale_by_rms(decay: Any, eps: Any) -> optax.GradientTransformation:
    """`optax.scale_by_rms` with `eps_in_sqrt=False`."""

    def update_fn(updates, state, params=None):
        del params
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, decay, 2)
        scaling = jax.tree.map(lambda v: 1 / (sqrt(v) + eps), nu)
        return jax.tree.map(jnp.multiply, scaling, updates), state._replace(nu=nu)

    return optax.GradientTransformation(optax.scale_by_rms().init, update_fn)


def scale_by_stddev(decay: Any, eps: Any) -> optax.GradientTransformation:
    """`optax.scale_by_stddev` of real updates, with `eps_in_sqrt=False`."""

    def update_fn(updates, state, params=None):
        del params
        mu = optax.tree.update_moment(updates, state.mu, decay, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, decay, 2)
        scaling = jax.tree.map(lambda m, v: 1 / (sqrt(v - m**2) + eps), mu, nu)
        return jax.tree.map(jnp.multiply, scaling, updates), state._replace(mu=mu, nu=nu)

    return optax.GradientTransformation(optax.scale_by_stddev().init, update_fn)


def _over_root(mu: optax.Updates, nu: optax.Updates, eps: Any) -> optax.Updates:
    return jax.tree.map(lambda m, v: m / (sqrt(v) + eps), mu, nu)
