"""Names that a user finds: `__all__`, `dir`, `help`, type checkers, and the words of others."""

import ast
import importlib
import inspect
import os
import pkgutil
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import optax
import pytest
from catalogue import CATALOGUE

import lion_jax
from lion_jax import compat, primitives

ROOT = Path(lion_jax.__file__).parent


def public_modules():
    """The modules that are reached from `lion_jax` by public names, and two more."""
    found = {"lion_jax.carrying", "lion_jax.conversion"}
    waiting = ["lion_jax"]
    while waiting:
        name = waiting.pop()
        found.add(name)
        module = importlib.import_module(name)
        members = {each: getattr(module, each) for each in module.__all__}
        # `lab.cost` is a module that is called.
        inside = [each for each, m in members.items() if inspect.ismodule(m) and not callable(m)]
        waiting += [f"{name}.{each}" for each in inside if f"{name}.{each}" not in found]
    return sorted(found)


PUBLIC = public_modules()


def every_package(path=ROOT, prefix="lion_jax."):
    for found in pkgutil.iter_modules([str(path)], prefix):
        last = found.name.rpartition(".")[2]
        if found.ispkg and not last.startswith("_") and last != "lab":
            yield found.name
            yield from every_package(path / last, f"{found.name}.")


def test_every_package_is_public():
    assert {*every_package()} <= {*PUBLIC}
    assert len(PUBLIC) == 21


@pytest.mark.parametrize("name", PUBLIC)
def test_a_module_shows_its_public_names_and_no_others(name):
    module = importlib.import_module(name)
    assert dir(module) == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    namespace = {}
    exec(f"from {name} import *", namespace)
    assert namespace.keys() - {"__builtins__"} == {*module.__all__}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring_that_help_shows(name):
    module = importlib.import_module(name)
    shown = pydoc.plain(pydoc.render_doc(module))
    assert module.__doc__
    for each in module.__all__:
        member = getattr(module, each)
        if callable(member) or inspect.ismodule(member):
            assert inspect.getdoc(member), each
        assert each in shown, each
        if inspect.isfunction(member):
            assert f"    {each}(" in shown, each


@pytest.mark.parametrize("name", PUBLIC)
def test_a_package_imports_what_it_names(name):
    """Type checkers read these lines; nothing else says what is public."""
    module = importlib.import_module(name)
    file = Path(module.__file__)
    is_package = file.name == "__init__.py"
    lazy = file.with_name("_public.py")
    tree = ast.parse((lazy if is_package and lazy.exists() else file).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {each.asname or each.name for node in imports for each in node.names}
    if is_package:
        assert imported == {*module.__all__}
    else:
        assert imported.isdisjoint(module.__all__)


def test_names_load_when_they_are_asked_for():
    code = "import sys, lion_jax, lion_jax.lab; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error_with_what_python_needs_to_guess():
    with pytest.raises(
        AttributeError, match=r"^module 'lion_jax' has no attribute 'Lion'$"
    ) as error:
        _ = lion_jax.Lion
    assert (error.value.name, error.value.obj) == ("Lion", lion_jax)


FACTORIES = sorted(
    {entry.factory for entry in CATALOGUE if hasattr(entry.factory, "static_args")},
    key=lambda factory: (factory.__module__, factory.__name__),
)
IDS = [f"{each.__module__.removeprefix('lion_jax.')}.{each.__name__}" for each in FACTORIES]


def refused(factory, *args, **kwargs):
    with pytest.raises(TypeError) as error:
        factory(*args, **kwargs)
    message = str(error.value)
    assert message.startswith(f"{factory.__name__}() "), message
    assert "\n" not in message
    return message


def test_the_whole_catalogue_is_asked():
    assert len(FACTORIES) > 70


@pytest.mark.parametrize("factory", FACTORIES, ids=IDS)
def test_an_unknown_word_is_refused_by_name_with_the_words_that_are_known(factory):
    message = refused(factory, xyzzy=1)
    assert "no argument 'xyzzy'" in message
    parameters = [*inspect.signature(factory).parameters]
    assert (", ".join(parameters) or "takes none") in message


@pytest.mark.parametrize("factory", FACTORIES, ids=IDS)
def test_a_misspelt_word_is_corrected(factory):
    for name in inspect.signature(factory).parameters:
        if len(name) > 4:
            wrong = name[:2] + name[3] + name[2] + name[4:]
            if wrong != name:
                assert f"did you mean '{name}'?" in refused(factory, **{wrong: 1})


WORDS = {
    "lr": "learning_rate",
    "betas": "b1",
    "beta_1": "b1",
    "beta_2": "b2",
    "epsilon": "eps",
    "learning_rate": "lr",
    "b1": "betas",
    "b2": "betas",
}


@pytest.mark.parametrize("factory", FACTORIES, ids=IDS)
def test_words_of_other_libraries_are_translated(factory):
    parameters = inspect.signature(factory).parameters
    for theirs, ours in WORDS.items():
        if ours in parameters and theirs not in parameters:
            message = refused(factory, **{theirs: 1})
            assert f"no argument '{theirs}' (here: '{ours}'" in message


@pytest.mark.parametrize("factory", FACTORIES, ids=IDS)
def test_the_function_that_a_message_points_to_takes_the_words(factory):
    parameters = inspect.signature(factory).parameters
    for word in ("lr", "learning_rate", "betas", "b1", "clipnorm", "initial_lr", "use_ema"):
        if word not in parameters:
            message = refused(factory, **{word: 1})
            if pointer := re.search(r" (\S+)\.(\w+) takes (\w+)\.$", message):
                module, name, named = pointer.groups()
                assert named == word
                other = getattr(importlib.import_module(module), name)
                assert word in inspect.signature(other).parameters
                assert other is not factory


@pytest.mark.parametrize("factory", FACTORIES, ids=IDS)
def test_missing_repeated_and_surplus_arguments_are_named(factory):
    parameters = inspect.signature(factory).parameters
    required = [name for name, p in parameters.items() if p.default is p.empty]
    by_place = [name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    if required:
        assert f"needs the argument '{required[0]}'" in refused(factory)
    if by_place:
        assert f"got '{by_place[0]}' twice" in refused(factory, 1, **{by_place[0]: 1})
    assert f"got {len(by_place) + 1}" in refused(factory, *[1] * (len(by_place) + 1))


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        (
            lion_jax.lion,
            {"lr": 1e-3},
            "lion() has no argument 'lr' (here: 'learning_rate'). "
            "lion_jax.compat.lion_pytorch.lion takes lr.",
        ),
        (
            lion_jax.lion,
            {"lr": 1e-3, "betas": (0.9, 0.99)},
            "lion() has no argument 'lr' (here: 'learning_rate') and no argument 'betas' "
            "(here: 'b1' and 'b2'). lion_jax.compat.lion_pytorch.lion takes lr and betas.",
        ),
        (
            lion_jax.lion,
            {"clipnorm": 1.0},
            "lion() has no argument 'clipnorm' (chain lion_jax.primitives.clip_by_leaf_norm "
            "before it). lion_jax.compat.keras.lion takes clipnorm.",
        ),
        (
            compat.torch.adam,
            {"learning_rate": 1e-3},
            "adam() has no argument 'learning_rate' (here: 'lr'). optax.adam takes learning_rate.",
        ),
        (
            compat.holocron.adan,
            {"learning_rate": 1e-3},
            "adan() has no argument 'learning_rate' (here: 'lr'). "
            "lion_jax.adan takes learning_rate.",
        ),
        (
            lion_jax.signum,
            {"momentum": 0.9},
            "signum() has no argument 'momentum' (here: 'b1').",
        ),
        (primitives.signs.sign, {"x": 1}, "sign() has no argument 'x'. It takes none."),
    ],
)
def test_messages_read(factory, arguments, message):
    assert refused(factory, **arguments) == message


WEIGHT = np.ones(2)


@pytest.mark.parametrize("factory", [lion_jax.lion, lion_jax.tiger, compat.torch.adamw])
@pytest.mark.parametrize("params", [{"w": 1.0}, [WEIGHT], (WEIGHT, 1.0), iter([1.0])])
def test_parameters_in_the_place_of_a_learning_rate_are_sent_to_init(factory, params):
    assert "The parameters go to init" in refused(factory, params)
    assert "The parameters go to init" in refused(factory, params, learningrate=1e-3)


def test_a_transformation_is_not_taken_for_parameters():
    assert "init" not in refused(lion_jax.lookahead, optax.sgd(0.1), kk=3)


TYPED = """
import lion_jax
from lion_jax import compat, groups, lab, primitives
from lion_jax.optimizers import lion

lion_jax.lion(1e-3, b1=0.9, mask=None)
lion(learning_rate=1e-3, mu_dtype="bfloat16")
lion_jax.lookahead(lion(1e-3), sync_period=5)
compat.torch.adam(1e-3, betas=(0.9, 0.99))
primitives.signs.tanh(10.0)
names: tuple[str, ...] = lion.static_args
groups.multipliers({"bias": 0.5}, default=2.0)
report: lion_jax.CarryReport = lion_jax.carry_state((), lion(1e-3), {})[1]
lab.compare

lion_jax.lion(lr=1e-3)  # wrong
lion()  # wrong
lion(1e-3, 0.9, 0.99, None, 0.1, None, 7)  # wrong
lion(1e-3, mu_dtype=3)  # wrong
lion_jax.lookahead(lion(1e-3), sync_period="5")  # wrong
compat.torch.adam(learning_rate=1e-3)  # wrong
groups.multipliers({"bias": 0.5}, 1.0, 2.0)  # wrong
lion_jax.Lion  # wrong
lion_jax.jax  # wrong
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("mypy", ["--ignore-missing-imports", "--cache-dir={cache}"]),
        ("basedpyright", ["--pythonpath={python}"]),
    ],
)
def test_type_checkers_see_names_and_signatures(tool, arguments, tmp_path, request):
    pytest.importorskip(tool)
    (tmp_path / "use.py").write_text(TYPED)
    places = {"cache": request.config.cache.mkdir(tool), "python": sys.executable}
    run = subprocess.run(
        [sys.executable, "-m", tool, *(each.format(**places) for each in arguments), "use.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT.parent), "PYTHONPATH": str(ROOT.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(line) for line in re.findall(r"use\.py:(\d+):.*error", run.stdout)}
    lines = enumerate(TYPED.splitlines(), 1)
    assert found == {number for number, line in lines if line.endswith("# wrong")}, run.stdout
