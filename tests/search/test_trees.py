"""Generated trees, values, hyperparameters and nestings: what holds of every update.

A program is compiled for a tree, a rule and what wraps it. Each of its rows is a case of its own:
other parameters, gradients and hyperparameters, traced, so that they share the program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from search.counting import AGAIN, count, long, short
from search.making import (
    ENTRIES,
    KEEPS_SIGNS,
    SIGN_RULES,
    THEIRS,
    abstract,
    alike,
    drawn,
    exact_values,
    gradients_of,
    leaves_of,
    nested,
    nestings,
    numbers,
    trees,
    values,
    walk,
    walk_eagerly,
)

ROWS = 48
# An update of float16 may be beyond its largest number, rightly: 30 / eps where eps is 1e-6.
ROOMY = ("float32", "bfloat16")
ALL = ENTRIES | {entry.name: entry for entry in THEIRS}
# Tiger's steps grow with the square of its weights, and with each caution around it.
NESTED = ALL.keys() - {"tiger"}
# Weights that are not at least float32 take their steps in float32, as the docstrings say; so do
# others' rules, whose steps have the gradients' dtype, of a mean that was accumulated in float32.
WIDE = {"master", "hyperball"}
# Exchanged leaves draw other random bits, or have the other leaf's path.
NOT_ALIKE = {"stochastic_signum"}
# A last bit more or less is a whole step here: an integer's threshold; a spread of 0, for scout;
# a sum of 0 under constant betas, which have another form of the sum in compiled code on CPUs.
THRESHOLDS = {"quantized", "quantized_8", "with_quantized_state", "stochastic_signum", "scout"}
THRESHOLDS |= {"lion_pytorch", "llm_foundry", "wiki_lion"}
# Another rule for a leaf whose norm is 0, which one order of operations meets and another misses:
# such leaves stay where they are while orders are compared.
NORMS = {"lars", "lamb", "ralars", "scale_by_lars_ratio", "scale_by_trust_ratio", "adamp"}
NORMS |= {f"holocron_{name}" for name in ("lars", "lamb", "ralars", "adamp")}
NORMS |= {"project_to_tangent", "optax_lamb", "per_layer"}
# The decay goes through the sign; gradients are shortened to an absolute length.
SCALED = {"wiki_lion", "mars_lion"}
seeds = st.integers(0, 2**32 - 1)


def is_refused(error):
    """A refusal in the library's form, which says what to try."""
    return isinstance(error, ValueError | TypeError) and "Try " in str(error)


def has_values(tree):
    """Tells whether any number moves, so that there is something to assert."""
    return any(
        w.has_gradient and w.dtype not in ("int32", "bool") and 0 not in w.shape
        for w in leaves_of(tree)
    )


def has_all_gradients(tree):
    """Tells whether no gradient is missing, which optax's own rules do not take."""
    return all(w.has_gradient and w.dtype not in ("int32", "bool") for w in leaves_of(tree))


def make_of(name, names):
    """From the numbers of a rule to the whole nesting."""
    return lambda **given: nested(names, ALL[name].make(**given))


def rows_of(name, seed, rows=ROWS):
    """The numbers of each row; of others' rules the ones that they have."""
    rng = np.random.default_rng(seed)
    return rng, numbers(name, rng, rows) if name in ENTRIES else {}


def many(make, *, moves=True):
    """The compiled walk of all rows."""
    return jax.jit(jax.vmap(functools.partial(walk, make, moves=moves), axis_size=ROWS))


def with_none(tree):
    """The leaves, None among them."""
    return jax.tree.leaves(tree, is_leaf=lambda x: x is None)


def spec(x):
    """The properties that must not change from step to step."""
    return x.shape, x.dtype, x.weak_type


# 1. The structure, by shapes alone: nothing is compiled.


def check_structure(tree, name, names):
    """The state keeps structure, shapes, dtypes and weak types; updates are like the parameters."""
    assume(names or name in ENTRIES or has_all_gradients(tree))
    params = abstract(tree)
    gradients = gradients_of(tree, lambda w: jax.ShapeDtypeStruct(w.shape, w.dtype))
    try:
        tx = nested(names, ALL[name].make())
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(tx.update, gradients, state, params)
    except (TypeError, ValueError) as error:
        if not is_refused(error):
            raise
        count("refused by a message that says what to try")
        return
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(spec, after) == jax.tree.map(spec, state)
    is_wide = bool(WIDE & {*names, name}) or (name not in ENTRIES and "accumulation" in names)
    for u, g, p in zip(*map(with_none, (updates, gradients, params)), strict=True):
        assert (u is None) == (g is None)
        assert u is None or (u.shape == p.shape and (is_wide or u.dtype == p.dtype))
    count("structure, shapes, dtypes and weak types stay")


@short(5)
@given(trees(), st.sampled_from(sorted(ALL)), nestings(0))
def test_state_and_updates_keep_their_structure(tree, name, names):
    check_structure(tree, name, names)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
@long(60)
@given(st.data())
def test_state_and_updates_keep_their_structure_at_length(part, data):
    name = data.draw(st.sampled_from(sorted(ALL)[part::8]))
    check_structure(data.draw(trees()), name, data.draw(nestings(0)))


@pytest.mark.slow
@long(40)
@given(trees(("float64", "float32", "bfloat16")), st.sampled_from(sorted(ALL)), nestings(0))
def test_float64_keeps_its_structure(tree, name, names):
    with jax.enable_x64(True):
        check_structure(tree, name, names)


# 2. Values: rows of one program.


def check_rows(tree, name, names, seed, *, same=False, eagerly=0):
    """Finite updates, leaves exchanged with their values, and one row at a time the same."""
    assume(has_values(tree))
    assume(names or name in ENTRIES or has_all_gradients(tree))
    make = make_of(name, names)
    rng, given = rows_of(name, seed)
    params, gradients = drawn(tree, rng, ROWS, exact_values if eagerly else values)
    try:
        jax.eval_shape(many(make), given, params, gradients)
    except (TypeError, ValueError) as error:
        if not is_refused(error):
            raise
        count("refused by a message that says what to try")
        return
    moves = not (eagerly and NORMS & {name, *names})
    run = many(make, moves=moves)
    updates, fast = run(given, params, gradients)
    for x in jax.tree.leaves((updates, fast)):
        assert np.isfinite(np.asarray(x, np.float64)).all(axis=tuple(range(1, x.ndim))).all()
    count("finite updates and parameters", ROWS)
    if same and not NOT_ALIKE & {name}:
        keys = sorted(params)
        turned = [*keys[1:], keys[0]]

        def turn(x):
            return dict(zip(keys, (x[k] for k in turned), strict=True))

        exchanged, _ = run(given, turn(params), turn(gradients))
        assert_near(exchanged, turn(updates), params, exact=False)
        count(AGAIN + "updates follow exchanged leaves", ROWS)
    if eagerly and not THRESHOLDS & {name, *names}:
        one = jax.jit(functools.partial(walk, make, moves=moves))
        by_hand = functools.partial(walk_eagerly, make, moves=moves)
        for way, rows in ((one, ROWS), (by_hand, eagerly)):
            is_eager = way is not one
            for row in range(rows):
                at = functools.partial(jax.tree.map, lambda x, row=row: jnp.asarray(x[row]))
                found, _ = way(at(given), at(params), at(gradients))
                assert_near(found, at(updates), at(params), exact=name in SIGN_RULES and not names)
            count(AGAIN + ("jit equals eager" if is_eager else "vmap equals a loop"), rows)


def assert_near(found, expected, params, *, exact):
    """Two programs' updates agree as far as their orders of operations do.

    XLA contracts a product and a sum into one rounding, and sums in another order. That is a few
    units in the last place of the largest number that went in; here the largest of the leaf's
    updates or parameters. Of numbers without rounding nothing may differ.
    """
    leaves = zip(*map(jax.tree.leaves, (found, expected)), strict=True)
    sizes = [np.max(np.abs(np.asarray(p, np.float64)), initial=1) for p in jax.tree.leaves(params)]
    size = float(max(sizes, default=1))
    for a, b in leaves:
        eps = float(jnp.finfo(b.dtype).eps) if jnp.issubdtype(b.dtype, jnp.floating) else 0
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        largest = max(float(np.max(np.abs(b), initial=0)), size)
        bound = 2 * eps * size if exact else max(4 * eps, 2e-4) * largest
        assert np.all(np.abs(a - b) <= bound), (a, b)


@short(2)
@given(alike(ROOMY), st.sampled_from(sorted(ALL)), seeds)
def test_a_rule_is_finite_on_any_values(tree, name, seed):
    check_rows(tree, name, [], seed, same=True)


@short(1)
@given(trees(ROOMY), st.sampled_from(sorted(NESTED)), nestings(), seeds)
def test_a_nesting_is_finite_on_any_values(tree, name, names, seed):
    check_rows(tree, name, names, seed)


every_entry = pytest.mark.parametrize("name", sorted(ALL))


@pytest.mark.slow
@every_entry
@long(1)
@given(alike(ROOMY), seeds)
def test_leaves_may_be_exchanged(name, tree, seed):
    check_rows(tree, name, [], seed, same=True)


@pytest.mark.slow
@every_entry
@long(1)
@given(trees(ROOMY), seeds)
def test_a_rule_is_the_same_compiled_mapped_and_by_itself(name, tree, seed):
    check_rows(tree, name, [], seed, eagerly=2)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(16))
@long(2)
@given(st.data())
def test_nestings_are_finite_on_any_values(part, data):
    name = data.draw(st.sampled_from(sorted(NESTED)[part::16]))
    check_rows(data.draw(trees(ROOMY)), name, data.draw(nestings()), data.draw(seeds))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
@long(2)
@given(st.data())
def test_nestings_are_the_same_compiled_mapped_and_by_themselves(part, data):
    name = data.draw(st.sampled_from(sorted(NESTED)[part::8]))
    check_rows(data.draw(trees(ROOMY)), name, data.draw(nestings()), data.draw(seeds), eagerly=1)


# 3. Sign rules: how far they step, and what they do not see.


def check_signs(tree, name, names, seed):
    """An entry moves by at most the learning rate and its decay, and sees no power of two."""
    assume(has_values(tree))
    assume(names or name in ENTRIES or has_all_gradients(tree))
    make = make_of(name, names)
    rng, given = rows_of(name, seed)
    params, gradients = drawn(tree, rng, ROWS)
    run = many(make)
    updates, before = run(given, params, gradients)
    h = ALL[name].scalars | {n: x.astype(np.float64) for n, x in given.items()}
    eta = h.get("lr", h.get("learning_rate", 1.0)) * np.ones(ROWS)
    decay = h.get("weight_decay", 0.0) * np.ones(ROWS)
    leaves = [
        (u, p) for u, p in zip(with_none(updates), with_none(before), strict=True) if u is not None
    ]
    for u, p in leaves:
        eps, tiny = float(jnp.finfo(u.dtype).eps), float(jnp.finfo(u.dtype).tiny)
        rows = (ROWS, *[1] * (u.ndim - 1))
        size = np.abs(np.asarray(u, np.float64))
        bound = eta.reshape(rows) * (1 + decay.reshape(rows) * np.abs(np.asarray(p, np.float64)))
        assert np.all(size <= bound * (1 + 4 * eps) + tiny)
    count("sign rules move by at most η(1 + λ|θ|)", ROWS)
    if name in SCALED:
        return
    # Eighths, scaled so that nothing becomes subnormal nor infinite, not even in float16.
    params, gradients = drawn(tree, rng, ROWS, exact_values)
    powers = 2.0 ** rng.integers(-6, 7, ROWS)

    def scaled(g):
        return (g.astype(np.float64) * powers.reshape(ROWS, *[1] * (g.ndim - 1))).astype(g.dtype)

    plain, _ = run(given, params, gradients)
    other, _ = run(given, params, jax.tree.map(scaled, gradients))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    count("sign rules do not see a power of two", ROWS)


@short(2)
@given(alike(), st.sampled_from(sorted(SIGN_RULES)), seeds)
def test_a_sign_rule_steps_by_its_learning_rate_whatever_the_scale(tree, name, seed):
    check_signs(tree, name, [], seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SIGN_RULES))
@long(3)
@given(trees(), st.lists(st.sampled_from(KEEPS_SIGNS), max_size=3), seeds)
def test_sign_rules_step_by_their_learning_rate_whatever_the_scale(name, tree, names, seed):
    check_signs(tree, name, names, seed)
