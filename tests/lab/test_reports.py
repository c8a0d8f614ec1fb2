"""Results: saved and loaded as they were, shown in a notebook, drawn, and told when damaged."""

import base64
import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab.made_up import comparison_of, rendered, result

from lion_jax import lab
from lion_jax.lab.rules.catalogue import RULES

ODD = [[0.5, math.nan], [math.inf, -math.inf], [0.1, 1 / 3]]


@pytest.fixture
def odd(task):
    """A comparison with figures of all kinds, the second rule tuned in two arguments."""
    lion = result(np.float32([[0.9, 0.8]] * 3), [[0.9, 0.8]] * 3, diverged=[[True, False]] * 3)
    outcome = lion.outcome._replace(
        train_loss=np.array(ODD),
        validation={
            "accuracy": np.float32([[0.9, 0.8]] * 3),
            "half": np.float16(ODD),
            "brain": np.asarray(jnp.array(ODD, jnp.bfloat16)),
        },
        curve=np.float32(ODD),
    )
    trials = lion.trials | {"weight_decay": np.array([0.0, 0.5, 1.0])}
    return comparison_of(
        task,
        result([[0.7, 0.6]] * 3, [[0.7, 0.6]] * 3, name="b", diverged=[[False] * 2] * 3),
        dataclasses.replace(
            lion,
            outcome=outcome,
            trials=trials,
            good_within=None,
            state_bytes_per_parameter=math.nan,
            weight_bytes_per_parameter=math.inf,
        ),
        against="lion",
    )


@pytest.fixture
def plain(task):
    """A comparison of two rules."""
    return comparison_of(
        task,
        result([[0.5, 0.5], [0.9, 0.8], [0.7, 0.7]], [[0.5, 0.5], [0.9, 0.8], [0.7, 0.7]]),
        result(
            [[0.5, 0.5], [0.6, 0.7], [0.4, 0.7]], [[0.5, 0.5], [0.6, 0.7], [0.4, 0.7]], name="b"
        ),
    )


def the_same(one, other):
    """Checks that two comparisons are the same to the last bit."""

    def wide(x):
        return (x.astype(float), x.dtype) if isinstance(x, np.ndarray) else x

    trees = [jax.tree.map(wide, dataclasses.asdict(comparison)) for comparison in (one, other)]
    np.testing.assert_equal(*trees)
    np.testing.assert_equal(one.records(), other.records())


def test_what_is_saved_is_loaded_as_it_was(odd, tmp_path):
    odd.save(tmp_path)
    loaded = lab.load(tmp_path)
    assert type(loaded) is lab.Comparison
    the_same(loaded, odd)
    assert isinstance(loaded.missing, tuple)
    assert isinstance(loaded.results[0].outcome, type(odd.results[0].outcome))
    loaded.save(tmp_path / "again")
    for name in ("result.json", "records.csv"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / name).read_text()


@pytest.mark.slow
def test_what_a_comparison_ran_is_saved_and_loaded_as_it_was(line, tmp_path):
    ran = lab.compare(line, "sgd", learning_rates=2, steps=3, seeds=2)
    ran.save(tmp_path)
    the_same(lab.load(str(tmp_path)), ran)


def test_the_json_is_strict_and_has_what_the_table_shows(odd, tmp_path):
    odd.save(tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert document["command"] == "comparing"
    assert document["is_finished"] is True
    assert [row["rule"] for row in document["summary"]] == ["b", "lion"]
    assert [row["difference"] for row in document["summary"]] == [pytest.approx(-0.2), 0.0]


def test_a_result_is_shown_in_a_short_line(plain, odd):
    assert (
        repr(plain) == "Comparison(triangle, 2 rules: lion has the best accuracy, 0.8500 ± 0.0500)"
    )
    assert len(repr(odd)) < 200
    unfinished = dataclasses.replace(plain, missing=("sgd",))
    assert repr(unfinished).endswith("± 0.0500, unfinished: sgd not run)")
    empty = dataclasses.replace(plain, results=(), missing=("lion", "b"))
    assert repr(empty) == "Comparison(nothing yet, unfinished: lion, b not run)"


def test_the_line_is_short_however_many_rules_there_are(plain):
    assert len(repr(dataclasses.replace(plain, missing=tuple(RULES)))) < 200


def test_a_notebook_shows_table_sentences_and_picture(task):
    """With names that are neither markup nor HTML."""
    names = ("a<b>&c", "own[best]")
    compared = comparison_of(
        task, *(result([[0.9, 0.8]], [[0.9, 0.8]], rates=(0.1,), name=name) for name in names)
    )
    bundle = compared._repr_mimebundle_()
    assert bundle["text/plain"] == repr(compared)
    html = bundle["text/html"]
    assert html.count("a&lt;b&gt;&amp;c") >= 3
    assert "a<b>" not in html
    assert html.count("own[best]") >= 3
    assert "<pre" in html
    assert "could be chance" in html
    picture = html.partition("data:image/png;base64,")[2].partition("'")[0]
    assert base64.b64decode(picture).startswith(b"\x89PNG")


def test_a_notebook_shows_a_line_of_what_is_empty(plain):
    empty = dataclasses.replace(plain, results=(), missing=("lion", "b"))
    assert empty._repr_mimebundle_() == {"text/plain": repr(empty)}


@pytest.mark.parametrize("name", ["own[best]", "own[/best]"])
def test_a_name_is_no_markup_in_a_table(name, task):
    compared = comparison_of(task, result([[0.9]], [[0.9]], rates=(0.1,), name=name))
    assert name in rendered(compared.table())


@pytest.mark.parametrize(
    ("picture", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_a_picture_is_of_the_format_asked_for(picture, begins, plain, tmp_path):
    written = plain.save(tmp_path / "new" / "folder", picture)
    assert [path.name for path in written] == [f"picture.{picture}", "records.csv", "result.json"]
    assert sorted(written) == sorted((tmp_path / "new" / "folder").iterdir())
    assert written[0].read_bytes().startswith(begins)


def test_an_unknown_format_is_refused_and_nothing_written(plain, tmp_path):
    with pytest.raises(lab.RequestError, match=r"unknown picture 'gif'.* Possible: png, svg, pdf"):
        plain.save(tmp_path / "new", "gif")
    assert list(tmp_path.iterdir()) == []


def test_no_picture_of_an_earlier_result_stays_beside_a_later_one(plain, tmp_path):
    (tmp_path / "picture.svg").write_text("earlier")
    (tmp_path / "notes.svg").write_text("somebody's own")
    plain.save(tmp_path, "png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("notes.svg", "picture.png", "records.csv", "result.json")
    ]


def test_an_unfinished_comparison_is_loaded_and_says_so(plain, tmp_path):
    unfinished = dataclasses.replace(plain, missing=("sgd", "adamw"))
    assert (plain.is_finished, unfinished.is_finished) == (True, False)
    unfinished.save(tmp_path)
    loaded = lab.load(tmp_path)
    assert loaded.missing == ("sgd", "adamw")
    assert not loaded.is_finished
    assert "sgd, adamw not run" in repr(loaded)
    assert json.loads((tmp_path / "result.json").read_text())["is_finished"] is False


def test_what_is_empty_is_loaded_and_has_no_picture(plain, tmp_path):
    empty = dataclasses.replace(plain, results=(), missing=("lion", "b"))
    assert [path.name for path in empty.save(tmp_path)] == ["records.csv", "result.json"]
    loaded = lab.load(tmp_path)
    assert loaded.is_empty
    assert loaded.missing == ("lion", "b")


def damaged(text):
    """Damage to a saved result."""
    return lambda path: path.write_text(text(path.read_text()))


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "there is no result in {folder} (No such file or directory)"),
        (damaged(lambda text: text[: len(text) // 2]), "cannot read {folder}/result.json ("),
        (damaged(lambda text: ""), "cannot read {folder}/result.json ("),
        (damaged(lambda text: "[]"), "cannot read {folder}/result.json ("),
        (damaged(lambda text: "{}"), "cannot read {folder}/result.json ("),
        (damaged(lambda text: '{"command": "no"}'), "cannot read {folder}/result.json ("),
        (damaged(lambda text: text.replace("described", "lost")), "cannot read {folder}/result."),
        (damaged(lambda text: text.replace('"float64"', '"float65"')), "cannot read {folder}/res"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot read {folder}/result.json ("),
        (lambda path: path.unlink() or path.mkdir(), "there is no result in {folder} ("),
    ],
)
def test_a_damaged_or_missing_result_is_refused_in_one_line(damage, message, plain, tmp_path):
    plain.save(tmp_path)
    damage(tmp_path / "result.json")
    with pytest.raises(lab.RequestError) as error:
        lab.load(tmp_path)
    assert str(error.value).startswith(message.format(folder=tmp_path))
    assert "\n" not in str(error.value)


def test_a_result_without_a_folder_is_refused(tmp_path):
    with pytest.raises(lab.RequestError, match=r"there is no result in .*possible: a folder that"):
        lab.load(tmp_path / "nowhere")


WILD = [[math.inf, math.inf], [math.nan, 1.0], [math.inf, 2.0]]


@pytest.mark.sampled
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("figures", [WILD, [[math.nan] * 2] * 3, [[math.inf] * 2] * 3])
def test_figures_that_are_not_finite_are_told_and_drawn(figures, direction, task, line, tmp_path):
    """Without a warning."""
    wild = result(figures, figures, direction=direction, diverged=[[True, True]] * 3, name="wild")
    tame = result([[1.0, 2.0]] * 3, [[1.0, 2.0]] * 3, direction=direction)
    of = task if direction == "up" else line
    for against in (None, "lion", "wild"):
        compared = comparison_of(of, wild, tame, against=against)
        assert "wild" in rendered(compared.table())
        assert compared.lines()
        assert len(compared.summary()) == 2
    compared.save(tmp_path)
    assert (tmp_path / "picture.png").exists()


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_rule_without_a_finite_figure_is_the_one_that_is_said_to_have_none(figure, line):
    wild = result([[figure] * 2] * 3, [[figure] * 2] * 3, direction="down", name="wild")
    tame = result([[1.0, 2.0]] * 3, [[1.0, 2.0]] * 3, direction="down", name="tame")
    for against in (None, "tame"):
        said = comparison_of(line, wild, tame, against=against).lines()
        assert said[1] == "wild has no finite test loss."
    said = comparison_of(line, wild, tame, against="wild").lines()
    assert not any("tame has no finite" in sentence or "one seed" in sentence for sentence in said)


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_no_learning_rate_is_good_where_none_gives_a_finite_figure(figure):
    wild = result([[figure] * 2] * 3, [[figure] * 2] * 3, direction="down")
    assert wild.good_band is None


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_the_good_band_ends_where_figures_are_not_finite(figure):
    validation = [[1.0, 1.0], [0.5, 0.5], [figure, 1.0]]
    band = result(validation, validation, direction="down").good_band
    assert band.high == pytest.approx(1e-2)
    assert not band.is_open
    assert band.low == pytest.approx(1e-2 * 10**-0.01, rel=1e-3)


def test_a_smaller_loss_is_better_and_a_hundredth_of_it_good(line):
    validation = [[2.0, 2.0], [1.0, 1.0], [1.5, 1.5]]
    good = result(validation, validation, direction="down")
    worse = result([[3.0, 3.0]] * 3, [[3.0, 3.0]] * 3, direction="down", name="worse")
    compared = comparison_of(line, worse, good)
    assert compared.best is good
    assert good.best_learning_rate == 1e-2
    assert good.good_band.high == pytest.approx(10 ** (-2 + 0.01 / 0.5))
    assert compared.lines()[:2] == [
        "lion has the best test loss, 1.0000 ± 0.0000.",
        "worse is 2.0000 behind (95% interval +2.0000 to +2.0000, paired by seed).",
    ]
    assert compared.difference(worse).mean == 2.0


def test_each_argument_tuned_has_a_column_and_no_band(odd, task):
    text = rendered(odd.table())
    assert "weight_decay" in text
    (row,) = (line for line in text.splitlines() if line.lstrip().startswith("b "))
    assert row.split()[2] == "-"
    unbounded = dataclasses.replace(odd, against=None)
    assert unbounded.results[1].good_band is None
    assert unbounded.results[1].chosen == {"learning_rate": 1e-3, "weight_decay": 0.0}
