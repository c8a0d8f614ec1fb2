"""Wrong equations, each a change of one line, and the rule in `equations.RULES` that tells.

The killer of each is `test_equations.py::test_a_rule_is_its_equation` of that rule.
"""

import ast
import importlib
import inspect
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """A change of the source.

    Attributes:
      module: below `lion_jax`.
      old: text that is there once.
      new: what takes its place.
      rule: whose equation is then wrong.
    """

    module: str
    old: str
    new: str
    rule: str

    @property
    def name(self) -> str:
        """The change, as the table shows it."""
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.module}: {old} -> {new}"

    @property
    def killer(self) -> str:
        """The test that fails."""
        return f"test_equations.py::test_a_rule_is_its_equation[{self.rule}]"


def of(module: str, rule: str, *changes: tuple[str, str]) -> list[Mutant]:
    """Several mutants of one module, told by one rule."""
    return [Mutant(module, old, new, rule) for old, new in changes]


MUTANTS = [
    *of(
        "primitives.momentum",
        "interpolate_momentum",
        (
            "return (1 - b1) * g + b1 * m, (1 - b2) * g",
            "return (1 - b1) * g + b2 * m, (1 - b2) * g",
        ),
        ("+ b1 * m, (1 - b2) * g + b2 * m", "+ b1 * m, (1 - b1) * g + b1 * m"),
        ("(1 - b1) * g + b1 * m, (1 - b2) * g + b2 * m", "g + b1 * m, (1 - b2) * g + b2 * m"),
    ),
    *of(
        "primitives.momentum",
        "scale_by_sign_momentum",
        ("return jnp.sign(c), m", "return -jnp.sign(c), m"),
        ("return jnp.sign(c), m", "return jnp.sign(m), m"),
        ("return jnp.sign(c), m", "return c, m"),
    ),
    *of(
        "primitives.decay",
        "add_decoupled_weight_decay",
        (
            "return (u + k * weight_decay * share * p,)",
            "return (u - k * weight_decay * share * p,)",
        ),
        ("return (u + k * weight_decay * share * p,)", "return (u + weight_decay * share * p,)"),
        ("return (u + k * weight_decay * share * p,)", "return (u * (1 + k * weight_decay),)"),
    ),
    *of(
        "primitives.decay",
        "cautious_weight_decay",
        ("jnp.sign(u) * jnp.sign(p) >= 0", "jnp.sign(u) * jnp.sign(p) > 0"),
        (
            "jnp.sign(u) * jnp.sign(p) >= 0, decayed, u",
            "jnp.sign(u) * jnp.sign(p) >= 0, u, decayed",
        ),
    ),
    *of(
        "primitives.decay",
        "cautious_weight_decay_>",
        ("jnp.sign(u) * jnp.sign(p) > 0", "jnp.sign(u) * jnp.sign(p) < 0"),
        ("jnp.sign(u) * jnp.sign(p) > 0", "jnp.sign(u) * jnp.sign(p) >= 0"),
    ),
    *of(
        "primitives.decay",
        "cautious_weight_decay_sign_bits",
        ("jnp.signbit(u) == jnp.signbit(p)", "jnp.signbit(u) != jnp.signbit(p)"),
        ("jnp.signbit(u) == jnp.signbit(p)", "jnp.sign(u) == jnp.sign(p)"),
    ),
    *of(
        "primitives.decay",
        "apply_proximal_weight_decay",
        ("(u - shrinkage * p) / (1 + shrinkage)", "(u - shrinkage * p)"),
        ("(u - shrinkage * p) / (1 + shrinkage)", "u / (1 + shrinkage)"),
        (
            "shrinkage = number(learning_rate) * number(weight_decay)",
            "shrinkage = number(weight_decay)",
        ),
    ),
    *(
        Mutant("primitives.clipping", old, new, f"clip_by_{which}_norm")
        for which, old, new in [
            ("leaf", "u * shortening(sqrt(sum_of_squares(u)), max_norm)", "u * max_norm"),
            ("leaf", "sqrt(sum_of_squares(u)), max_norm", "sum_of_squares(u), max_norm"),
            ("global", "factor_of(sqrt(sum_leaves(", "factor_of((sum_leaves("),
            ("global", "return (u * factor,)", "return (u / factor,)"),
        ]
    ),
    *of(
        "primitives.nesterov",
        "scale_by_nesterov_adam",
        ("v = b2 * v + (1 - b2) * g**2\n    u =", "v = b2 * v + (1 - b2) * abs(g)\n    u ="),
        ("u = (b1 * m + (1 - b1) * g) / bias1 /", "u = m / bias1 /"),
        ("* g) / bias1 / (sqrt(v / bias2) + eps)", "* g) / (sqrt(v / bias2) + eps)"),
        ("* g) / bias1 / (sqrt(v / bias2) + eps)", "* g) / bias1 / sqrt(v / bias2 + eps)"),
        ("v = b2 * v + (1 - b2) * g**2\n    u =", "v = b1 * v + (1 - b1) * g**2\n    u ="),
    ),
    *of(
        "primitives.nesterov",
        "scale_by_adan",
        ("delta = jnp.where(t == 1, 0, g + negative_g)", "delta = g + negative_g"),
        (
            "delta = jnp.where(t == 1, 0, g + negative_g)",
            "delta = jnp.where(t == 1, 0, -g - negative_g)",
        ),
        ("v = b2 * v + (1 - b2) * delta", "v = b3 * v + (1 - b3) * delta"),
        ("(g + b2 * delta) ** 2", "(g + delta) ** 2"),
        ("(m / bias1 + b2 * v / bias2)", "(m / bias1 + v / bias2)"),
        ("(sqrt(n / bias3) + eps)", "(sqrt(n) + eps)"),
    ),
    *of(
        "primitives.rectified",
        "scale_by_rectified_adam",
        ("is_adaptive = rho > 4", "is_adaptive = rho > 5"),
        ("r2 = (rho - 4) * (rho - 2) * rho_inf", "r2 = (rho - 4) * (rho - 2) * rho"),
        ("rectification = jnp.sqrt(jnp.where", "rectification = (jnp.where"),
        ("rho_inf = 2 / (1 - b2) - 1", "rho_inf = 2 / (1 - b2)"),
        ("m_hat, v_hat = m / bias1, v / bias2", "m_hat, v_hat = m / bias1, v"),
    ),
    *of(
        "primitives.student_t",
        "scale_by_student_t",
        ("(nu + jnp.sum((g - m) ** 2 / (v + eps)))", "(nu + jnp.sum((g - m) ** 2 / (v)) + eps)"),
        ("w = (nu + g.size) /", "w = nu /"),
        ("m = (total * m + w * g) / (total + w)", "m = (total * m + g) / (total + 1)"),
        ("total = (2 * b1 - 1) / b1 * total + w", "total = b1 * total + w"),
        ("jnp.maximum(largest, v)", "jnp.minimum(largest, v)"),
        ("b1 / (1 - b1), at_least", "b1, at_least"),
    ),
    *of(
        "primitives._adam",
        "scale_by_ademamix",
        ("m2 = (1 - b3) * g + b3 * m2", "m2 = (1 - b1) * g + b1 * m2"),
        ("(m1 / bias1 + alpha * m2)", "(m1 / bias1 + alpha * m2 / bias1)"),
        ("(m1 / bias1 + alpha * m2)", "(m1 / bias1 - alpha * m2)"),
    ),
    *of(
        "primitives.two_speed",
        "scale_by_ademamix_warm",
        ("return number(alpha) * done(count)", "return number(alpha)"),
        ("(1 - s) * log_b3 + s * log_b1", "(1 - s) * log_b1 + s * log_b3"),
        ("t = next_count(count)", "t = count"),
    ),
    *of(
        "primitives.layerwise",
        "scale_by_trust_ratio",
        ("jnp.clip(norm(p), low, high), norm(u)", "norm(p), jnp.clip(norm(u), low, high)"),
        ("_divide(phi, u_norm), 1.0) * u", "_divide(u_norm, phi), 1.0) * u"),
    ),
    *of(
        "primitives.layerwise",
        "scale_by_lars_ratio",
        ("g_norm + weight_decay * p_norm)", "norm(g + weight_decay * p))"),
        ("return (r * (g + weight_decay * p),)", "return (r * g + weight_decay * p,)"),
        ("_divide(trust_coefficient * phi, g_norm", "_divide(phi, g_norm"),
    ),
    *of(
        "primitives.layerwise",
        "project_to_tangent",
        ("< delta / math.sqrt(max(dim, 1))", "< delta / max(dim, 1)"),
        ("< delta / math.sqrt(max(dim, 1))", "> delta / math.sqrt(max(dim, 1))"),
        ("return u - jnp.sum(p_hat * u, axes", "return u + jnp.sum(p_hat * u, axes"),
        (
            "is_by_channel | is_by_layer, wd_ratio, 1.0",
            "is_by_channel | is_by_layer, 1.0, wd_ratio",
        ),
        ("dot = jnp.sum(p * g, axes", "dot = jnp.sum(p * u, axes"),
    ),
    *of(
        "primitives.signs",
        "sign",
        ("return (jnp.sign(c),)", "return (-jnp.sign(c),)"),
        ("return (jnp.sign(c),)", "return (jnp.where(c >= 0, 1.0, -1.0),)"),
    ),
    *of(
        "primitives.signs",
        "lp_sign",
        ("(r / norm) ** (p - 1)", "(r / norm) ** p"),
        ("0.0)) ** (1 / p)", "0.0)) ** p"),
        ("jnp.sign(c) * (r / norm)", "(r / norm)"),
    ),
    *of(
        "primitives.signs",
        "tanh",
        ("jnp.tanh(scale * c)", "jnp.tanh(c / scale)"),
        ("jnp.tanh(scale * c)", "scale * jnp.tanh(c)"),
    ),
    *of(
        "primitives.signs",
        "huber",
        ("jnp.clip(c / jnp.maximum", "jnp.clip(c * jnp.maximum"),
        (".tiny), -1, 1),)", ".tiny), 0, 1),)"),
    ),
    *of(
        "primitives.signs",
        "l2_normalize_rows",
        ("axes = axes if c.ndim > 1 else ()", "axes = ()"),
        ("norm = sqrt(sum_of_squares(r, axes", "norm = (sum_of_squares(r, axes"),
    ),
    *of(
        "primitives.signs",
        "l2_normalize",
        ("norm = sqrt(sum_of_squares(r, axes", "norm = (sum_of_squares(r, axes"),
        (
            "return (r / jnp.where(norm > 0, norm, 1.0),)",
            "return (c / jnp.where(norm > 0, norm, 1.0),)",
        ),
    ),
    *of(
        "primitives.signs",
        "top_k_sign",
        ("jax.lax.top_k(jnp.abs(flat)", "jax.lax.top_k((flat)"),
        ("jnp.where(is_kept, jnp.sign(flat), 0)", "jnp.where(is_kept, 0, jnp.sign(flat))"),
    ),
    *of(
        "primitives.signs",
        "scale_by_shape",
        ("u * (2 / max(sum(u.shape[-2:]), 1))", "u * (2 / max(u.shape[-2:]))"),
        ("u * (2 / max(sum(u.shape[-2:]), 1))", "u * (1 / max(sum(u.shape[-2:]), 1))"),
    ),
    *of(
        "primitives.orthogonal",
        "orthogonalize_None",
        (
            "x = a * x + (b * gram + c3 * gram @ gram) @ x",
            "x = a * x - (b * gram + c3 * gram @ gram) @ x",
        ),
        ("keepdims=True)) + _or_tiny(eps, x))", "keepdims=True)) + _or_tiny(0.0, x))"),
        ("for _ in range(steps):", "for _ in range(steps - 1):"),
        ("x = x / (sqrt(sum_of_squares(x", "x = x / ((sum_of_squares(x"),
    ),
    *of(
        "primitives.orthogonal",
        "orthogonalize_rms",
        ("0.2 * max(rows, columns) ** 0.5", "0.2 * min(rows, columns) ** 0.5"),
        ("0.2 * max(rows, columns) ** 0.5", "max(rows, columns) ** 0.5"),
    ),
    *of(
        "primitives.orthogonal",
        "orthogonalize_rows_over_columns",
        ("max(1.0, rows / max(columns, 1)) ** 0.5", "max(1.0, columns / max(rows, 1)) ** 0.5"),
        ("max(1.0, rows / max(columns, 1)) ** 0.5", "max(1.0, rows / max(columns, 1))"),
    ),
    *of(
        "primitives.orthogonal",
        "orthogonalize_columns_over_rows",
        ("max(1.0, columns / max(rows, 1)) ** 0.5", "max(1.0, rows / max(columns, 1)) ** 0.5"),
    ),
    *of(
        "primitives.variance",
        "variance_reduced_gradient",
        ("* (g + negative_g)", "* (g - negative_g)"),
        ("gamma * b1 / (1 - b1)", "gamma * b1"),
        (
            "shortening(sqrt(sum_of_squares(a)), max_norm)",
            "shortening(sqrt(sum_of_squares(g)), max_norm)",
        ),
    ),
    *of(
        "primitives.parameter_rms",
        "scale_by_parameter_rms",
        ("return (jnp.maximum(_rms(p, None), min_rms) * u,)", "return (_rms(p, None) * u,)"),
        (
            "return (jnp.maximum(_rms(p, None), min_rms) * u,)",
            "return (jnp.maximum(_rms(u, None), min_rms) * u,)",
        ),
        ("return sqrt(sum_of_squares(p, axes", "return (sum_of_squares(p, axes"),
    ),
    *of(
        "primitives.lion_muon",
        "scale_by_lion_muon",
        (
            "_is_orthogonal(t, *period), lambda c: _polar(c, *steps), jnp.sign, c",
            "_is_orthogonal(t, *period), jnp.sign, lambda c: _polar(c, *steps), c",
        ),
        ("return 0.2 * max(matrix.shape) ** 0.5 *", "return 0.2 *"),
        ("return (t - 1) % period == 0", "return t % period == 0"),
    ),
    *of(
        "primitives.lion_muon",
        "scale_by_alternating_rate",
        ("return (t - 1) % period == 0", "return t % period == 0"),
        ("jnp.where(is_orthogonal, eta, eta_sign)", "jnp.where(is_orthogonal, eta_sign, eta)"),
        ("return (-jnp.where(is_orthogonal", "return (jnp.where(is_orthogonal"),
    ),
    *of(
        "combinators._slow_weights",
        "lookahead",
        (
            "slow + as_dtype_of(slow_step_size, slow) * (fast - slow)",
            "fast + as_dtype_of(slow_step_size, slow) * (slow - fast)",
        ),
        (
            "_slow_step(slow, p + u, slow_step_size) - p, u)",
            "_slow_step(slow, p + u, slow_step_size) - p - u, u)",
        ),
        (
            "_slow_step(slow, p + u, slow_step_size) - p, u)",
            "_slow_step(slow, p, slow_step_size) - p, u)",
        ),
    ),
    *of(
        "combinators.lookahead",
        "lookahead",
        ("is_sync = steps_since_sync >= jnp", "is_sync = steps_since_sync > jnp"),
        (
            "steps_since_sync=jnp.where(is_sync, 0, steps_since_sync)",
            "steps_since_sync=steps_since_sync",
        ),
    ),
    *of(
        "combinators.scout",
        "scout",
        ("alpha = jnp.maximum(1 - c, as_dtype", "alpha = jnp.maximum(c, as_dtype"),
        (
            "degrees = as_dtype_of(jnp.maximum(j - 1, 1), spread)",
            "degrees = as_dtype_of(j, spread)",
        ),
        ("spread + (u - old_mean) * (u - mean)", "spread + (u - mean) * (u - mean)"),
        ("jnp.maximum(high - mean, mean - low)", "high - low"),
        (
            "mean = old_mean + (u - old_mean) / as_dtype_of(j, u)",
            "mean = old_mean + u / as_dtype_of(j, u)",
        ),
    ),
    *of(
        "combinators.averaging",
        "with_parameter_average",
        (
            "average = decay * average + (1 - decay) * new_p",
            "average = (1 - decay) * average + decay * new_p",
        ),
        (
            "average = decay * average + (1 - decay) * new_p",
            "average = decay * average + (1 - decay) * p",
        ),
        ("decay=jnp.where(step == 0, 0.0, number(decay))", "decay=jnp.asarray(number(decay))"),
        (
            "u = jnp.where(is_overwrite, average - p, u)",
            "u = jnp.where(is_overwrite, average - new_p, u)",
        ),
    ),
    *of(
        "combinators.accumulation",
        "with_accumulation",
        ("mean = (gradient_sum + g) / jnp.asarray(every, g.dtype)", "mean = gradient_sum + g"),
        ("jnp.where(is_step, 0, gradient_sum) + jnp.where(is_step, 0, g)", "gradient_sum + g"),
        ("micro_step = jnp.where(is_step, 0, micro_step)", "micro_step = micro_step"),
    ),
    *of(
        "combinators.loss_scale",
        "with_loss_scale",
        (
            "g.astype(dtype) / loss_scale.astype(dtype)",
            "g.astype(dtype) * loss_scale.astype(dtype)",
        ),
        ("jnp.minimum(2 * loss_scale, _LARGEST)", "jnp.minimum(loss_scale / 2, _LARGEST)"),
        ("finite_steps=jnp.where(is_due, 0, finite_steps)", "finite_steps=finite_steps"),
    ),
    *of(
        "combinators.guard",
        "with_finite_guard",
        ("is_taken = is_finite(updates, axis_name)", "is_taken = ~is_finite(updates, axis_name)"),
        ("is_taken = is_finite(updates, axis_name)", "is_taken = jnp.asarray(True)"),
    ),
    *of(
        "combinators.spike_guard",
        "with_spike_guard",
        (
            "norm <= past.norm_mean + k * past.norm_deviation",
            "norm <= past.norm_mean - k * past.norm_deviation",
        ),
        ("jnp.sum(squares) / jnp.maximum(n - 1, 1)", "jnp.sum(squares) / jnp.maximum(n, 1)"),
        ("enough = max(2, max(2, window // 2) - 1)", "enough = window"),
    ),
    *(
        Mutant("combinators.cautious", old, new, f"cautious_{rescale}")
        for rescale, old, new in [
            ("count", "return size / (n + 1)", "return size / n"),
            (
                "count",
                "jnp.sign(direction) * jnp.sign(g) > 0",
                "jnp.sign(direction) * jnp.sign(g) < 0",
            ),
            ("mean", "1 / jnp.maximum(n / size, 1e-5)", "n / size"),
            ("mean_1e-3", "1 / jnp.maximum(n / size, 1e-3)", "1 / jnp.maximum(n / size, 1e-5)"),
            ("sign_bits", "size / jnp.maximum(n, 1)", "size / (n + 1)"),
            (
                "sign_bits",
                "jnp.signbit(direction) == jnp.signbit(g)",
                "jnp.signbit(direction) != jnp.signbit(g)",
            ),
            ("None", "u * jnp.where(is_kept, 1, factor)", "u * jnp.where(is_kept, factor, 1)"),
            ("None", "direction = u if is_direction else -u", "direction = u"),
            ("of_a_direction", "direction = u if is_direction else -u", "direction = -u"),
            ("count", "n = n + factor * (u.size - n)", "n = n + factor * u.size"),
        ]
    ),
    *of(
        "combinators.hyperball",
        "hyperball",
        ("w = p - eta * radius * u", "w = p + eta * radius * u"),
        ("w = p - eta * radius * u", "w = p - eta * u"),
        ("return (radius * w / _nonzero(_norm(w, axes)) - p,)", "return (w - p,)"),
        ("u / _nonzero(_norm(u, axes))", "u"),
    ),
]


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The library with a mutant in it.

    Functions and constants of the module are replaced; a factory, which others hold, gets the code
    of the changed one.
    """
    module = importlib.import_module(f"lion_jax.{mutant.module}")
    source = inspect.getsource(module)
    assert source.count(mutant.old) == 1, f"{source.count(mutant.old)} times: {mutant.old}"
    changed = source.replace(mutant.old, mutant.new)
    fresh = types.ModuleType(module.__name__)
    fresh.__dict__.update(__package__=module.__package__, __file__=module.__file__)
    exec(compile(changed, str(module.__file__), "exec"), fresh.__dict__)
    undo: list[tuple[Any, str, Any]] = []

    def put(owner, name, value):
        undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    try:
        for name in _defined(source):
            old, new = getattr(module, name), getattr(fresh, name)
            if hasattr(old, "static_args"):
                put(old.__wrapped__, "__code__", new.__wrapped__.__code__)
            else:
                put(module, name, new)
        yield
    finally:
        for owner, name, value in reversed(undo):
            setattr(owner, name, value)


def _defined(source: str) -> Iterator[str]:
    """The functions and constants of a module, without its classes."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
