"""Optimizer states that go on under a changed chain."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from catalogue import CATALOGUE, COMBINATORS
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from trees import Matrix, run, specs, tree
from versions import needs

import lion_jax
from lion_jax import carry_state, compat, groups, precision, primitives
from lion_jax._core.paths import name_of

GRADIENTS = [tree(seed=seed) for seed in range(1, 7)]
SCHEDULE = optax.linear_schedule(1e-2, 1e-3, 10)
QUICK = {"lion", "lars", "lookahead", "with_accumulation"}
ODD = {"mu": jnp.ones(2), "count": {"mu": jnp.ones(3), "inner_state": jnp.ones(())}, "nu": None}
PAIR = {"a": jnp.arange(3.0), "b": jnp.arange(4.0)}
RULES = {
    "lion": lion_jax.lion(1e-2, weight_decay=0.1),
    "lion_scheduled": lion_jax.lion(SCHEDULE),
    "optax_lion": optax.lion(SCHEDULE),
    "optax_adamw": optax.adamw(1e-2),
    "adan": lion_jax.adan(1e-2),
    "lars": lion_jax.lars(1e-2),
    "torch_sgd": compat.torch.sgd(1e-2, momentum=0.5),
}
WRAPPERS = {
    **{name: wrap for name, wrap in COMBINATORS.items() if name != "with_quantized_state"},
    "clip": lambda tx: optax.chain(primitives.clip_by_global_norm(1e9), tx),
    "multi_steps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "masked": lambda tx: optax.masked(tx, lambda params: jax.tree.map(lambda _: True, params)),
    "partition": lambda tx: optax.partition({"mu": tx}, lambda p: jax.tree.map(lambda _: "mu", p)),
    "named_chain": lambda tx: optax.named_chain(("nu", optax.identity()), ("mu", tx)),
    "injected": lambda tx: optax.inject_hyperparams(
        lambda factor: optax.chain(tx, optax.scale(factor))
    )(1.0),
}
every_rule = pytest.mark.parametrize("tx", RULES.values(), ids=RULES.keys())


def gradients_of(params, count=3):
    """A few gradients like the parameters."""
    return [jax.tree.map(lambda p, s=s: jnp.sin(p + s), params) for s in range(count)]


def trained(tx, params, count=3):
    """Parameters and state after a few steps."""
    return run(tx, params, gradients_of(params, count), jit=False)


def made_up(tx, params):
    """A state whose leaves are all different."""
    return jax.tree.map(
        lambda x, i: x + jnp.asarray(i + 1, x.dtype),
        state := tx.init(params),
        jax.tree.unflatten(jax.tree.structure(state), range(len(jax.tree.leaves(state)))),
    )


def plain(node):
    """A state as a checkpoint is restored without a target: names and NumPy arrays."""
    if isinstance(node, tuple) and hasattr(node, "_asdict"):
        return {name: plain(child) for name, child in node._asdict().items()} or None
    if isinstance(node, dict):
        return {str(key): plain(child) for key, child in node.items()}
    if isinstance(node, list | tuple):
        return [plain(child) for child in node]
    if hasattr(node, "__dataclass_fields__"):
        return {name: plain(getattr(node, name)) for name in node.__dataclass_fields__}
    return None if node is None else np.asarray(node)


def field(state, name, type_name=None):
    """The only field of this name."""
    return optax.tree_utils.tree_get(
        state,
        name,
        filtering=lambda path, _: type_name in (None, getattr(path[-1], "tuple_name", "")),
    )


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(e, id=e.name, marks=[] if e.name in QUICK else pytest.mark.slow)
        for e in CATALOGUE
    ],
)
def test_under_its_own_transformation_a_state_stays_as_it_is(entry):
    tx = entry.make()
    params, state = run(tx, tree(), GRADIENTS[:3])
    for old in (state, plain(state)):
        same, report = carry_state(old, tx, params)
        chex.assert_trees_all_equal(same, state)
        assert specs(same) == specs(state)
        assert (report.dropped, report.created) == ((), ())
        assert len(report.carried) == len(jax.tree.leaves(state))


@pytest.mark.sampled
@every_rule
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_what_is_wrapped_keeps_its_state_and_so_does_what_is_unwrapped(tx, wrap):
    params, state = tree(), made_up(tx, tree())
    wrapped, report = carry_state(state, wrap(tx), params)
    assert jax.tree.structure(wrapped) == jax.tree.structure(wrap(tx).init(params))
    assert len(report.carried) == len(jax.tree.leaves(state))
    assert report.dropped == ()
    unwrapped, report = carry_state(wrapped, tx, params)
    chex.assert_trees_all_equal(unwrapped, state)
    assert report.created == ()
    _, new_state = jax.eval_shape(wrap(tx).update, GRADIENTS[3], wrapped, params)
    assert specs(new_state) == specs(wrapped)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=100, deadline=None)
def test_moments_survive_any_stack_of_wrappers(data):
    """Whatever the parameters are called."""
    stacks = st.lists(st.sampled_from(sorted(WRAPPERS)), unique=True, max_size=4)
    tx = RULES[data.draw(st.sampled_from(sorted(RULES)))]
    names = data.draw(stacks), data.draw(stacks)
    before, after = (
        functools.reduce(lambda inner, name: WRAPPERS[name](inner), stack, tx) for stack in names
    )
    params = data.draw(st.sampled_from([ODD, PAIR, jnp.ones(3), (jnp.ones(2), [jnp.ones(3)])]))
    own = made_up(tx, params)
    state, _ = carry_state(own, before, params)
    # Without types such parameters, and the count of what is injected, look like what they are not.
    if params is not ODD and "injected" not in (*names[0], *names[1]) and data.draw(st.booleans()):
        state = plain(state)
    state, _ = carry_state(state, after, params)
    chex.assert_trees_all_equal(carry_state(state, tx, params)[0], own)


INACTIVE = {
    "clipping": WRAPPERS["clip"],
    "guard": lion_jax.with_finite_guard,
    "loss_scale": lambda tx: lion_jax.with_loss_scale(tx, 1.0),
    "average": lion_jax.with_parameter_average,
    "metrics": lion_jax.with_metrics,
}


@pytest.mark.slow
@every_rule
@pytest.mark.parametrize("wrap", INACTIVE.values(), ids=INACTIVE.keys())
def test_an_addition_that_does_nothing_changes_nothing(tx, wrap):
    gradients = gradients_of(PAIR, 5)
    always, _ = run(wrap(tx), PAIR, gradients, jit=False)
    params, state = run(tx, PAIR, gradients[:3], jit=False)
    state, _ = carry_state(state, wrap(tx), params)
    chex.assert_trees_all_equal(go_on(wrap(tx), params, state, gradients[3:])[0], always)


@pytest.mark.sampled
@pytest.mark.parametrize("tx", [RULES["lion"], RULES["optax_adamw"]], ids=["lion", "adamw"])
def test_lookahead_begun_at_a_synchronization_is_as_if_it_had_been_there(tx):
    """A full slow step never moves anything back, so that before it made no difference."""
    full = lion_jax.lookahead(tx, 3, 1.0)
    params, state = trained(full, PAIR)
    bare, _ = carry_state(state, tx, params)
    again, _ = carry_state(bare, full, params)
    chex.assert_trees_all_equal(again, state)


def go_on(tx, params, state, gradients):
    """As `run`, from a state."""
    return run(tx._replace(init=lambda _: state), params, gradients, jit=False)


def test_a_schedule_goes_on_where_it_was_in_another_lion():
    params, state = trained(optax.lion(SCHEDULE), PAIR)
    for tx in (
        optax.lion(SCHEDULE, weight_decay=0.0),
        lion_jax.lion(SCHEDULE),
        lion_jax.lookahead(lion_jax.lion(SCHEDULE)),
    ):
        new, _ = carry_state(state, tx, params)
        chex.assert_trees_all_equal(field(new, "mu"), state[0].mu)
        updates, _ = tx.update(gradients_of(PAIR)[0], new, params)
        np.testing.assert_allclose(jnp.abs(updates["b"]), SCHEDULE(3), rtol=1e-6)


def test_a_number_becomes_a_schedule_that_begins_unless_steps_were_counted():
    params, state = trained(lion_jax.lion(1e-2), PAIR)
    scheduled, report = carry_state(state, lion_jax.lion(SCHEDULE), params)
    chex.assert_trees_all_equal(field(scheduled, "mu"), field(state, "mu"))
    assert (report.dropped, report.created) == ((), ())
    assert field(scheduled, "schedule_count") == 3
    params, state = trained(optax.adamw(1e-2), PAIR)
    scheduled, report = carry_state(state, optax.adamw(SCHEDULE), params)
    assert field(scheduled, "count", "ScaleByAdamState") == 3
    assert field(scheduled, "count", "ScaleByScheduleState") == 0
    assert report.created == ("2/count",)


def test_adamw_to_lion_carries_mu_and_drops_nu():
    params, state = trained(optax.adamw(1e-2), PAIR)
    new, report = carry_state(state, optax.lion(1e-3), params)
    chex.assert_trees_all_equal(new[0].mu, state[0].mu)
    assert report.dropped == ("0/nu/a", "0/nu/b")
    assert report.created == ()


@pytest.mark.parametrize(
    "rule", [optax.adamw(SCHEDULE), lion_jax.adan(SCHEDULE)], ids=["adamw", "adan"]
)
def test_a_rule_whose_other_moments_are_missing_starts_anew(rule):
    """A mu of many steps under a count of none would be corrected for a bias that it has not."""
    params, state = trained(optax.lion(SCHEDULE), PAIR)
    new, report = carry_state(state, rule, params)
    fresh = rule.init(params)
    chex.assert_trees_all_equal(field(new, "mu"), field(fresh, "mu"))
    assert sum("mu" in path.split("/") for path in report.dropped) == 2


def test_unread_fields_do_not_stop_a_momentum():
    params, state = trained(lion_jax.lion(1e-2), PAIR)
    new, report = carry_state(state, optax.lion(1e-2), params)
    chex.assert_trees_all_equal(new[0].mu, field(state, "mu"))
    assert report.created == ("0/count",)


def test_another_dtype_is_cast_and_the_report_says_so():
    params, state = trained(optax.lion(1e-2), PAIR)
    new, report = carry_state(state, optax.lion(1e-2, mu_dtype=jnp.bfloat16), params)
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state[0].mu)
    chex.assert_trees_all_equal(new[0].mu, expected)
    chex.assert_trees_all_equal_dtypes(new[0].mu, expected)
    assert "carried  mu (2 leaves, float32 to bfloat16)" in str(report).splitlines()


def test_slow_weights_and_averages_start_from_the_parameters_of_now():
    params, state = trained(lion_jax.lion(1e-2), PAIR)
    new, _ = carry_state(state, lion_jax.lookahead(lion_jax.lion(1e-2)), params)
    chex.assert_trees_all_equal(lion_jax.slow_params(new), params)
    assert all(new.slow_params[k] is not params[k] for k in params)


def test_freezing_drops_moments_and_unfreezing_creates_them():
    tx, frozen = optax.lion(1e-2), groups.freeze(optax.lion(1e-2), "^b")
    params, state = trained(tx, PAIR)
    less, report = carry_state(state, frozen, params)
    np.testing.assert_array_equal(field(less, "mu")["a"], state[0].mu["a"])
    assert report.dropped == ("0/mu/b",)
    for half in (less, plain(less)):
        more, report = carry_state(half, tx, params)
        assert report.created == ("0/mu/b",)
        chex.assert_trees_all_equal(more[0].mu, {"a": state[0].mu["a"], "b": jnp.zeros(4)})


def parted(**by_label):
    """An `optax.partition` whose labels are the parameters' names, or those of others."""
    rules, labels = zip(*by_label.values(), strict=True)
    return optax.partition(
        dict(zip(by_label, rules, strict=True)),
        {leaf: label for label, leaves in zip(by_label, labels, strict=True) for leaf in leaves},
    )


def test_a_state_that_is_split_takes_its_counts_along():
    """Otherwise Adam's bias correction and the schedule of the second group began again."""
    adamw = optax.adamw(SCHEDULE)
    params, state = trained(adamw, PAIR)
    split = parted(one=(adamw, "a"), two=(adamw, "b"))
    new, report = carry_state(state, split, params)
    assert (report.dropped, report.created) == ((), ())
    for label in ("one", "two"):
        adam, _, schedule = new.inner_states[label].inner_state
        assert (adam.count, schedule.count) == (3, 3)
    expected = go_on(adamw, params, state, gradients_of(PAIR))[0]
    chex.assert_trees_all_equal(go_on(split, params, new, gradients_of(PAIR))[0], expected)
    joined, report = carry_state(new, adamw, params)
    chex.assert_trees_all_equal(joined, state)
    assert report.created == ()


class Codes(NamedTuple):
    """What stands for a moment that is stored in another form."""

    codes: jax.Array


def test_what_stands_for_a_moment_stays_with_its_parameter():
    def init(params):
        return {"mu": jax.tree.map(lambda p: Codes(jnp.arange(4) + p.size), params)}

    tx = optax.GradientTransformation(init, optax.identity().update)
    new, report = carry_state(
        tx.init({"a": PAIR["a"], "c": PAIR["b"]}), lion_jax.lookahead(tx), PAIR
    )
    np.testing.assert_array_equal(new.inner_state["mu"]["a"].codes, jnp.arange(4) + 3)
    assert report.dropped == ("mu/c/codes",)
    assert "inner_state/mu/b/codes" in report.created


def test_schedules_keep_to_their_labels():
    lion, three = optax.lion(SCHEDULE), PAIR | {"c": jnp.arange(5.0)}
    state = made_up(parted(x=(lion, "ab"), z=(lion, "c")), three)
    new, _ = carry_state(state, parted(a=(lion, "a"), x=(lion, "b"), z=(lion, "c")), three)
    for label in "xz":
        schedule = new.inner_states[label].inner_state[2]
        assert schedule.count == state.inner_states[label].inner_state[2].count


def test_labels_may_be_numbers():
    adamw = optax.adamw(SCHEDULE)
    params, state = trained(adamw, PAIR)
    _, report = carry_state(state, optax.partition({0: adamw, 1: adamw}, {"a": 0, "b": 1}), params)
    assert (report.dropped, report.created) == ((), ())


def test_moments_follow_a_parameter_to_another_group():
    one, two = optax.adamw(1e-2), optax.sgd(1e-2, momentum=0.5)
    three = PAIR | {"c": jnp.arange(5.0)}
    params, state = trained(parted(x=(one, "ab"), y=(two, "c")), three)
    new, report = carry_state(state, parted(new=(one, "b"), x=(two, "c"), y=(one, "a")), params)
    before, after = state.inner_states["x"].inner_state[0], new.inner_states
    np.testing.assert_array_equal(after["new"].inner_state[0].nu["b"], before.nu["b"])
    np.testing.assert_array_equal(after["y"].inner_state[0].nu["a"], before.nu["a"])
    assert after["new"].inner_state[0].count == after["y"].inner_state[0].count == 3
    assert (report.dropped, report.created) == ((), ())


def test_a_count_without_its_moments_starts_anew():
    params, state = trained(parted(x=(optax.adamw(1e-2), "a"), y=(optax.sgd(1e-2), "b")), PAIR)
    new, report = carry_state(
        state, parted(x=(optax.adamw(1e-2), "a"), y=(optax.adamw(1e-2), "b")), params
    )
    assert new.inner_states["x"].inner_state[0].count == 3
    assert new.inner_states["y"].inner_state[0].count == 0
    assert "inner_states/y/inner_state/0/count" in report.created


def test_states_alike_keep_their_order_and_nothing_is_carried_twice():
    def two(a, b):
        return optax.chain(optax.trace(a), optax.trace(b), optax.scale(-1e-2))

    params, state = trained(two(0.5, 0.9), PAIR)
    new, _ = carry_state(state, optax.chain(optax.clip(1.0), two(0.5, 0.9)), params)
    chex.assert_trees_all_equal(new[1], state)
    masked = optax.chain(optax.masked(optax.trace(0.5), {"a": True, "b": False}), optax.trace(0.9))
    new, _ = carry_state(state, masked, params)
    chex.assert_trees_all_equal(new[1], state[1])
    new, report = carry_state(state[:1], two(0.5, 0.9), params)
    chex.assert_trees_all_equal(new[0], state[0])
    assert report.created == ("1/trace/a", "1/trace/b")


def test_injected_numbers_go_on_and_the_report_warns_of_them():
    inject = optax.inject_hyperparams(optax.lion)
    params, state = trained(inject(1e-2), PAIR)
    new, report = carry_state(state, inject(1e-3), params)
    assert new.hyperparams["learning_rate"] == np.float32(1e-2)
    assert "carried  hyperparams (4 leaves, learning_rate stays 0.01, not 0.001; " in str(report)
    new, report = carry_state(state, inject(1e-3), params, fresh="hyperparams/")
    assert new.hyperparams["learning_rate"] == np.float32(1e-3)
    assert "hyperparams/learning_rate" in report.created
    assert "stays" not in str(report)
    params, state = trained(inject(SCHEDULE), PAIR)
    _, report = carry_state(state, inject(SCHEDULE), params)
    assert "stays" not in str(report), "the schedule writes it anew"


def test_names_alone_decide_on_a_restored_state():
    params, state = trained(optax.lion(SCHEDULE), ODD)
    for restored in (plain(state), {"0": plain(state[0]), "2": plain(state[2])}):
        new, report = carry_state(restored, lion_jax.lookahead(optax.lion(SCHEDULE)), params)
        chex.assert_trees_all_equal(new.inner_state, state)
        assert (len(report.created), report.dropped) == (4, ())


@pytest.mark.slow
def test_sharded_arrays_stay_where_they_are():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    params = jax.device_put({"w": jnp.arange(16.0).reshape(8, 2)}, sharding)
    params, state = trained(optax.adamw(1e-2), params)
    new, _ = carry_state(state, optax.lion(1e-2, mu_dtype=jnp.bfloat16), params)
    assert new[0].mu["w"].sharding == sharding
    new, _ = carry_state(plain(state), optax.adamw(1e-2), params)
    assert new[0].mu["w"].sharding == new[0].nu["w"].sharding == sharding
    new, _ = carry_state(state, optax.adamw(1e-2), params)
    assert new[0].mu["w"] is state[0].mu["w"]


def test_the_new_state_can_be_donated_with_the_parameters():
    adamw = optax.adamw(SCHEDULE)
    params, state = trained(adamw, PAIR)
    split = lion_jax.lookahead(parted(one=(adamw, "a"), two=(adamw, "b")))
    new, _ = carry_state(state, split, params)
    updates, _ = jax.jit(split.update, donate_argnums=(1, 2))(gradients_of(PAIR)[0], new, params)
    chex.assert_tree_all_finite(updates)


def test_a_restore_can_be_planned_without_arrays():
    adamw, lookahead = optax.adamw(1e-2), lion_jax.lookahead(optax.adamw(1e-2))
    params, state = tree(), made_up(adamw, tree())
    expected, said = carry_state(state, lookahead, params)
    abstract = jax.eval_shape(lambda: (state, params))
    planned, report = carry_state(abstract[0], lookahead, abstract[1])
    assert specs(planned) == specs(expected)
    assert report == said
    traced, report = jax.eval_shape(lambda s, p: carry_state(s, lookahead, p), *abstract)
    assert specs(traced) == specs(expected)
    assert report == said
    jitted, report = jax.jit(lambda s, p: carry_state(s, lookahead, p))(state, params)
    chex.assert_trees_all_equal(jitted, expected)
    assert str(report) == str(said)


def test_a_state_of_other_parameters_is_refused_by_its_first_path():
    tx = lion_jax.lookahead(optax.chain(optax.clip(1.0), optax.lion(1e-2)))
    with_head = {"body": jnp.ones(2), "head": {"kernel": jnp.ones((2, 3))}}
    states = tx.init(with_head), plain(tx.init(with_head))
    path = "inner_state/1/0/mu/head/kernel"
    for state in states:
        for params, needed in [
            ({"body": jnp.ones(2)}, "none"),
            (
                {"body": jnp.ones(2), "head": {"kernel": jnp.ones((2, 5))}},
                r"float of shape \(2, 5\)",
            ),
        ]:
            with pytest.raises(
                ValueError,
                match=rf"^old_state must .*got float of shape \(2, 3\) at {path}, .*{needed}. Try",
            ):
                carry_state(state, optax.chain(optax.lion(1e-2)), params)
    with pytest.raises(ValueError, match="got none at 0/mu/tail, where params need float"):
        carry_state(states[0], optax.lion(1e-2), with_head | {"tail": jnp.ones(2)})
    with pytest.raises(
        ValueError, match=r"got none at 0/mu, where params need float|float of shape .2,. at"
    ):
        carry_state(states[0], optax.lion(1e-2), jnp.ones(3))


def test_parameters_of_a_dataclass_are_compared_too():
    params, state = tree(), optax.lion(1e-2).init(tree())
    del params["layer"]
    with pytest.raises(ValueError, match="at 0/mu/layer/kernel, where params need none"):
        carry_state(state, optax.lion(1e-2), params)


def test_numbers_of_another_kind_are_refused():
    params, state = trained(optax.lion(1e-2), PAIR)
    codes = (
        state[0]._replace(mu=jax.tree.map(lambda x: x.astype(jnp.int8), state[0].mu)),
        *state[1:],
    )
    with pytest.raises(
        ValueError, match=r"got int8 of shape \(3,\) at 0/mu/a, .*need float of shape"
    ):
        carry_state(codes, optax.lion(1e-2), params)


def test_an_exchanged_part_starts_anew_if_asked_for():
    params, state = trained(optax.lion(1e-2), {"body": jnp.ones(2), "head": jnp.ones(3)})
    for params in ({"body": jnp.ones(2), "head": jnp.ones(5)}, {"body": jnp.ones(2)}):
        new, report = carry_state(state, optax.lion(1e-2), params, fresh=["mu/head"])
        np.testing.assert_array_equal(new[0].mu["body"], state[0].mu["body"])
        assert "0/mu/head" in report.dropped
        assert ("0/mu/head" in report.created) is ("head" in params)
    with pytest.raises(ValueError, match=r"Near misses: .*0/mu/head"):
        carry_state(
            state, optax.lion(1e-2), {"body": jnp.ones(2), "head": jnp.ones(5)}, fresh="mu/haed"
        )


@pytest.mark.parametrize(
    ("old", "path"),
    [(PAIR, "a"), ({"w": jnp.ones(7)}, "w"), (optax.trace(0.5).init(PAIR), "trace/a")],
)
def test_a_foreign_state_is_refused(old, path):
    with pytest.raises(ValueError, match=rf"^old_state must .*got {path} as its first leaf.*Try"):
        carry_state(old, lion_jax.lion(1e-2), PAIR)


def test_where_there_is_nothing_to_carry_nothing_is_missed():
    params, state = trained(optax.sgd(1e-2), PAIR)
    new, report = carry_state(state, optax.lion(1e-2), params)
    chex.assert_trees_all_equal(new, optax.lion(1e-2).init(params))
    assert str(report) == "created  count (1 leaf)\ncreated  mu (2 leaves)"
    new, report = carry_state(new, optax.sgd(1e-2), params)
    assert (new, report.carried) == (state, ())
    assert carry_state((), optax.sgd(1e-2), {})[1].lines == ()


@pytest.mark.parametrize("wrong", [optax.lion, 1e-3, None])
def test_refuses_what_is_no_transformation(wrong):
    with pytest.raises(TypeError, match=r"^new_transformation must be an optax\.Gradient"):
        carry_state((), wrong, PAIR)


def test_the_report_reads_by_field():
    params, state = tree(), optax.adamw(SCHEDULE).init(tree())
    new = lion_jax.lookahead(optax.chain(optax.clip(1.0), optax.lion(SCHEDULE)))
    _, report = carry_state(state, new, params)
    assert str(report).splitlines() == [
        "carried  count of ScaleByLionState (1 leaf)",
        "carried  mu (6 leaves)",
        "carried  count of ScaleByScheduleState (1 leaf)",
        "dropped  nu (6 leaves)",
        "created  slow_params (6 leaves)",
        "created  steps_since_sync (1 leaf)",
    ]
    assert "inner_state/1/0/mu/layer/kernel" in report.carried
    assert "0/nu/tuple/2" in report.dropped


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (optax.adamw(SCHEDULE), optax.inject_hyperparams(optax.adamw)(SCHEDULE)),
        (lion_jax.lion(SCHEDULE), optax.inject_hyperparams(lion_jax.lion)(SCHEDULE)),
        (
            optax.inject_hyperparams(optax.adamw)(1e-2),
            optax.inject_hyperparams(optax.adamw)(SCHEDULE),
        ),
    ],
    ids=["adamw", "lion", "number"],
)
def test_an_injected_schedule_goes_on_too(old, new):
    params, state = trained(old, PAIR)
    state, _ = carry_state(state, new, params)
    _, state = new.update(gradients_of(PAIR)[0], state, params)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], SCHEDULE(3))


@pytest.mark.slow
def test_signs_may_be_counted_from_now_on():
    params = PAIR
    for before, after in ((False, True), (True, False), (None, True)):
        old, new = (
            lion_jax.with_metrics(RULES["optax_lion"], sign_flips=x) for x in (before, after)
        )
        state = trained(old, params)[1]
        chex.assert_trees_all_equal(
            field(carry_state(state, new, params)[0], "mu"), field(state, "mu")
        )


def test_integers_of_another_width_are_refused():
    """They mean other numbers: -51 of 128 is not -51 of 32,768."""
    params = jnp.ones(4, jnp.bfloat16)
    old = precision.with_master_weights(optax.sgd(1.0)).init(params)
    new = precision.with_master_weights(optax.sgd(1.0), correction_bits=16)
    with pytest.raises(ValueError, match=r"got int8 of shape \(4,\) at correction.*need int16"):
        lion_jax.carry_state(old, new, params)


@pytest.mark.slow
def test_a_state_does_not_go_into_integers_or_out_of_them():
    """The step count would go on beside moments that start anew."""
    params, tx = jnp.ones((64, 64)), optax.adamw(1e-3)
    stored = precision.with_quantized_state(tx)
    with pytest.raises(ValueError, match=r"got one without for one with with_quantized.*Try"):
        lion_jax.carry_state(tx.init(params), stored, params)
    with pytest.raises(ValueError, match=r"got one with for one without with_quantized.*Try"):
        lion_jax.carry_state(stored.init(params), tx, params)


def wrapped(tx, params, gradients):
    """An nnx model of these parameters and its optimizer, trained by these gradients."""
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=params["kernel"].dtype)
    nnx.update(model, params)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    return go_on_wrapped(model, optimizer, gradients)


def go_on_wrapped(model, optimizer, gradients):
    like = nnx.state(model, nnx.Param)
    for gradient in gradients:
        optimizer.update(model, jax.tree.unflatten(jax.tree.structure(like), gradient.values()))
    return model, optimizer


NNX = {
    "adamw": (optax.adamw(SCHEDULE), jnp.float32),
    "lion": (lion_jax.lion(SCHEDULE, weight_decay=0.1), jnp.float32),
    "average": (lion_jax.with_parameter_average(lion_jax.lookahead(optax.lion(1e-2))), jnp.float32),
    "injected": (optax.inject_hyperparams(optax.adam)(SCHEDULE), jnp.float32),
    "codes": (precision.with_quantized_state(lion_jax.adan(SCHEDULE), min_size=0), jnp.float32),
    "master": (precision.with_master_weights(lion_jax.lion(SCHEDULE)), jnp.bfloat16),
}


@needs(nnx, "as_pure")
@pytest.mark.slow
@pytest.mark.parametrize(("tx", "dtype"), NNX.values(), ids=NNX.keys())
def test_a_run_in_nnx_goes_on_as_one_without(tx, dtype):
    """Carried, put back into an optimizer of nnx, and trained on."""
    params = {"bias": jnp.ones(3, dtype), "kernel": jnp.sin(jnp.arange(12.0, dtype=dtype))}
    params["kernel"] = params["kernel"].reshape(4, 3)
    gradients = gradients_of(params, 4)
    new = optax.chain(optax.clip_by_global_norm(1e9), tx)

    bare, state = run(tx, params, gradients[:2], jit=False)
    state, said = carry_state(state, new, bare)
    expected = go_on(new, bare, state, gradients[2:])

    model, optimizer = wrapped(tx, params, gradients[:2])
    now = nnx.state(model, nnx.Param)
    for params in (now, nnx.to_pure_dict(now)):
        for old in (optimizer.opt_state, nnx.as_pure(optimizer.opt_state)):
            carried, report = carry_state(old, new, params)
            assert jax.tree.structure(carried) == jax.tree.structure(new.init(params))
            chex.assert_trees_all_equal(jax.tree.leaves(carried), jax.tree.leaves(state))
            assert report == said
    again = nnx.Optimizer(model, new, wrt=nnx.Param)
    nnx.update(again.opt_state, nnx.state(carry_state(optimizer.opt_state, new, now)[0]))
    model, again = go_on_wrapped(model, again, gradients[2:])
    actual = nnx.to_pure_dict(nnx.state(model, nnx.Param)), again.opt_state
    chex.assert_trees_all_equal(jax.tree.leaves(actual), jax.tree.leaves(expected))


def test_a_state_that_nnx_split_goes_on_by_its_names():
    params = {"bias": jnp.ones(3), "kernel": jnp.ones((4, 3))}
    _, optimizer = wrapped(optax.adamw(SCHEDULE), params, gradients_of(params))
    split = nnx.state(optimizer)["opt_state"]
    carried, report = carry_state(split, optax.adamw(SCHEDULE), params)
    chex.assert_trees_all_equal(jax.tree.leaves(carried), jax.tree.leaves(optimizer.opt_state))
    assert (report.dropped, report.created) == ((), ())


CODES = {"w": jnp.ones((16, 8)), "b": jnp.ones(3)}
STORED = {
    "lion": lion_jax.lion(1e-3),
    "optax_lion": optax.lion(1e-3),
    "sgd": optax.sgd(1e-3, momentum=0.9),
    "adamw": optax.adamw(1e-3),
    "adabelief": lion_jax.adabelief(1e-3),
    "adan": lion_jax.adan(1e-3),
    "ademamix": lion_jax.ademamix(1e-3),
    "amsgrad": optax.amsgrad(1e-3),
    "injected": optax.inject_hyperparams(optax.adamw)(1e-3),
}


MOMENTS = {"mu", "nu", "trace", "count", "n", "v", "mu_fast", "mu_slow", "nu_max", "difference"}


def stored(tx):
    return precision.with_quantized_state(tx, min_size=64)


def fates(wrap, old, new):
    """The moments and counts that are carried, created and dropped."""
    state, tx = made_up(wrap(STORED[old]), CODES), wrap(STORED[new])
    try:
        reports = [carry_state(s, tx, CODES)[1] for s in (state, plain(state))]
    except ValueError:  # nothing fits
        created, dropped = (fields_of(wrap(STORED[name]).init(CODES)) for name in (new, old))
        return set(), created, dropped
    found = [
        tuple(
            {name for path in paths for name in path.split("/")} & MOMENTS
            for paths in (report.carried, report.created, report.dropped)
        )
        for report in reports
    ]
    assert found[0] == found[1]
    return found[0]


def fields_of(state):
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {name_of(key) for keys, _ in leaves for key in keys} & MOMENTS


@pytest.mark.parametrize("new", STORED)
@pytest.mark.parametrize("old", ["lion", "adamw", "adan", "sgd"])
def test_moments_stored_as_integers_are_known_by_their_names(old, new):
    """What goes on, and what does not, is as without `with_quantized_state`."""
    assert fates(stored, old, new) == fates(lambda tx: tx, old, new)


@pytest.mark.slow
def test_the_integers_of_a_moment_go_on_with_their_exponents_or_not_at_all():
    params, state = trained(stored(optax.adamw(1e-3)), CODES)
    for pattern in ("mu/codes/w", "mu/exponents/w"):
        new, report = carry_state(state, stored(optax.adamw(1e-3)), params, fresh=pattern)
        fresh = stored(optax.adamw(1e-3)).init(params)
        made, begun = (field(s, "mu", "ScaleByAdamState") for s in (new, fresh))
        chex.assert_trees_all_equal(
            (made.codes["w"], made.exponents["w"]), (begun.codes["w"], begun.exponents["w"])
        )
        assert sum("mu" in path for path in report.created) == 2
        assert not any("nu" in path for path in report.created)


def test_a_nu_that_is_no_square_is_not_taken_for_one():
    sophia = optax.contrib.sophia(1e-3)
    old = stored(sophia).init(CODES)
    _, report = carry_state(old, stored(optax.adamw(1e-3)), CODES)
    assert not any("codes" in path for path in report.carried)


def test_integers_of_four_bits_are_not_read_as_eight():
    old = precision.with_quantized_state(optax.adamw(1e-3), min_size=0, bits=4).init(CODES)
    new = precision.with_quantized_state(optax.adamw(1e-3), min_size=0)
    with pytest.raises(ValueError, match=r"got int4 of shape .* need int8 .*Try the bits and min"):
        carry_state(old, new, CODES)


def grouped(tx, size):
    return precision.with_quantized_state(tx, min_size=64, group_size=size)


@pytest.mark.parametrize("wrap", [lambda tx: tx, WRAPPERS["lookahead"]], ids=["bare", "lookahead"])
def test_groups_of_another_size_are_refused(wrap):
    old = grouped(lion_jax.lion(1e-3), 32).init(CODES)
    new = wrap(grouped(lion_jax.lion(1e-3), 20))
    message = r"got group_size=32 at .*group_size/32, where .*=20\. Try group_size=32"
    for state in (old, plain(old)):
        for fresh in ((), "group_size"):
            with pytest.raises(ValueError, match=message):
                carry_state(state, new, CODES, fresh=fresh)
        carry_state(state, new, CODES, fresh=["mu/", "group_size"])
        _, report = carry_state(state, wrap(grouped(lion_jax.lion(1e-3), 32)), CODES)
        assert report.dropped == ()


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 16])
def test_corrections_are_not_read_in_the_grains_of_another_dtype(bits):
    tx = precision.with_master_weights(optax.adam(1e-3), correction_bits=bits)
    params = {"a": jnp.array([1.0, 0.5, 3.0], jnp.bfloat16), "b": jnp.ones(2, jnp.bfloat16)}
    params, state = trained(tx, params)
    master = precision.master_params(params, state)
    half = jax.tree.map(lambda p: p.astype(jnp.float16), params)
    mixed = params | {"b": half["b"]}
    message = r"got those to bfloat16 at correction_of, where params are (float16|of both)"
    for old in (state, plain(state)):
        for others in (half, mixed):
            with pytest.raises(ValueError, match=message):
                carry_state(old, tx, others)
        new, report = carry_state(old, tx, half, fresh="correction")
        chex.assert_trees_all_equal(field(new, "mu"), field(state, "mu"))
        stored, new = precision.set_master_params(master, half, new)
        chex.assert_trees_all_close(precision.master_params(stored, new), master, rtol=1e-4)
    same, report = carry_state(state, lion_jax.with_finite_guard(tx), params)
    assert report.dropped == ()
    chex.assert_trees_all_equal(precision.master_params(params, same), master)


def test_parameters_that_check_themselves_go_on():
    params, state = trained(optax.adamw(SCHEDULE), Matrix(jnp.ones((2, 2))))
    wrapped, _ = carry_state(state, optax.chain(optax.clip(1.0), optax.adamw(SCHEDULE)), params)
    same, report = carry_state(wrapped, optax.adamw(SCHEDULE), params)
    chex.assert_trees_all_equal(same, state)
    assert report.created == ()


def test_what_is_no_array_among_the_parameters_is_left_out():
    """As in the module of equinox itself, which was filtered for `init`."""
    module = {"w": jnp.ones(2), "activation": jnp.tanh, "none": None, "name": "dense"}
    arrays = module | {"activation": None, "name": None}
    state = made_up(optax.adamw(SCHEDULE), arrays)
    same, report = carry_state(state, optax.adamw(SCHEDULE), module)
    chex.assert_trees_all_equal(same, state)
    assert (report.dropped, report.created) == ((), ())


def test_python_floats_are_parameters_too():
    params = {"a": 1.0, "b": 2.0}
    state = optax.adam(SCHEDULE).init(params)
    same, report = carry_state(state, optax.adam(SCHEDULE), params)
    chex.assert_trees_all_equal(same, state)
    assert report.created == ()


@pytest.mark.parametrize("around", [False, True], ids=["within", "around"])
def test_moments_stored_as_integers_follow_their_labels(around):
    """Split and joined again by `optax.partition`, within the integers or around."""
    adamw = optax.adamw(SCHEDULE)

    def split(**by_label):
        rules = {label: (adamw if around else stored(adamw), x) for label, x in by_label.items()}
        return stored(parted(**rules)) if around else parted(**rules)

    params = {"a": jnp.ones((8, 8)), "b": jnp.ones((16, 8))}
    whole, two = stored(adamw), split(one="a", two="b")
    state = made_up(whole, params)
    for old in (state, plain(state)):
        parts, report = carry_state(old, two, params)
        assert (report.dropped, report.created) == ((), ())
        for again in (parts, plain(parts)):
            joined, report = carry_state(again, whole, params)
            chex.assert_trees_all_equal(joined, state)
            assert report.created == ()
    frozen = groups.freeze(adamw, "^b") if around else groups.freeze(stored(adamw), "^b")
    less, report = carry_state(state, stored(frozen) if around else frozen, params)
    assert report.created == ()
    assert {path.rpartition("/")[2] for path in report.dropped} == {"b"}
    _, report = carry_state(less, whole, params)
    assert {path.rpartition("/")[2] for path in report.created} == {"b"}
