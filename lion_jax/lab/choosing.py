"""Choosing a task and rules: from objects, names, or names in a file of the user's."""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import optax

from lion_jax.lab.arguments import names
from lion_jax.lab.errors import RequestError, known
from lion_jax.lab.rules.catalogue import AMONG_REPLICAS, RULES
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.tasks.catalogue import TASKS, made, of_one_size
from lion_jax.lab.tasks.task import Task

_WIDE = (1e-4, 1.0)
"""The range of learning rates for a factory that is named without one."""
_MAKE_RULE = 'make one: lab.Rule("adam", optax.adam, learning_rates=(1e-4, 1e-1))'


def choose_task(task: str | Task, *, size: int | None = None) -> Task:
    """A task, one of :data:`TASKS`, or ``"mine.py:task"``: a file and a name in it.

    The name may also be that of a function that makes the task, with arguments or without:
    ``"phonemes(size=2, tied=False)"``, ``"mine.py:task(size=2)"``. A task made with arguments has
    the text for its name.

    Args:
      task: a task or its name.
      size: an argument of the task's function, which leaves the task's name as it is. None is the
        function's own.

    Raises:
      RequestError: no task has that name, or its function does not take the arguments.
    """
    if isinstance(task, Task):
        if size is not None:
            raise of_one_size(task.name)
        return task
    if not isinstance(task, str):
        raise RequestError(f"task, given first, must be a lab.Task or a name; got {_kind(task)}")
    name, opening, _ = task.partition("(")
    name = name.strip()
    if name.endswith(".py"):
        raise RequestError(f"task must name a variable too, such as {name}:task; got {task!r}")
    given = _arguments(task, "task", "phonemes(size=2)") if opening else {}
    if size is not None:
        if "size" in given:
            raise RequestError(f"size must be given once; got {size} beside the task {task!r}")
        given["size"] = size
    found = _made_in_file(name, given) if ":" in name else _made_by_name(name, given)
    return dataclasses.replace(found, name="".join(task.split())) if opening else found


def _made_by_name(name: str, arguments: dict[str, Any]) -> Task:
    return made(name, TASKS[known("task", name, TASKS)], arguments)


def _made_in_file(text: str, arguments: dict[str, Any]) -> Task:
    """A task of a file: an object, or the result of a function that has all it needs."""
    found, name = _from_file(text), text.rpartition(":")[2]
    if isinstance(found, Task) and "size" in arguments:
        raise of_one_size(name)
    if isinstance(found, Task) and arguments:
        raise RequestError(f"task {name!r} takes no arguments; got {', '.join(arguments)}")
    if callable(found) and all(
        parameter.default is not parameter.empty
        or parameter.name in arguments
        or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in inspect.signature(found).parameters.values()
    ):
        found = made(name, found, arguments)
    if not isinstance(found, Task):
        raise RequestError(f"{text} must be a lab.Task; got {_kind(found)}")
    return dataclasses.replace(found, name=name) if found.name == "task" else found


def choose_rules(
    rules: str | Rule | Iterable[str | Rule],
    task: Task | None = None,
    *,
    among_replicas: bool = False,
) -> list[Rule]:
    """The rules asked for, each able to step a task's parameters.

    Args:
      rules: one or several of: a :class:`Rule`; a name from :data:`RULES`; a factory of optax or
        lion_jax, ``"optax.adafactor"``; a file and a name in it, ``"mine.py:rule"``; a name with
        other arguments, ``"lion(b1=0.95, weight_decay=(0.01, 1.0))"``, of which a pair is a range
        to tune. In one string they stand between commas.
      task: the task that they are for.
      among_replicas: whether rules of several replicas may be among them.

    Raises:
      RequestError: no rule, an unknown one, two of one name, one that cannot be made.
    """
    if isinstance(rules, str):
        rules = names(rules)
    elif not isinstance(rules, Iterable):
        rules = [rules]
    chosen = [rule if isinstance(rule, Rule) else _named(rule, among_replicas) for rule in rules]
    called = [rule.name for rule in chosen]
    shared = [rule.name for rule in chosen if rule.replicas > 1]
    if shared and not among_replicas:
        raise RequestError(f"only `compare` trains rules of several replicas; got {shared[0]}")
    if not chosen:
        raise RequestError("rules must name at least one; got none. Try lion, or see lion-jax list")
    if len(set(called)) < len(called):
        raise RequestError(f"rules must have different names; got {', '.join(called)}")
    if task is not None:
        known_rules = [*RULES.values(), *AMONG_REPLICAS.values()]
        for rule in chosen:
            stored = task.stored_in(rule.params_dtype)
            params, state = jax.eval_shape(lambda task=stored: task.start(jax.random.key(0)))
            if rule.replicas > 1 and jax.tree.leaves(state):
                raise RequestError(
                    f"task must have no state to be trained by {rule.name}, which shares it among "
                    "replicas; got one with state"
                )
            if not any(rule is of for of in known_rules):
                rule.check(params)
    return chosen


def _named(text: Any, among_replicas: bool) -> Rule:
    """The rule of a text, with its arguments if it has any."""
    if not isinstance(text, str):
        raise RequestError(
            f"a rule must be a name or a lab.Rule; got {_kind(text)}. To {_MAKE_RULE}"
        )
    name, opening, _ = text.partition("(")
    rule = _without_arguments(name.strip(), among_replicas)
    return _with_arguments(rule, text) if opening else rule


def _without_arguments(name: str, among_replicas: bool) -> Rule:
    if ":" in name:
        found = _from_file(name)
        if not isinstance(found, Rule):
            raise RequestError(f"{name} must be a lab.Rule; got {_kind(found)}. To {_MAKE_RULE}")
        return found
    if name.startswith(("optax.", "lion_jax.")):
        return Rule(name, _factory(name), _WIDE)
    if name in AMONG_REPLICAS and not among_replicas:
        raise RequestError(f"only `compare` trains rules of several replicas; got {name}")
    possible = RULES | AMONG_REPLICAS if among_replicas else RULES
    if name not in possible and hasattr(optax, name):
        raise RequestError(f"unknown rule {name!r}; did you mean 'optax.{name}'?")
    return possible[known("rule", name, possible)]


def _factory(name: str) -> Any:
    """The function of a dotted name in optax or lion_jax."""
    package, *path = name.split(".")
    found = importlib.import_module(package)
    place = package
    for part in path:
        if found is optax and not hasattr(optax, part) and hasattr(optax.contrib, part):
            raise RequestError(f"unknown rule {name!r}; did you mean 'optax.contrib.{part}'?")
        known("rule", f"{place}.{part}", [f"{place}.{n}" for n in dir(found) if n.islower()])
        found, place = getattr(found, part), f"{place}.{part}"
    if not callable(found) or isinstance(found, type):
        raise RequestError(f"unknown rule {name!r}: {package} has no such function")
    return found


def _with_arguments(rule: Rule, text: str) -> Rule:
    """The rule with some of its arguments replaced; a pair of numbers is a range to tune."""
    given = _arguments(text, "rule", "lion(b1=0.95, weight_decay=(0.01, 1))")
    ranges = {n: v for n, v in given.items() if isinstance(v, tuple) and len(v) == 2}
    fixed = {n: v for n, v in given.items() if n not in ranges}
    rates = ranges.pop("learning_rate", rule.learning_rates)
    if "learning_rate" in fixed:
        rates = (fixed.pop("learning_rate"),) * 2
    kept = {name: value for name, value in rule.fixed.items() if name not in ranges}
    changed = ", ".join(f"{name}={value}" for name, value in given.items())
    return dataclasses.replace(
        rule,
        name=text.replace(" ", ""),
        learning_rates=rates,
        tuned={**rule.tuned, **ranges},
        fixed={**kept, **fixed},
        tunable=rule.tunable and {n: v for n, v in rule.tunable.items() if n not in given},
        description=f"{rule.description} with {changed}",
    )


def _arguments(text: str, kind: str, example: str) -> dict[str, Any]:
    """The named arguments of a text such as ``"name(argument=1)"``."""
    try:
        call = ast.parse(f"_{text[text.index('(') :]}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not all(w.arg for w in call.keywords):
            raise ValueError("arguments must have names")
        return {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        shown = repr(text) if len(repr(text)) < 200 else f"{repr(text)[:200]}..."
        reason = str(error) or type(error).__name__
        raise RequestError(f"cannot read the {kind} {shown} ({reason}). Try {example!r}") from error


def _from_file(text: str) -> Any:
    """Reads a name from a Python file or module: ``"mine.py:task"``."""
    source, _, name = text.rpartition(":")
    try:
        module = _loaded(source)
    except (ImportError, OSError, SyntaxError, ValueError, TypeError) as error:
        plain = isinstance(error, ImportError | OSError)
        reason = f"{error}" if plain else f"{type(error).__name__}: {error}"
        raise RequestError(
            f"cannot read {text!r} ({reason}); possible: a file and a name in it, mine.py:task"
        ) from error
    if not hasattr(module, name):
        defined = [n for n, v in vars(module).items() if isinstance(v, Task | Rule)]
        raise RequestError(
            f"{source} has no {name!r}; it has {', '.join(defined) or 'no lab.Task or lab.Rule'}"
        )
    return getattr(module, name)


def _loaded(source: str) -> Any:
    """A Python file as a module, read once; files beside it can be imported from it."""
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = Path(source).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    version = hash((str(path), path.stat().st_mtime_ns))  # a file that was edited is read again
    module_name = f"_lab_{path.stem}_{abs(version)}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"{source} is not a Python file")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
    return sys.modules[module_name]


def _kind(found: Any) -> str:
    shown = " ".join(repr(found).split())[:80]
    return getattr(found, "__qualname__", None) or f"{shown} of type {type(found).__name__}"
