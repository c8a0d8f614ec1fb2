"""What people do with every line of the catalogue that its authors did not think of."""

import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from catalogue import CATALOGUE
from trees import Matrix, assert_close, small, specs

# A scalar in place of each parameter, or a tree of numbers or labels by path, is no matrix.
TAKES_NO_CHECKED_NODE = {
    *("scale_by_student_t", "tadam", "holocron_tadam"),
    *("scale_by_group", "lion_multipliers", "freeze", "hyperball", "per_layer"),
}
GRADIENTS = [small(seed=seed) for seed in range(1, 4)]


def every_entry(test):
    cases = [
        pytest.param(entry, marks=[pytest.mark.slow] if entry.slow else [], id=entry.name)
        for entry in CATALOGUE
    ]
    return pytest.mark.parametrize("entry", cases)(test)


@pytest.fixture
def compiled():
    """The events of compiling, as they happen."""
    events = []

    def listen(event, duration, **kwargs):
        del duration, kwargs
        if "backend_compile" in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


class Noisy(eqx.Module):
    """A module with what no gradient moves among its leaves."""

    kernel: jax.Array
    key: jax.Array
    table: jax.Array
    is_used: jax.Array
    activation: object
    name: str = "noisy"

    def __call__(self, x):
        return self.activation(x @ self.kernel + self.table[0] * self.is_used[0])


def noisy():
    return Noisy(
        kernel=small()["kernel"],
        key=jax.random.key(0),
        table=jnp.arange(3),
        is_used=jnp.array([True, False]),
        activation=jax.nn.tanh,
    )


@pytest.mark.slow
@every_entry
def test_a_whole_module_may_stand_for_its_parameters(entry):
    """As users of equinox call it: the state of what is filtered, and then the module itself."""
    model = noisy()
    grads = eqx.filter_grad(lambda m: jnp.sum(m(jnp.ones((2, 4))) ** 2))(model)
    tx = entry.make()
    expected, _ = tx.update(grads.kernel, tx.init(model.kernel), model.kernel)
    for is_kept in (eqx.is_inexact_array, eqx.is_array):
        state = tx.init(eqx.filter(model, is_kept))
        updates, new_state = tx.update(grads, state, model)
        assert updates.key is updates.table is updates.is_used is updates.activation is None
        assert_close(updates.kernel, expected)
        assert specs(new_state) == specs(state)
        jax.eval_shape(
            lambda g, s, m=model: eqx.filter(tx.update(g, s, m), eqx.is_array), grads, new_state
        )


@every_entry
def test_gradients_of_nothing_move_nothing(entry):
    """`jax.grad(allow_int=True)` gives float0 for integers and booleans."""
    params = {"w": jnp.ones(2), "rows": jnp.array([1, 2]), "is_on": jnp.array([True])}
    grads = jax.grad(lambda p: jnp.sum(p["w"] * p["rows"]) * p["is_on"][0], allow_int=True)(params)
    tx = entry.make()
    state = tx.init(params)
    before = specs(state)
    for _ in range(2):
        updates, state = tx.update(grads, state, params)
        new = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(new["rows"], params["rows"])
        np.testing.assert_array_equal(new["is_on"], params["is_on"])
        assert new["rows"].dtype == params["rows"].dtype
    assert specs(state) == before


@every_entry
def test_python_numbers_are_parameters(entry):
    params, grads = {"a": 1.0, "b": -2.0}, {"a": 0.5, "b": -0.5}
    arrays = jax.tree.map(jnp.float32, (params, grads))
    tx = entry.make()
    state, of_arrays = tx.init(params), tx.init(arrays[0])
    for _ in range(2):
        updates, state = tx.update(grads, state, params)
        expected, of_arrays = tx.update(arrays[1], of_arrays, arrays[0])
        assert_close(jax.tree.map(jnp.asarray, updates), expected)


@every_entry
def test_a_node_may_check_what_it_holds(entry):
    if entry.name in TAKES_NO_CHECKED_NODE:
        pytest.skip("puts something else than arrays in place of parameters")
    tx, params = entry.make(), Matrix(small()["kernel"])
    state, alone = tx.init(params), tx.init(params.w)
    for gradient in GRADIENTS[:2]:
        updates, state = tx.update(Matrix(gradient["kernel"]), state, params)
        expected, alone = tx.update(gradient["kernel"], alone, params.w)
        assert_close(updates.w, expected)
    jax.eval_shape(tx.update, params, state, params)


@every_entry
def test_an_eager_sweep_compiles_nothing(entry, compiled):
    """Neither a further step nor a further value of any number."""
    params, gradient = small(), GRADIENTS[0]

    def step(fraction):
        tx = entry.make(**{name: entry.part(name, fraction) for name in entry.scalars})
        state = tx.init(params)
        for _ in range(2):
            _, state = tx.update(gradient, state, params)

    step(1.0)
    step(0.9)
    compiled.clear()
    step(0.8)
    assert not compiled


@every_entry
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_gradient_of_another_shape_is_refused(entry, jit):
    params, tx = {"b": jnp.ones(3), "w": jnp.ones((2, 2))}, entry.make()
    state = tx.init(params)
    for shape in ((3, 1), (1,), (), (4,), (2, 3)):
        update = jax.jit(tx.update) if jit else tx.update
        with pytest.raises(ValueError, match=r"gradients must have .*\['b'\]") as caught:
            update({"b": jnp.ones(shape), "w": jnp.ones((2, 2))}, state, params)
        assert str(shape) in str(caught.value)
        assert "(3,)" in str(caught.value)
