"""Sweeps: every rule tuned wholly in every cell, with the same budget, and what is said of it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from lion_jax import lab
from lion_jax.lab import cli
from lion_jax.lab.errors import RequestError
from lion_jax.lab.rules.catalogue import AMONG_REPLICAS, RULES
from lion_jax.lab.rules.rule import Rule
from lion_jax.lab.statistics import half_interval
from lion_jax.lab.sweeping import run as sweeping
from lion_jax.lab.sweeping import tuning
from lion_jax.lab.sweeping.cells import Cell, Place, Tuned, edges
from lion_jax.lab.sweeping.drawing import draw_drift, drift
from lion_jax.lab.sweeping.report import Sweep
from lion_jax.lab.trainer import Outcome, Timing

SMALL = {"steps": 4, "trials": 2, "studies": 2, "seeds": 3, "batch_sizes": 20}


class MadeUp:
    """A trainer that makes up its runs, always alike for the same rule, values and seeds."""

    def __init__(self, task, rule, *, steps, batch_size, **settings):
        del settings
        self.metrics, self.steps = task.metrics, steps
        self.luck = sum(map(ord, rule.name)) + steps + batch_size

    def run(self, trials, seeds, on_step):
        on_step(self.steps // 2)
        places = sum(np.log(values) for values in trials.values()) + np.asarray(seeds)
        validation, test = (0.5 + 0.4 * np.sin(self.luck * places + i) for i in range(2))
        nothing = np.zeros(places.shape, np.float32)
        splits = [dict.fromkeys(self.metrics, x) for x in (validation, test)]
        curve = np.ones((*places.shape, min(self.steps, 100)), np.float32)
        return Outcome(nothing, *splits, nothing > 0, nothing, nothing, curve), Timing(1.0, 2.0)


@pytest.fixture(scope="module", autouse=True)
def instant():
    """Lets sweeps make up their runs."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tuning, "Trainer", MadeUp)
        yield


@pytest.fixture(scope="module")
def small(task):
    return lab.sweep(task, ["lion", "sgd"], **SMALL)


# The runs.


def test_every_rule_gets_the_same_budget(task):
    rules = ["lion", "sgd", Rule("radam", optax.radam, (1e-3, 1.0), tuned={"b1": (0.8, 0.99)})]
    (cell,) = lab.sweep(task, rules, **SMALL).cells
    assert {result.tuning.diverged.shape for result in cell.results} == {(2, 2)}
    assert {tuple(result.trials) for result in cell.results} == {
        ("learning_rate", "weight_decay"),
        ("learning_rate", "b1"),
    }


def test_jobs_change_no_figure(task, small):
    again = lab.sweep(task, ["lion", "sgd"], jobs=1, **SMALL)
    assert again.records() == small.records()


def test_another_first_seed_is_other_luck(task, small):
    other = lab.sweep(task, ["lion", "sgd"], first_seed=100, **SMALL)
    assert {record["seed"] for record in small.records()} == {0, 1, 2, 3, 4}
    assert {record["seed"] for record in other.records()} == {100, 101, 102, 103, 104}
    first, second = ({r["learning_rate"] for r in seen.records()} for seen in (small, other))
    assert not first & second


# The values that are tried.


def test_studies_are_pieces_of_one_sequence():
    rule = RULES["lion"].wholly_tuned()
    tried = rule.studies(5, 6)
    assert tried["learning_rate"].shape == tried["weight_decay"].shape == (6, 5)
    low, high = rule.learning_rates
    places = np.log(tried["learning_rate"].T.ravel() / low) / np.log(high / low)
    shift = np.random.default_rng(0).random(2)[0]
    halton = scipy.stats.qmc.Halton(2, scramble=False).random(30)[:, 0]
    np.testing.assert_allclose(places, (halton + shift) % 1, atol=1e-9)


@pytest.mark.parametrize("first", range(20))
def test_trials_fill_the_square_evenly(first):
    """Each quarter of the square gets its share of 30 trials; independent ones often miss one."""
    rule = RULES["lion"].wholly_tuned()
    tried = rule.studies(5, 6, first)
    ranges = (rule.learning_rates, rule.tuned["weight_decay"])
    halves = [
        (np.log(values / low) / np.log(high / low) > 0.5).ravel()
        for values, (low, high) in zip(tried.values(), ranges, strict=True)
    ]
    counts = np.unique(2 * halves[0] + halves[1], return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() >= 5


@pytest.mark.parametrize("name", [*RULES, *AMONG_REPLICAS])
def test_every_rule_of_the_lab_says_what_can_be_tuned(name):
    rule = (RULES | AMONG_REPLICAS)[name]
    whole = rule.wholly_tuned()
    assert set(whole.tuned) == set(rule.tunable)
    assert not set(whole.tuned) & set(whole.fixed)
    dtype = whole.params_dtype or jnp.float32
    shapes = {"w": (8, 8), "b": (8,)}
    whole.check({n: jax.ShapeDtypeStruct(shape, dtype) for n, shape in shapes.items()})


def test_the_products_of_rate_and_decay_span_the_same_range_for_lion_and_adamw():
    spans = [
        np.multiply(rule.learning_rates, rule.tunable["weight_decay"])
        for rule in (RULES["lion"], RULES["adamw"])
    ]
    np.testing.assert_allclose(*spans)


def test_what_a_name_fixes_is_not_tuned(task):
    (cell,) = lab.sweep(task, "lion(weight_decay=0.3)", **SMALL).cells
    assert list(cell.results[0].trials) == ["learning_rate"]


# Edges.


def outcome(validation, test=None, curve=0):
    """Made-up runs of shape (trials, studies)."""
    validation = np.asarray(validation, float)
    test = validation if test is None else np.asarray(test, float)
    nothing = np.zeros(validation.shape)
    return Outcome(
        nothing,
        {"accuracy": validation},
        {"accuracy": test},
        nothing > 0,
        nothing,
        nothing,
        np.ones((*validation.shape, curve)),
    )


def test_the_best_value_at_an_end_is_flagged():
    rates = np.array([[1e-3, 1e-2], [1e-1, 3e-2]])
    decays = np.array([[0.1, 0.2], [0.3, 0.4]])
    one = np.full((2, 2), 5.0)
    trials = {"learning_rate": rates, "weight_decay": decays, "b1": one}

    def flagged(*at):
        return edges(trials, {name: tried[at] for name, tried in trials.items()})

    assert flagged(1, 0) == {"learning_rate": 1}
    assert flagged(0, 0) == {"learning_rate": -1, "weight_decay": -1}
    assert flagged(1, 1) == {"weight_decay": 1}
    assert flagged(0, 1) == {}


# What is made of the runs.

METRICS = {"accuracy": "up"}


def tuned(rule, validation, test, final, rates=None, selection=None):
    """A rule with made-up runs: trials by studies, candidates by studies, and fresh seeds."""
    shape = np.shape(validation)
    best = np.max(validation, axis=0)
    selection = np.repeat(best[:, None], shape[1], axis=1) if selection is None else selection
    rates = np.geomspace(1e-3, 1e-1, int(np.prod(shape))).reshape(shape) if rates is None else rates
    return Tuned(
        rule,
        RULES["lion"].wholly_tuned().described(),
        {"learning_rate": np.asarray(rates, float)},
        outcome(validation, test),
        outcome(selection),
        outcome([final], curve=7),
        Timing(1.0, 2.0),
    )


def cell_of(*results, place=None, direction="up"):
    place = place or Place("made up", None, 64, 10)
    task = {"name": place.task, "metrics": {"accuracy": direction}, "loss_unit": "nats"}
    return Cell(place, task, results)


def sweep_of(*cells, against=None):
    settings = {
        **{"trials": 2, "studies": 2, "seeds": 2, "first_seed": 0},
        **{"extend": False, "schedule": "cosine"},
    }
    return Sweep(settings=settings, cells=cells, against=against)


def test_validation_chooses_and_fresh_seeds_report():
    result = tuned("lion", [[0.5, 0.9], [0.7, 0.6]], [[1.0, 0.2], [0.3, 1.0]], [0.4, 0.6])
    cell = cell_of(result)
    assert cell.chosen(result)["learning_rate"] == result.trials["learning_rate"][0, 1]
    assert cell.test(result) == pytest.approx(0.5)
    np.testing.assert_allclose(cell.best_of_studies(result), [0.3, 0.2])
    assert cell.median_of_studies(result) == pytest.approx(0.25)


def test_the_best_of_the_studies_is_selected_by_its_mean_over_seeds():
    """The first study's best had luck on its own seed, and little on the others."""
    result = tuned(
        "lion",
        [[0.9, 0.5], [0.1, 0.8]],
        [[0.0] * 2] * 2,
        [0.4],
        rates=[[1.0, 2.0], [3.0, 4.0]],
        selection=[[0.9, 0.3], [0.7, 0.8]],
    )
    assert cell_of(result).chosen(result) == {"learning_rate": 4.0}


def test_less_is_better_where_the_metric_says_so():
    made_up = [[0.5, 0.9], [0.7, np.nan]], [[1.0, 0.2], [0.3, 1.0]], [0.4, 0.6]
    result = tuned("lion", *made_up, selection=[[0.5, 0.5], [0.9, 0.9]])
    other = tuned("sgd", [[0.5, 0.9], [0.7, 0.6]], [[1.0, 0.2], [0.3, 1.0]], [0.3, 0.3])
    cell = cell_of(result, other, direction="down")
    assert cell.chosen(result)["learning_rate"] == result.trials["learning_rate"][0, 0]
    assert cell.rank(other) == 1
    assert cell.relative(result, "sgd").mean == pytest.approx(0.2 / 0.3)


def test_a_relative_error_is_less_where_the_metric_is_better():
    base = tuned("adamw", [[0.5]], [[0.5]], [0.90, 0.90])
    better = tuned("lion", [[0.5]], [[0.5]], [0.95, 0.93])
    gap = cell_of(base, better).relative(better, "adamw")
    assert gap.mean == pytest.approx(-0.4)
    assert gap.low < gap.mean < gap.high


@pytest.mark.parametrize(("against", "comparisons"), [("adamw", 2), (None, 3)])
def test_without_luck_of_tuning_intervals_are_those_of_the_seeds(against, comparisons):
    """All studies found as good values, so that only the seeds vary."""
    base = tuned("adamw", [[0.5]], [[0.5]], [0.90, 0.80, 0.70])
    others = [tuned(n, [[0.5]], [[0.5]], [0.89, 0.78, 0.70]) for n in ("lion", "sgd")]
    cell = cell_of(base, *others)
    gaps = np.array([-0.01, -0.02, 0.0])
    level = 1 - 0.05 / comparisons
    expected = scipy.stats.t.interval(level, 2, loc=gaps.mean(), scale=scipy.stats.sem(gaps))
    found = cell.difference(others[0], against)
    np.testing.assert_allclose(found[1:], expected, rtol=1e-6)
    assert cell.difference(base, "adamw").mean == 0.0


def test_the_interval_has_the_jackknife_over_studies_in_it():
    """Without its best study a rule would have chosen what does 0.06 worse."""
    selection = [[0.9, 0.9, 0.9], [0.8, 0.8, 0.8], [0.7, 0.7, 0.7]]
    tests = [[0.6, 0.6, 0.6], [0.5, 0.55, 0.57], [0.1, 0.1, 0.1]]
    lion = tuned("lion", [[0.9, 0.8, 0.7]], [[0.5] * 3], [0.66, 0.60, 0.63])
    lion = dataclasses.replace(lion, selection=outcome(selection, tests))
    same = [[0.5] * 3] * 3
    base = tuned("adamw", [[0.5] * 3], [[0.5] * 3], [0.50, 0.52, 0.51], selection=same)
    gaps = np.array([0.16, 0.08, 0.12])
    left_out = np.array([0.54, 0.60, 0.60])  # without the first, the second, the third study
    jackknife = 2 / 3 * np.sum((left_out - left_out.mean()) ** 2)
    of_seeds = gaps.var(ddof=1) / 3
    variance = of_seeds + jackknife
    freedom = variance**2 / (of_seeds**2 / 2 + jackknife**2 / 2)
    half = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    found = cell_of(base, lion).difference(lion, "adamw")
    np.testing.assert_allclose(found, (0.12, 0.12 - half, 0.12 + half))


def test_ranks_are_means_over_cells_that_have_all_rules():
    def both(first, second, batch_size):
        place = Place("made up", None, batch_size, 10)
        return cell_of(
            tuned("lion", [[0.5]], [[0.5]], [first, first]),
            tuned("sgd", [[0.5]], [[0.5]], [second, second]),
            place=place,
        )

    partial = cell_of(tuned("sgd", [[0.5]], [[0.5]], [0.1, 0.1]))
    seen = sweep_of(both(0.9, 0.8, 16), both(0.7, 0.6, 32), both(0.5, 0.6, 48), partial)
    assert seen.mean_ranks() == {"lion": pytest.approx(4 / 3), "sgd": pytest.approx(5 / 3)}
    assert seen.rules == ["lion", "sgd"]


def test_sentences_say_who_is_told_apart_and_who_is_not():
    base = tuned("adamw", [[0.1, 0.9], [0.2, 0.3]], [[0.5] * 2] * 2, [0.90, 0.91])
    ahead = tuned("lion", [[0.1, 0.9], [0.2, 0.3]], [[0.5] * 2] * 2, [0.95, 0.96])
    behind = tuned("sgd", [[0.1, 0.9], [0.2, 0.3]], [[0.5] * 2] * 2, [0.80, 0.81])
    level = tuned("tiger", [[0.1, 0.2], [0.2, 0.9]], [[0.5] * 2] * 2, [0.89, 0.93])
    verdict, edge = sweep_of(cell_of(base, ahead, behind, level), against="adamw").lines()
    assert verdict == (
        "made up, batch 64, 10 steps: adamw has 0.9050; ahead: lion (+0.0500 ± 0.0000); "
        "behind: sgd (-0.1000 ± 0.0000); could be chance: tiger."
    )
    assert edge == (
        "* The best value is the smallest or largest tried for tiger (made up, batch 64, 10 steps: "
        "learning_rate); --extend widens the range."
    )


def test_a_drift_is_relative_to_the_first_value_of_its_axis():
    def at(size, batch_size, rate):
        place = Place("made up", size, batch_size, 10)
        return cell_of(tuned("lion", [[0.5]], [[0.5]], [0.5, 0.5], rates=[[rate]]), place=place)

    cells = [at(1, 16, 0.1), at(2, 16, 0.05), at(1, 32, 0.2), at(2, 32, 0.4), at(1, 64, 7.0)]
    assert drift(cells, "size", "lion") == [
        {1: 1.0, 2: pytest.approx(0.5)},
        {1: 1.0, 2: pytest.approx(2.0)},
    ]
    assert drift(cells, "batch_size", "lion")[0] == {
        16: 1.0,
        32: pytest.approx(2.0),
        64: pytest.approx(70.0),
    }


def test_the_drift_is_drawn_of_cells_with_unlike_values():
    """One task at the batch sizes 16 and 64, another at 16 and 128."""
    cells = [
        cell_of(
            tuned("lion", [[0.5]], [[0.5]], [0.5, 0.5], rates=[[rate]]),
            place=Place(task, None, batch_size, 10),
        )
        for task, batch_size, rate in (("a", 16, 1), ("a", 64, 2), ("b", 16, 1), ("b", 128, 8))
    ]
    (axes,) = draw_drift(cells, ["batch_size"], ["lion"]).axes
    thick = axes.lines[2]
    np.testing.assert_allclose(np.array(thick.get_ydata(), float), [1, 2, 8])


def test_the_summary_and_the_table_have_a_row_for_each_rule_in_each_cell(small):
    rows = small.summary()
    assert [(row["task"], row["rule"], row["rank"]) for row in rows] == [
        ("triangle", result.rule, place)
        for cell in small.cells
        for place, result in enumerate(cell.ranked, 1)
    ]
    assert all(row["trials"] == 4 for row in rows)
    assert len(small.records()) == 2 * (4 + 4 + 3)


# Pictures and files.


@pytest.fixture(scope="module")
def wide(task):
    asked = {**SMALL, "batch_sizes": (10, 40), "steps": (2, 4)}
    return lab.sweep(task, ["lion", "adamw"], against="adamw", **asked)


@pytest.mark.slow
def test_a_picture_for_each_axis_with_several_values(wide, small, tmp_path):
    names = ["picture", "batch-sizes", "steps", "learning-rates", "curves"]
    assert list(wide.pictures()) == names
    assert list(small.pictures()) == ["picture", "curves"]
    wide.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"{name}.png" for name in names),
        "result.json",
        "records.csv",
    }
    small.save(tmp_path, picture="svg")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("picture.svg", "curves.svg", "result.json", "records.csv"),
    }


def test_the_picture_of_an_axis_shows_means_and_intervals(wide):
    figure = wide.pictures()["batch-sizes"]
    assert len(figure.axes) == 2
    for axes, steps in zip(figure.axes, (2, 4), strict=True):
        assert axes.get_title() == f"triangle, {steps} steps"
        for container in axes.containers:
            (line, _, (bars,)), rule = container.lines, container.get_label()
            tests = [
                cell.tests(result)
                for cell in wide.cells
                for result in cell.results
                if cell.place.steps == steps and result.rule == rule
            ]
            means = np.array([values.mean() for values in tests])
            halves = np.array([half_interval(values) for values in tests])
            np.testing.assert_allclose(np.array(line.get_ydata(), float), means)
            ends = np.array([segment[:, 1] for segment in bars.get_segments()])
            np.testing.assert_allclose(ends, np.stack([means - halves, means + halves], axis=1))


@pytest.mark.slow
def test_a_sweep_is_read_back_as_it_was(wide, tmp_path):
    wide.save(tmp_path)
    again = lab.load(tmp_path)
    assert again.records() == wide.records()
    assert again.lines() == wide.lines()
    assert again.mean_ranks() == wide.mean_ranks()
    assert json.loads((tmp_path / "result.json").read_text())["is_finished"]


# Resuming.


def test_pieces_make_the_whole(task, wide, tmp_path):
    """Some rules of some cells, then the rest; what is there is not run again."""
    asked = {**SMALL, "against": "adamw", "folder": tmp_path}
    first = lab.sweep.each(task, ["lion", "adamw"], **{**asked, "batch_sizes": 10, "steps": 2})
    next(first), next(first)
    first.close()
    pieces = {**asked, "batch_sizes": (10, 40), "steps": (2, 4), "resume": True}
    *_, whole = lab.sweep.each(task, ["lion", "adamw"], **pieces)
    key = lambda record: tuple(str(value) for value in record.values())  # noqa: E731
    assert sorted(whole.records(), key=key) == sorted(wide.records(), key=key)
    assert whole.cells[0].place == wide.cells[0].place
    assert len(list(lab.sweep.each(task, ["lion", "adamw"], **pieces))) == 1


def test_a_piece_keeps_the_other_cells(task, tmp_path):
    asked = {**SMALL, "folder": tmp_path, "resume": True}
    lab.sweep(task, "sgd", **asked)
    both = lab.sweep(task, "sgd", **{**asked, "steps": 6})
    assert [cell.place.steps for cell in both.cells] == [6, 4]
    assert len(lab.load(tmp_path).cells) == 2


def test_a_changed_rule_runs_again(task, tmp_path):
    asked = {**SMALL, "folder": tmp_path, "resume": True}
    lab.sweep(task, RULES["sgd"], **asked)
    narrow = dataclasses.replace(RULES["sgd"], learning_rates=(1e-2, 2e-2))
    (cell,) = lab.sweep(task, narrow, **asked).cells
    assert cell.results[0].trials["learning_rate"].max() <= 2e-2


@pytest.mark.slow
def test_another_budget_is_refused(task, tmp_path):
    lab.sweep(task, "sgd", folder=tmp_path, **SMALL)
    with pytest.raises(RequestError, match="another trials, 2 instead of 3"):
        lab.sweep(task, "sgd", folder=tmp_path, resume=True, **{**SMALL, "trials": 3})
    lab.compare(task, "sgd", learning_rates=1, steps=1, seeds=1).save(tmp_path)
    with pytest.raises(RequestError, match="holds a Comparison, no sweep to resume"):
        lab.sweep(task, "sgd", folder=tmp_path, resume=True, **SMALL)


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trials": 0}, "trials must be from 1 to 1000000, since each is recorded; got 0"),
        ({"studies": 0}, "studies must be from 1 to 1000000, since each is recorded; got 0"),
        ({"seeds": 0}, "seeds must be from 1 to 1000000, since each is recorded; got 0"),
        ({"steps": (4, 0)}, "steps must be from 1 to 2147483647"),
        ({"jobs": 0}, "jobs must be at least 1; got 0"),
        ({"first_seed": -1}, "first_seed must be at least 0; got -1"),
        ({"batch_sizes": (20, 121)}, "from 1 to 120, the training split of triangle; got 121"),
        ({"sizes": 2}, "triangle"),
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"against": "adamw"}, "unknown rule to compare against 'adamw'"),
        ({"steps": (4, 4)}, "each cell must be asked for once; got triangle, batch 20, 4 steps"),
        ({"resume": True}, "resume needs the folder of the interrupted run"),
    ],
)
def test_what_cannot_be_swept_is_refused_by_name(task, arguments, message):
    with pytest.raises(RequestError, match=message):
        lab.sweep(task, "sgd", **{**SMALL, **arguments})


def test_a_rule_without_ranges_is_refused_by_name(task):
    with pytest.raises(RequestError, match=r"the rule 'mine' must say what to tune beside its"):
        lab.sweep(task, ["sgd", Rule("mine", optax.adam, (1e-3, 1.0))], **SMALL)
    with pytest.raises(RequestError, match=r"the rule 'optax.adafactor' must say what to tune"):
        lab.sweep(task, "optax.adafactor", **SMALL)
    lab.sweep(task, Rule("mine", optax.adam, (1e-3, 1.0), tunable={}), **SMALL)


def test_a_range_that_is_none_is_refused():
    with pytest.raises(RequestError, match=r"tunable\['b1'\] must be a smallest and a largest"):
        Rule("mine", optax.adam, (1e-3, 1.0), tunable={"b1": (0.9, 0.5)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials=0"], "must be a whole number of at least 1; got '0'"),
        (["--batch-sizes=16,5000"], "from 1 to 1078, the training split of digits; got 5000"),
        (["--batch-sizes=16,x"], "must be a whole number of at least 1; got 'x'"),
        (["--trials=2", "--rules=optax.adafactor"], "'optax.adafactor' must say what to tune"),
        (
            ["--trials=2", "--learning-rates=3"],
            "must be left out in a sweep; got 3. Try --trials",
        ),
        (
            ["--batch-sizes=16", "--batch-size=16"],
            "left out where --batch-sizes is given; got 16",
        ),
    ],
)
def test_the_command_line_refuses_in_one_line(arguments, message, tmp_path, capsys):
    words = ["compare", "--output", str(tmp_path), *arguments]
    try:
        status = cli.main(words)
    except SystemExit as error:
        status = error.code
    said = capsys.readouterr().err
    assert status == 2
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "is_sweep"),
    [
        ([], False),
        (["--steps=5"], False),
        (["--batch-size=16"], False),
        (["--steps=5,10"], True),
        (["--task=digits,text"], True),
        (["--sizes=1"], True),
        (["--studies=3"], True),
        (["--extend"], True),
    ],
)
def test_options_decide_whether_it_is_a_sweep(arguments, is_sweep, monkeypatch):
    from lion_jax.lab.comparing import command
    from lion_jax.lab.comparing import run as comparing

    options = cli.parser().parse_args(["compare", *arguments])
    monkeypatch.setattr(sweeping.sweep, "each", lambda *a, **k: "sweep")
    monkeypatch.setattr(comparing.compare, "each", lambda *a, **k: "comparison")
    assert command.reports(options, None) == ("sweep" if is_sweep else "comparison")
