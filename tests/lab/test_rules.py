"""Rules of one's own: what is tuned and fixed, how they are named, and which are refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lab import oracle

import lion_jax
from lion_jax import lab
from lion_jax.lab.choosing import choose_rules, choose_task, names
from lion_jax.lab.errors import known
from lion_jax.lab.rules.catalogue import AMONG_REPLICAS, RULES
from lion_jax.lab.trainer import train

MINE = """
import jax.numpy as jnp, numpy as np, optax
from lion_jax import lab
import beside

x = np.arange(60, dtype=np.float32).reshape(20, 3) / 60
def loss(w, batch, key):
    return jnp.mean((batch @ w) ** 2)
task = lab.Task(lambda key: jnp.ones(3), loss, *lab.split(x))
named = lab.Task(lambda key: jnp.ones(3), loss, *lab.split(x), name="chosen")
def made():
    return named
rule = lab.Rule("mine", optax.sgd, (1e-3, beside.LARGEST))
def factory(learning_rate):
    return optax.sgd(learning_rate)
beside.READ.append(__name__)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file with a task and a rule, in the folder that the program runs in."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text("LARGEST, READ = 0.5, []")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "beside", raising=False)
    return tmp_path


def rule_of(text, task=None):
    """The one rule of a text."""
    (rule,) = choose_rules(text, task)
    return rule


def refused(make, *parts):
    """Checks that something is refused with one line, which has some parts."""
    with pytest.raises(lab.RequestError) as error:
        make()
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def halton(index, base):
    """The radical inverse of a whole number."""
    inverse, place = 0.0, 1.0
    while index:
        place /= base
        inverse += place * (index % base)
        index //= base
    return inverse


@pytest.mark.parametrize("count", [2, 5, 10])
def test_a_learning_rate_alone_is_tried_evenly_from_end_to_end(count):
    trials = lab.Rule("sgd", optax.sgd, (1e-3, 1e0), fixed={"momentum": 0.9}).trials(count)
    assert list(trials) == ["learning_rate"]
    np.testing.assert_allclose(trials["learning_rate"], np.geomspace(1e-3, 1e0, count))


def test_several_arguments_are_tried_quasi_randomly_on_the_scales_of_their_ranges():
    rule = lab.Rule(
        "adamw",
        optax.adamw,
        (1e-4, 1e-1),
        tuned={"weight_decay": (1e-2, 1e0), "b1": (0.0, 0.9), "eps": (1e-9, 1e-7)},
    )
    trials = rule.trials(12)
    assert list(trials) == ["learning_rate", "weight_decay", "b1", "eps"]
    for i in range(12):
        shares = [halton(i + 1, base) for base in (2, 3, 5, 7)]
        expected = [
            10 ** (-4 + 3 * shares[0]),
            10 ** (-2 + 2 * shares[1]),
            0.9 * shares[2],
            10 ** (-9 + 2 * shares[3]),
        ]
        np.testing.assert_allclose([values[i] for values in trials.values()], expected)
    for name, values in rule.trials(5).items():
        np.testing.assert_array_equal(values, trials[name][:5])


def test_a_single_trial_is_in_the_middle():
    rule = lab.Rule(
        "adamw", optax.adamw, (1e-4, 1e-2), tuned={"weight_decay": (1e-3, 1e1), "b1": (0, 0.9)}
    )
    trials = {name: values.tolist() for name, values in rule.trials(1).items()}
    assert trials["learning_rate"] == pytest.approx([1e-3])
    assert trials["weight_decay"] == pytest.approx([1e-1])
    assert trials["b1"] == pytest.approx([0.45])


@pytest.mark.slow
def test_what_is_tuned_and_fixed_reaches_each_trial(line):
    def make(learning_rate, momentum, decay):
        return optax.chain(optax.add_decayed_weights(decay), optax.sgd(learning_rate, momentum))

    rule = lab.Rule("own", make, (1e-3, 1e-1), tuned={"momentum": (0, 0.9)}, fixed={"decay": 0.5})
    trials = rule.trials(2)
    outcome, _ = train(
        line,
        rule,
        trials,
        steps=4,
        seeds=1,
        batch_size=20,
        schedule="cosine",
        on_step=lambda t: None,
    )
    batches = oracle.batches_of(line, 0, 4, 20)
    for i, (rate, momentum) in enumerate(zip(*trials.values(), strict=True)):
        _, _, losses = oracle.run(line, rule, rate, 0, batches, "cosine", momentum=momentum)
        np.testing.assert_allclose(outcome.curve[i, 0], losses, rtol=1e-4)


def test_the_description_is_the_call_unless_there_is_one():
    def own(learning_rate):
        return optax.sgd(learning_rate)

    tuned = lab.Rule("a", optax.adamw, (1e-3, 1e-1), tuned={"b1": (0.8, 0.95)}, fixed={"b2": 0.99})
    assert tuned.description == "optax.adamw(learning_rate, b2=0.99, b1=0.8 to 0.95)"
    lion = lab.Rule("a", lion_jax.lion, (1e-3, 1e-1))
    assert lion.description == "lion_jax.lion(learning_rate)"
    muon = lab.Rule("a", optax.contrib.muon, (1e-3, 1e-1))
    assert muon.description == "optax.contrib.muon(learning_rate)"
    assert lab.Rule("a", own, (1e-3, 1e-1)).description == "own(learning_rate)"
    assert lab.Rule("a", own, (1e-3, 1e-1), description="of my own").description == "of my own"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"make": optax.adam(1e-3)}, "make must be a function of a learning rate; got "),
        ({"make": "adam"}, "make must be a function of a learning rate; got 'adam'. Try "),
        ({"learning_rates": 1e-3}, "learning_rates must be a smallest and a largest rate"),
        ({"learning_rates": (1e-3, 1e-2, 1e-1)}, "learning_rates must be a smallest and a "),
        ({"learning_rates": ("a", "b")}, "learning_rates must be a smallest and a largest rate"),
        ({"tuned": {"b1": 0.9}}, "tuned['b1'] must be a smallest and a largest value, finite; "),
        ({"tuned": {"b1": (0.9, 0.1)}}, "tuned['b1'] must be a smallest and a largest value"),
        ({"tuned": {"b1": (0, np.inf)}}, "tuned['b1'] must be a smallest and a largest value"),
    ],
)
def test_what_is_no_rule_is_refused_with_a_remedy(changes, message):
    parts = {"name": "adam", "make": optax.adam, "learning_rates": (1e-3, 1e-1)}
    refused(lambda: lab.Rule(**parts | changes), message, "Try ")


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda learning_rate: optax.adam(1e-3), ["must use the learning rate that it gets"]),
        (lambda learning_rate: learning_rate, ["must make a transformation", "PeakSchedule"]),
        (lambda learning_rate: None, ["must make a transformation", "NoneType"]),
        (lambda learning_rate, b1: optax.adam(learning_rate, b1), ["b1"]),
        (lambda: optax.adam(1e-3), []),
        (lambda learning_rate: optax.sgd(float(learning_rate.peak)), []),
    ],
    ids=["ignores the rate", "a rate", "None", "wants more", "wants nothing", "wants a number"],
)
def test_a_factory_that_cannot_be_tuned_is_refused_before_anything_runs(make, parts, line):
    refused(lambda: choose_rules(lab.Rule("own", make, (1e-3, 1e-1)), line), "'own'", *parts)


def test_a_factory_that_reads_only_the_peak_is_none_that_ignores_the_rate(line):
    rule = lab.Rule("own", lambda rate: optax.scale(-rate.peak), (1e-3, 1e-1))
    assert choose_rules(rule, line) == [rule]


def test_a_name_that_begins_so_is_nearer_than_one_that_is_more_alike():
    refused(lambda: known("rule", "adam", ["tadam", "adamw"]), "did you mean 'adamw'?")


@pytest.mark.parametrize("name", ["lion", "adamw_int8"])
def test_a_name_is_that_of_the_catalogue(name, task):
    assert choose_rules(name, task) == [RULES[name]] == choose_rules([name])


def test_several_rules_stand_between_the_commas_outside_parentheses():
    text = " lion, adamw(b1=0.9, weight_decay=(0.01, 1.0)),optax.sgd ,"
    assert names(text) == ["lion", "adamw(b1=0.9, weight_decay=(0.01, 1.0))", "optax.sgd"]
    chosen = choose_rules(text)
    assert [rule.name for rule in chosen] == [
        "lion",
        "adamw(b1=0.9,weight_decay=(0.01,1.0))",
        "optax.sgd",
    ]


def test_an_argument_replaces_what_is_fixed(task):
    rule = rule_of("lion(b1=0.95)", task)
    assert rule.name == "lion(b1=0.95)"
    assert rule.fixed == RULES["lion"].fixed | {"b1": 0.95}
    assert rule.learning_rates == RULES["lion"].learning_rates
    assert rule.tuned == {}
    assert "b1=0.95" in rule.description


def test_a_pair_is_a_range_to_tune(task):
    rule = rule_of("lion(weight_decay=(0.01, 1.0), b2=0.98)", task)
    assert rule.tuned == {"weight_decay": (0.01, 1.0)}
    assert rule.fixed == {"b1": 0.9, "b2": 0.98}
    assert list(rule.trials(3)) == ["learning_rate", "weight_decay"]


def test_the_learning_rate_has_a_range_too_or_a_value(task):
    rule = rule_of("lion(learning_rate=(1e-4, 1e-2))", task)
    assert rule.learning_rates == (1e-4, 1e-2)
    assert rule.fixed == RULES["lion"].fixed
    assert rule.tuned == {}
    assert rule_of("lion(learning_rate=3e-3)", task).learning_rates == (3e-3, 3e-3)


@pytest.mark.parametrize("name", ["optax.adafactor", "optax.contrib.muon", "lion_jax.tiger"])
def test_a_factory_of_a_package_has_wide_learning_rates(name, task):
    rule = rule_of(name, task)
    assert rule.name == name
    assert rule.learning_rates[0] <= 1e-4
    assert rule.learning_rates[1] >= 1e0
    assert rule.description == f"{name}(learning_rate)"
    assert rule_of(f"{name}(weight_decay_rate=0.1)").fixed == {"weight_decay_rate": 0.1}


def test_a_rule_and_a_task_of_a_file_are_read_once(mine):
    task = choose_task("mine.py:task")
    assert (task.name, choose_task("mine.py:named").name) == ("task", "chosen")
    assert choose_task("mine.py:made").name == "chosen"
    rule, same = rule_of("mine.py:rule", task), rule_of(f"{mine}/mine.py:rule", task)
    assert rule is same
    assert rule.learning_rates == (1e-3, 0.5)
    assert rule_of("mine.py:rule(momentum=0.9)", task).fixed == {"momentum": 0.9}
    assert len(__import__("beside").READ) == 1


def test_a_task_of_a_file_has_the_name_that_it_has_there(mine):
    (mine / "other.py").write_text(MINE.replace("task = ", "regression = "))
    assert choose_task("other.py:regression").name == "regression"


def test_a_module_is_read_as_a_file_is(mine):
    assert rule_of("mine:rule").name == "mine"
    assert choose_task("mine:named").name == "chosen"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("adam", ["unknown rule 'adam'; did you mean 'optax.adam'?"]),
        ("lyon(b1=0.9)", ["unknown rule 'lyon'; did you mean 'lion'?"]),
        ("optax.adamm", ["unknown rule 'optax.adamm'; did you mean 'optax.adam'?"]),
        ("optax.contrib.no", ["unknown rule 'optax.contrib.no'"]),
        ("optax.contrib", ["unknown rule 'optax.contrib': optax has no such function"]),
        ("mine.py:wrong", ["mine.py has no 'wrong'; it has ", "task", "rule"]),
        ("mine.py:", ["mine.py has no ''; it has "]),
        ("beside.py:rule", ["beside.py has no 'rule'; it has no lab.Task or lab.Rule"]),
        ("nowhere.py:rule", ["cannot read 'nowhere.py:rule' (there is no file nowhere.py)"]),
        ("no_module:rule", ["cannot read 'no_module:rule' (No module named 'no_module')"]),
        (":rule", ["':rule'"]),
        ("mine.py:task", ["mine.py:task must be a lab.Rule; got ", "To make one: lab.Rule("]),
        ("mine.py:factory", ["mine.py:factory must be a lab.Rule; got factory. To make one: lab."]),
        ("lion(0.9)", ["cannot read the rule 'lion(0.9)'", "must have names", "Try 'lion(b1=0."]),
        ("lion(b1=0.9", ["cannot read the rule 'lion(b1=0.9'", "Try 'lion(b1=0.95, "]),
        ("lion(b1=beta)", ["cannot read the rule 'lion(b1=beta)'", "Try 'lion(b1=0.95, "]),
        ("lion(b1=0.9)2", ["cannot read the rule 'lion(b1=0.9)2'"]),
        ("lion(weight_decay=(1, 0.1))", ["tuned['weight_decay'] must be a smallest and a largest"]),
        ("lion(learning_rate=(1, 0.1))", ["learning_rates must be a smallest and a largest rate"]),
        ("lion(learning_rate=0)", ["learning_rates must be a smallest and a largest rate"]),
        ("lion(b9=0.9)", ["b9"]),
        ("lion(b1=2.0)", ["b1"]),
        ("lion(b1='0.9')", ["b1"]),
        ("lion(weight_decay=(-1, 1))", ["weight_decay"]),
        ("lionh(b1=0.9)", ["b1"]),
        ("optax.apply_updates", ["optax.apply_updates"]),
        ("optax.GradientTransformation", ["optax.GradientTransformation"]),
        ("optax.scale_by_adam", ["optax.scale_by_adam"]),
        ("optax.adam_", ["optax.adam_"]),
    ],
)
def test_what_names_no_rule_is_refused_with_what_is_possible(text, parts, mine, task):
    del mine
    refused(lambda: choose_rules(text, task), *parts)


@pytest.mark.parametrize(
    ("rules", "parts"),
    [
        ([optax.adam], ["a rule must be a name or a lab.Rule; got adam. To make one: lab.Rule("]),
        (optax.adam, ["adam", "To make one: lab.Rule("]),
        (optax.adam(1e-3), ["a rule must be a name or a lab.Rule; got ", "To make one: lab.Rule("]),
        (3, ["3", "To make one: lab.Rule("]),
        (None, ["None", "To make one: lab.Rule("]),
        ([], ["rules must name at least one; got none. Try lion, or see lion-jax list"]),
        ([RULES["lion"], "lion"], ["rules must have different names; got lion, lion"]),
    ],
)
def test_what_is_no_rule_says_how_to_make_one(rules, parts, task):
    refused(lambda: choose_rules(rules, task), *parts)


@pytest.mark.parametrize(
    "rule",
    ["lion_vote_2", "lion_vote_2(b1=0.9)", AMONG_REPLICAS["lion_vote_2"]],
    ids=["name", "arguments", "object"],
)
def test_replicas_are_refused_however_they_are_named(rule, task):
    refused(lambda: choose_rules([rule], task), "only `compare` trains rules of several replicas")


def test_replicas_refuse_arguments_that_they_do_not_take(task):
    text = "lion_vote_2(b1=0.9)"
    refused(lambda: choose_rules(text, task, among_replicas=True), text, "b1")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mine.py:rule", ["mine.py:rule must be a lab.Task; got "]),
        ("mine.py:x", ["mine.py:x must be a lab.Task; got "]),
        ("mine.py:loss", ["mine.py:loss must be a lab.Task; got "]),
        ("mine.py:wrong", ["mine.py has no 'wrong'; it has task, named, rule"]),
        ("nowhere.py:task", ["cannot read 'nowhere.py:task' (there is no file nowhere.py)"]),
        (".:task", ["'.:task'"]),
        ("broken.py:task", ["broken.py"]),
    ],
)
def test_what_names_no_task_is_refused_with_what_is_there(text, parts, mine):
    (mine / "broken.py").write_text("task = (")
    refused(lambda: choose_task(text), *parts)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "make",
    [
        optax.contrib.momo,
        pytest.param(
            lambda rate: optax.polyak_sgd(rate.peak, scaling=rate), marks=pytest.mark.slow
        ),
    ],
    ids=["momo", "polyak_sgd"],
)
def test_optimizers_that_want_the_loss_take_part(make, line):
    rule = lab.Rule("extra", make, (0.1, 0.1))
    found = lab.compare(line, rule, learning_rates=1, steps=4, seeds=1, schedule="constant").best
    _, _, losses = oracle.run(line, rule, 0.1, 0, oracle.batches_of(line, 0, 4, 60))
    np.testing.assert_allclose(found.outcome.curve[0], losses, rtol=1e-4)


@pytest.mark.slow
def test_a_line_search_takes_part(line):
    """It asks for losses at other parameters, and for the learning rate of the last step."""

    def make(learning_rate):
        search = optax.scale_by_backtracking_linesearch(5)
        return optax.chain(optax.sgd(learning_rate), search)

    rule = lab.Rule("searched", make, (1.0, 1.0))
    found = lab.compare(line, rule, learning_rates=1, steps=4, seeds=1, schedule="constant")
    assert (np.diff(found.best.outcome.curve[0]) < 0).all()


def test_a_rule_says_what_decides_its_figures():
    def mask(params):
        return jax.tree.map(lambda p: p.ndim > 1, params)

    rule = lab.Rule(
        "own",
        optax.adamw,
        (1e-3, 1e-1),
        tuned={"b1": (0.8, 0.9)},
        fixed={"b2": 0.99, "mask": mask, "nesterov": True},
        params_dtype=jnp.bfloat16,
    )
    described = rule.described()
    assert described.pop("fixed") == {"b2": 0.99, "mask": repr(mask), "nesterov": True}
    assert described == {
        "name": "own",
        "description": rule.description,
        "learning_rates": [1e-3, 1e-1],
        "tuned": {"b1": [0.8, 0.9]},
        "moves_by_rate": False,
        "params_dtype": "bfloat16",
        "replicas": 1,
    }
    assert math.isclose(rule.middle["learning_rate"], 1e-2)
