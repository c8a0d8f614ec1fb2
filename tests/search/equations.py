"""Every public equation once more, in NumPy and float64, from the docstrings' formulas.

A rule here takes a matrix, its gradients and hyperparameters, and yields the update of each step,
which it adds to the matrix itself. `RULES` pairs it with the transformation of the library.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
import oracles
import plain

import lion_jax
from lion_jax import primitives
from lion_jax.primitives import signs

SGD = 0.1, 0.5
CONVERGENT = (1.5, -0.5, 0.0)
Steps = Iterator[np.ndarray]


def interpolated(gs, b1, b2):
    m = np.zeros_like(gs[0])
    for g in gs:
        yield b1 * m + (1 - b1) * g
        m = b2 * m + (1 - b2) * g


def interpolate_momentum(p, gs, *, b1, b2) -> Steps:
    yield from interpolated(gs, b1, b2)


def scale_by_sign_momentum(p, gs, *, b1, b2) -> Steps:
    for c in interpolated(gs, b1, b2):
        yield np.sign(c)


def add_decoupled_weight_decay(p, gs, *, weight_decay, multiplier, cautious=False) -> Steps:
    for g in gs:
        match cautious:
            case False:
                decays = True
            case True:
                decays = np.sign(g) * np.sign(p) >= 0
            case ">":
                decays = np.sign(g) * np.sign(p) > 0
            case _:
                decays = np.signbit(g) == np.signbit(p)
        u = g + np.where(decays, multiplier * weight_decay * p, 0)
        yield u
        p = p + u


def apply_proximal_weight_decay(p, gs, *, learning_rate, weight_decay) -> Steps:
    for g in gs:
        u = (p + g) / (1 + learning_rate * weight_decay) - p
        yield u
        p = p + u


def clip_by_norm(p, gs, *, max_norm) -> Steps:
    for g in gs:
        norm = np.linalg.norm(g)
        yield g * max_norm / norm if norm > max_norm else g


def scale_by_nesterov_adam(p, gs, *, b1, b2, eps) -> Steps:
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        ahead = (b1 * m + (1 - b1) * g) / (1 - b1**t)
        yield ahead / (np.sqrt(v / (1 - b2**t)) + eps)


def scale_by_rectified_adam(p, gs, *, b1, b2, eps) -> Steps:
    yield from oracles.rectified_adam(gs, b1, b2, eps, False)


def scale_by_student_t(p, gs, *, b1, b2, eps, dof) -> Steps:
    m = v = np.zeros_like(gs[0])
    total, largest = b1 / (1 - b1), np.zeros_like(gs[0])
    for t, g in enumerate(gs, 1):
        w = (dof + g.size) / (dof + np.sum((g - m) ** 2 / (v + eps)))
        m = (total * m + w * g) / (total + w)
        total = (2 * b1 - 1) / b1 * total + w
        v = b2 * v + (1 - b2) * g**2
        largest = np.maximum(largest, v)
        yield m / (1 - b1**t) / (np.sqrt(largest / (1 - b2**t)) + eps)


def scale_by_adan(p, gs, *, b1, b2, b3, eps) -> Steps:
    m = v = n = 0.0
    last = gs[0]
    for t, g in enumerate(gs, 1):
        delta, last = g - last, g
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * delta
        n = b3 * n + (1 - b3) * (g + b2 * delta) ** 2
        direction = m / (1 - b1**t) + b2 * v / (1 - b2**t)
        yield direction / (np.sqrt(n / (1 - b3**t)) + eps)


def scale_by_ademamix(p, gs, *, b1, b2, b3, alpha, eps) -> Steps:
    m1 = m2 = v = 0.0
    for t, g in enumerate(gs, 1):
        m1, m2 = b1 * m1 + (1 - b1) * g, b3 * m2 + (1 - b3) * g
        v = b2 * v + (1 - b2) * g**2
        yield (m1 / (1 - b1**t) + alpha * m2) / (np.sqrt(v / (1 - b2**t)) + eps)


def warm_ademamix(p, gs, *, b1, b2, b3, alpha, eps, warmup_steps=3) -> Steps:
    m1 = m2 = v = 0.0
    for t, g in enumerate(gs, 1):
        s = min(t / warmup_steps, 1)
        slow = np.exp(np.log(b1) * np.log(b3) / ((1 - s) * np.log(b3) + s * np.log(b1)))
        slow = min(slow, b3)
        m1, m2 = b1 * m1 + (1 - b1) * g, slow * m2 + (1 - slow) * g
        v = b2 * v + (1 - b2) * g**2
        yield (m1 / (1 - b1**t) + alpha * s * m2) / (np.sqrt(v / (1 - b2**t)) + eps)


def scale_by_trust_ratio(p, gs) -> Steps:
    for g in gs:
        phi, norm = np.clip(np.linalg.norm(p), 0.5, 2), np.linalg.norm(g)
        u = phi / norm * g if norm > 0 else g
        yield u
        p = p + u


def scale_by_lars_ratio(p, gs, *, trust_coefficient, weight_decay) -> Steps:
    for g in gs:
        phi, norm = np.linalg.norm(p), np.linalg.norm(g)
        r = trust_coefficient * phi / (norm + weight_decay * phi) if phi > 0 and norm > 0 else 1.0
        u = r * (g + weight_decay * p)
        yield u
        p = p + u


def project_to_tangent(p, gs, *, delta, eps, weight_decay, wd_ratio) -> Steps:
    trace = 0.0

    def views(x):
        return [x[:, i] for i in range(x.shape[1])], [x.ravel()]

    for g in gs:
        u = trace = g + 0.5 * trace
        r = 1.0
        for ps, g_s in zip(views(p), views(g), strict=True):
            cosines = [
                abs(a @ b) / (max(np.linalg.norm(a), eps) * max(np.linalg.norm(b), eps))
                for a, b in zip(ps, g_s, strict=True)
            ]
            if max(cosines) < delta / np.sqrt(ps[0].size):
                units = [a / (np.linalg.norm(a) + eps) for a in ps]
                if len(ps) == 1:
                    unit = units[0].reshape(p.shape)
                    u = u - np.sum(unit * u) * unit
                else:
                    unit = np.stack(units, axis=1)
                    u = u - np.sum(unit * u, axis=0) * unit
                r = wd_ratio
                break
        u = u + weight_decay * r * p
        yield u
        p = p + u


def by_leaf(function: Callable[..., np.ndarray]) -> Callable[..., Steps]:
    """The rule that has no state."""
    return lambda p, gs, /, **numbers: (function(g, **numbers) for g in gs)


def l2_rows(c):
    norm = np.linalg.norm(c, axis=-1, keepdims=True)
    return c / np.where(norm > 0, norm, 1)


def polar(c, coefficients, steps, eps):
    a, b, c3 = coefficients
    tall = c.shape[0] > c.shape[1]
    x = c.T if tall else c
    x = x / (np.linalg.norm(x) + eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c3 * gram @ gram) @ x
    return x.T if tall else x


def variance_reduced_gradient(p, gs, *, b1, gamma, max_norm) -> Steps:
    last = np.zeros_like(gs[0])
    for g in gs:
        a = g + gamma * b1 / (1 - b1) * (g - last)
        norm, last = np.linalg.norm(a), g
        yield a * min(1, max_norm / norm) if norm > 0 else a


def scale_by_parameter_rms(p, gs, *, min_rms) -> Steps:
    for g in gs:
        u = max(np.sqrt(np.mean(p**2)), min_rms) * g
        yield u
        p = p + u


def scale_by_lion_muon(p, gs, *, b1, b2) -> Steps:
    muons = (3.4445, -4.7750, 2.0315)
    for t, c in enumerate(interpolated(gs, b1, b2)):
        factor = 0.2 * np.sqrt(max(c.shape))
        yield np.sign(c) if t % 2 else factor * polar(c, muons, 1, 1e-7)


def scale_by_alternating_rate(p, gs, *, learning_rate, sign_learning_rate) -> Steps:
    for t, g in enumerate(gs):
        yield -(sign_learning_rate if t % 2 else learning_rate) * g


def stepping(make: Callable[..., Any]) -> Callable[..., Steps]:
    """The rule of an object whose `step` gives the new matrix."""

    def rule(p, gs, **numbers):
        inner = make(p, **numbers)
        for g in gs:
            new = inner.step(p, g)
            yield new - p
            p = new

    return rule


def scout(p, gs, *, min_slow_step_size) -> Steps:
    for new in oracles.scout_sgd(p, gs, 0.1, 2, min_slow_step_size):
        yield new - p
        p = new


def cautious(p, gs, *, factor, rescale, is_direction=False) -> Steps:
    m = 0.0
    for g in gs:
        m = SGD[1] * m + g
        u = m if is_direction else -SGD[0] * m
        direction = u if is_direction else -u
        if rescale == "sign_bits":
            kept = np.signbit(direction) == np.signbit(g)
        else:
            kept = direction * g > 0
        n = kept.sum() + factor * (kept.size - kept.sum())
        r = {
            "count": kept.size / (n + 1),
            "mean": 1 / max(n / kept.size, 1e-5),
            "mean_1e-3": 1 / max(n / kept.size, 1e-3),
            "sign_bits": kept.size / max(n, 1),
            None: 1.0,
        }[rescale]
        yield np.where(kept, 1, factor) * r * u


def hyperball(p, gs, *, learning_rate) -> Steps:
    radius = np.linalg.norm(p)

    def unit(x):
        norm = np.linalg.norm(x)
        return x / norm if norm > 0 else x

    m = 0.0
    for g in gs:
        m = SGD[1] * m + g
        new = radius * unit(p - learning_rate * radius * unit(m))
        yield new - p
        p = new


class Spikes:
    """A guard that looks at the gradient's norm alone, as its loss is always 1."""

    def __init__(self, inner, window, factor):
        self.inner, self.window, self.factor, self.seen = inner, window, factor, []

    def step(self, p, g):
        norm, past = np.linalg.norm(g), self.seen[-self.window :]
        self.seen.append(norm)
        if len(past) >= max(2, self.window // 2 - 1) and norm > np.mean(past) + (
            self.factor * np.std(past, ddof=1)
        ):
            return p
        return self.inner.step(p, g)


@dataclasses.dataclass(frozen=True)
class Rule:
    """An equation twice.

    Attributes:
      make: from its numbers to the transformation.
      steps: the same in NumPy.
      ranges: of each number, values to draw from.
    """

    make: Callable[..., Any]
    steps: Callable[..., Steps]
    ranges: dict[str, list[float]] = dataclasses.field(default_factory=dict)


BETA = [0.9, 0.25, 0.5, 0.99, 0.0, 0.999]
BETAS = {"b1": BETA, "b2": BETA}
EPS = {"eps": [1e-3, 0.5, 1e-8]}
SHARE = [0.25, 0.5, 0.0, 1.0]
DECAY = [0.1, 1.0, 0.01, 0.0]


def sgd():
    return optax.sgd(SGD[0], momentum=SGD[1])


def momentum():
    return plain.Momentum(*SGD)


def decay(cautious):
    return Rule(
        lambda **h: primitives.add_decoupled_weight_decay(**h, cautious=cautious),
        lambda p, gs, **h: add_decoupled_weight_decay(p, gs, **h, cautious=cautious),
        {"weight_decay": DECAY, "multiplier": [-1.0, 0.5, 3.0]},
    )


def caution(rescale, is_direction=False):
    def make(factor):
        inner = optax.trace(SGD[1]) if is_direction else sgd()
        return lion_jax.cautious(inner, rescale=rescale, factor=factor, is_direction=is_direction)

    return Rule(
        make,
        lambda p, gs, factor: cautious(
            p, gs, factor=factor, rescale=rescale, is_direction=is_direction
        ),
        {"factor": [1e-4, *SHARE]},
    )


def fitted(scale):
    """The factor of each scale for a matrix of three rows and two columns."""
    return {
        None: 1.0,
        "rows_over_columns": 1.5**0.5,
        "columns_over_rows": 1.0,
        "rms": 0.2 * 3**0.5,
    }[scale]


def orthogonal(scale):
    return Rule(
        lambda eps: primitives.orthogonalize(
            steps=2, coefficients=CONVERGENT, scale=scale, eps=eps
        ),
        by_leaf(lambda c, eps: fitted(scale) * polar(c, CONVERGENT, 2, eps)),
        EPS,
    )


RULES = {
    "interpolate_momentum": Rule(primitives.interpolate_momentum, interpolate_momentum, BETAS),
    "scale_by_sign_momentum": Rule(
        primitives.scale_by_sign_momentum, scale_by_sign_momentum, BETAS
    ),
    "add_decoupled_weight_decay": decay(False),
    "cautious_weight_decay": decay(True),
    "cautious_weight_decay_>": decay(">"),
    "cautious_weight_decay_sign_bits": decay("sign_bits"),
    "apply_proximal_weight_decay": Rule(
        primitives.apply_proximal_weight_decay,
        apply_proximal_weight_decay,
        {"learning_rate": SHARE, "weight_decay": DECAY},
    ),
    "clip_by_global_norm": Rule(
        primitives.clip_by_global_norm, clip_by_norm, {"max_norm": [0.1, 1.0, 2.0, 9.0]}
    ),
    "clip_by_leaf_norm": Rule(
        primitives.clip_by_leaf_norm, clip_by_norm, {"max_norm": [0.1, 1.0, 2.0, 9.0]}
    ),
    "scale_by_nesterov_adam": Rule(
        primitives.scale_by_nesterov_adam, scale_by_nesterov_adam, BETAS | EPS
    ),
    "scale_by_rectified_adam": Rule(
        primitives.scale_by_rectified_adam,
        scale_by_rectified_adam,
        # 2 / (1 - b2) - 1 of 4, at 0.6, is the border of the adaptive steps.
        {"b1": BETA, "b2": [0.3, 0.7, 0.9, 0.99, 0.999]} | EPS,
    ),
    "scale_by_student_t": Rule(
        lambda **h: primitives.scale_by_student_t(**h, amsgrad=True),
        scale_by_student_t,
        {"b1": [0.5, 0.75, 0.9, 0.99], "b2": BETA, "dof": [0.5, 1.0, 6.0, 100.0]} | EPS,
    ),
    "scale_by_adan": Rule(primitives.scale_by_adan, scale_by_adan, BETAS | {"b3": BETA} | EPS),
    "scale_by_ademamix": Rule(
        primitives.scale_by_ademamix,
        scale_by_ademamix,
        BETAS | {"b3": BETA, "alpha": [0.0, 1.0, 5.0]} | EPS,
    ),
    "scale_by_ademamix_warm": Rule(
        lambda **h: primitives.scale_by_ademamix(**h, warmup_steps=3),
        warm_ademamix,
        {"b1": [0.25, 0.5, 0.9], "b2": BETA, "b3": [0.9, 0.99], "alpha": [0.0, 1.0, 5.0]} | EPS,
    ),
    "scale_by_trust_ratio": Rule(
        lambda: primitives.scale_by_trust_ratio((0.5, 2.0)), scale_by_trust_ratio
    ),
    "scale_by_lars_ratio": Rule(
        primitives.scale_by_lars_ratio,
        scale_by_lars_ratio,
        {"trust_coefficient": [0.001, 0.1, 1.0], "weight_decay": DECAY},
    ),
    "project_to_tangent": Rule(
        lambda delta, eps, **h: primitives.project_to_tangent(optax.trace(0.5), delta, eps, **h),
        project_to_tangent,
        {"delta": [0.1, 0.5, 1.0, 2.0], "weight_decay": DECAY, "wd_ratio": SHARE} | EPS,
    ),
    "sign": Rule(signs.sign, by_leaf(np.sign)),
    "lp_sign": Rule(
        signs.lp_sign,
        by_leaf(lambda c, p: oracles.lp_sign(c, p) if c.any() else c),
        {"p": [1.25, 1.5, 1.75, 2.0]},
    ),
    "tanh": Rule(
        signs.tanh, by_leaf(lambda c, scale: np.tanh(scale * c)), {"scale": [0.1, 1.0, 8.0]}
    ),
    "huber": Rule(
        signs.huber,
        by_leaf(lambda c, threshold: np.clip(c / threshold, -1, 1)),
        {"threshold": [0.1, 0.5, 2.0]},
    ),
    "l2_normalize": Rule(signs.l2_normalize, by_leaf(lambda c: c / max(np.linalg.norm(c), 1e-300))),
    "l2_normalize_rows": Rule(lambda: signs.l2_normalize(-1), by_leaf(l2_rows)),
    "top_k_sign": Rule(
        lambda: signs.top_k_sign(2), by_leaf(lambda c: oracles.top_k_sign(c, 2) if c.any() else c)
    ),
    "scale_by_shape": Rule(signs.scale_by_shape, by_leaf(lambda c: c * 2 / 5)),
    **{
        f"orthogonalize_{scale}": orthogonal(scale)
        for scale in (None, "rows_over_columns", "columns_over_rows", "rms")
    },
    "variance_reduced_gradient": Rule(
        primitives.variance_reduced_gradient,
        variance_reduced_gradient,
        {"b1": BETA, "gamma": [0.0, 0.025, 0.5], "max_norm": [0.5, 1.0, 100.0]},
    ),
    "scale_by_parameter_rms": Rule(
        primitives.scale_by_parameter_rms, scale_by_parameter_rms, {"min_rms": [0.0, 0.5, 3.0]}
    ),
    "scale_by_lion_muon": Rule(
        lambda **h: primitives.scale_by_lion_muon(**h, period=2, steps=1), scale_by_lion_muon, BETAS
    ),
    "scale_by_alternating_rate": Rule(
        primitives.scale_by_alternating_rate,
        scale_by_alternating_rate,
        {"learning_rate": SHARE, "sign_learning_rate": SHARE},
    ),
    "lookahead": Rule(
        lambda slow_step_size: lion_jax.lookahead(sgd(), 2, slow_step_size),
        stepping(lambda p, slow_step_size: plain.Lookahead(momentum(), p, 2, slow_step_size)),
        {"slow_step_size": SHARE},
    ),
    "scout": Rule(
        lambda min_slow_step_size: lion_jax.scout(optax.sgd(0.1), 2, min_slow_step_size),
        scout,
        {"min_slow_step_size": SHARE},
    ),
    "with_parameter_average": Rule(
        lambda decay: lion_jax.with_parameter_average(sgd(), decay, 2),
        stepping(lambda p, decay: plain.Average(momentum(), decay, 2)),
        {"decay": BETA},
    ),
    "with_accumulation": Rule(
        lambda: lion_jax.with_accumulation(sgd(), 2),
        stepping(lambda p: plain.Accumulation(momentum(), 2)),
    ),
    "with_loss_scale": Rule(
        lambda: lion_jax.with_loss_scale(sgd(), lion_jax.DynamicLossScale(4.0, 2)),
        stepping(lambda p: plain.LossScale(momentum(), 4.0, 2)),
    ),
    "with_finite_guard": Rule(
        lambda: lion_jax.with_finite_guard(sgd()), stepping(lambda p: plain.Guard(momentum()))
    ),
    "with_spike_guard": Rule(
        lambda factor: lion_jax.with_spike_guard(sgd(), 4, factor),
        stepping(lambda p, factor: Spikes(momentum(), 4, factor)),
        {"factor": [0.75, 1.25, 0.5, 1.0, 2.0]},
    ),
    **{
        f"cautious_{rescale}": caution(rescale)
        for rescale in ("count", "mean", "mean_1e-3", "sign_bits", None)
    },
    "cautious_of_a_direction": caution(None, is_direction=True),
    "hyperball": Rule(
        lambda learning_rate: lion_jax.hyperball(optax.trace(SGD[1]), learning_rate),
        hyperball,
        {"learning_rate": [0.0, 0.01, 0.1, 1.0]},
    ),
}
# Rules whose way with an infinite gradient is a part of the equation.
HOLD_AGAINST_INFINITY = {"with_loss_scale", "with_finite_guard"}
STEPS, SHAPE = 6, (3, 2)


@dataclasses.dataclass(frozen=True)
class Case:
    """A rule's numbers, and the seed of a matrix and its gradients."""

    name: str
    numbers: dict[str, float]
    seed: int
    scale: float
    sparse: bool

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The matrix and its gradients, some entries of which are 0."""
        rng = np.random.default_rng(self.seed)
        p, gs = rng.standard_normal(SHAPE), self.scale * rng.standard_normal((STEPS, *SHAPE))
        # A step against all of the last, a larger one, an entry without any, a step of zeros.
        gs[1] = -0.2 * gs[0]
        gs[3] *= 3
        if self.name == "with_spike_guard":  # just within the level, or just beyond it
            norms = np.linalg.norm(gs[:2], axis=(1, 2))
            far = (1.1 if self.sparse else 0.85) * self.numbers["factor"] * np.std(norms, ddof=1)
            gs[2] *= (np.mean(norms) + far) / np.linalg.norm(gs[2])
        elif self.sparse:
            gs[:, 0, 1] = 0
            gs[4] = 0
        if self.name in HOLD_AGAINST_INFINITY and self.sparse:
            gs[1, 2, 0] = np.inf
        return p, gs


def check(case: Case, jit: bool = False) -> None:
    """Holds the transformation against NumPy, in float64 and step by step."""
    rule = RULES[case.name]
    p, gs = case.arrays()
    expected = list(rule.steps(p, gs, **case.numbers))
    with jax.enable_x64(True):
        tx = optax.with_extra_args_support(rule.make(**case.numbers))
        update = jax.jit(tx.update) if jit else tx.update
        params = jax.numpy.asarray(p)
        state = tx.init(params)
        for step, g in enumerate(gs):
            u, state = update(jax.numpy.asarray(g), state, params, value=1.0)
            np.testing.assert_allclose(
                u, expected[step], rtol=1e-8, atol=1e-11, err_msg=f"step {step} of {case}"
            )
            params = params + u
