"""Generated words for the command line: status 0 or 2, and one line for what is refused."""

import contextlib
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from search.counting import count, long, short

from lion_jax.lab import choosing, cli, progress
from lion_jax.lab.cost import run as costing
from lion_jax.lab.errors import RequestError

NUMBERS = [
    *("0", "1", "2", "3", "40", "64", "-1", "1.5", "1e3", "1e-3", "0.1", "nan", "inf", "-inf"),
    *(
        "1e400",
        "9" * 30,
        "9" * 5000,
        "2147483648",
        "0x10",
        "1_000",
        "٣",
        "²",
        "1,2",
        "1,,2",
        ",",
        "",
    ),
]
NAMES = [
    *(
        "lion",
        "adamw",
        "lion,adamw",
        "lion,lion",
        "sgd",
        "Lion",
        "lio",
        "optax.adam",
        "optax.adafactor",
    ),
    *(
        "optax",
        "optax.",
        "optax..adam",
        "optax.nothing",
        "optax.contrib.muon",
        "optax.apply_updates",
    ),
    *("lion_jax.lion", "lion_jax.primitives", "lion_jax.lion.__wrapped__", "lion_jax.lookahead"),
    *(
        "digits",
        "text",
        "cosine",
        "constant",
        "mnist",
        "gpt2",
        "float32",
        "bfloat16",
        "int8",
        "fsdp",
    ),
    *("v5e:16x16", "v5e:0x0", "v5e:axb", "h100", "h100:8", "h100:-1", "h100:", ":", "x:y:z"),
    *("mine.py:task", "nothing.py", "nothing.py:rule", "json:loads", "no.such.module:x", "..:x"),
    *("lion(b1=0.5)", "lion(b1=2)", "lion(b1=2", "lion()", "lion)(", "lion(0.5)", "lion(b1=b2)"),
    *(
        "lion(nothing=1)",
        "lion(b1=(0.1,0.9))",
        "lion(b1=(0.9,0.1))",
        "lion(b1=(1,2,3))",
        "lion(**{})",
    ),
    *("lion(b1=None)", 'lion(b1="x")', "lion(b1=1j)", "lion(learning_rate=(1,2))", "lion(b1=[])"),
    *("lookahead(lion, 0)", "lookahead(lion,0)", "lion(learning_rate=-1)", "lion(b1=1e400)"),
    *("digits(size=2)", "digits(size=-1)", "text(size=2)", "text(size='x')", "digits(a=1,a=2)"),
    *("lion=1e-3", "lion=1e-3,lion=2", "=1", "lion=", "lion=0"),
    *("lion(b1=" + "(" * 300, "lion(b1=" + "-" * 3000 + "1)", "lion(b1=" + "1+" * 3000 + "1)"),
]
PATHS = ["out", "file.txt", "file.txt/x", "no/such/folder", "x" * 300, " ", ".", "é/ü", "out.json"]
ODD = st.text(st.sampled_from("abcXY019.,:;=()[]{}'\"\\/*-+_ \t%$\u200b\ud800éλ🦁\n"), max_size=12)
VALUES = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(NAMES), ODD)
TYPES = {
    "task": NAMES,
    "rules": NAMES,
    "against": NAMES,
    "schedule": NAMES,
    "model": [*NAMES, *PATHS],
    "topology": NAMES,
    "sharding": NAMES,
    "dtype": NAMES,
    "output": PATHS,
    "picture": ["png", "svg", "gif", ""],
    "completion": ["bash", "fish", ""],
}


class BegunError(Exception):
    """Raised where work would begin: the request is accepted."""


def begin(*_args, **_kwargs):
    raise BegunError


@pytest.fixture(scope="module", autouse=True)
def nothing_runs(tmp_path_factory):
    """Ends each command where its checks end, in an empty folder with a file in it."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "file.txt").write_text("no result")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(progress, "teller", begin)
        patch.setattr(costing, "describe", begin)
        yield


def options():
    """Each command's options, which its parser knows."""
    subparsers = cli.parser()._subparsers
    assert subparsers is not None
    (choices,) = (action.choices for action in subparsers._group_actions)
    return {
        name: [s for action in sub._actions for s in action.option_strings if s.startswith("--")]
        for name, sub in choices.items()
    }


OPTIONS = options()


@st.composite
def lines(draw):
    """A command and up to four options, most of them with a value, some of it misspelt."""
    command = draw(st.sampled_from([*OPTIONS, *OPTIONS, "", "comparr", "λ", "--version"]))
    words = [command] if command else []
    for option in draw(
        st.lists(st.sampled_from(OPTIONS.get(command, ["--help", "-x"])), max_size=4)
    ):
        pool = TYPES.get(option.removeprefix("--"), NUMBERS)
        value = draw(st.one_of(st.sampled_from(pool), VALUES))
        if option == "--output":
            value = draw(st.sampled_from(PATHS))
        form = draw(st.sampled_from(["apart", "apart", "joined", "alone", "shortened"]))
        words += {
            "apart": [option, value],
            "joined": [f"{option}={value}"],
            "alone": [option],
            "shortened": [option[:5], value],
        }[form]
    return words + draw(st.one_of(st.just([]), st.lists(ODD, max_size=1)))


def check_line(words):
    """Ends with 0, or with 2 and one line that says what is wrong, never with a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(words)
        except SystemExit as end:
            status = end.code
        except BegunError:
            status = 0
    assert status in (0, None, 2), words
    said = err.getvalue()
    if status == 2:
        assert said.startswith("lion-jax")
        assert said.endswith("\n")
        assert said.count("\n") == 1, said
        assert len(said.partition(": ")[2].strip()) > 10, said
    count("words of a command line: done, or refused in one line")


@short(15)
@example(["find", "two\nlines"])
@given(lines())
def test_words_end_with_0_or_with_2_and_one_line(words):
    check_line(words)


@pytest.mark.slow
@long(1000)
@given(lines())
def test_words_end_with_0_or_with_2_and_one_line_at_length(words):
    check_line(words)


def texts():
    """Specifications with something after them, before them, or within."""
    return st.one_of(
        st.sampled_from(NAMES),
        ODD,
        st.builds("{}({})".format, st.sampled_from(["lion", "adamw", "digits", "optax.adam"]), ODD),
        st.builds("lion(b1={})".format, st.sampled_from(NUMBERS)),
        st.builds("{},{}".format, st.sampled_from(NAMES), st.sampled_from(NAMES)),
    )


def check_choice(text):
    """A rule, a task, or a refusal of one paragraph that has the text's beginning."""
    for choose in (choosing.choose_rules, choosing.choose_task):
        with contextlib.suppress(RequestError):
            assert choose(text)
    count("names of rules and tasks: chosen, or refused")


@short(15)
@example("lion(b1=" + "-" * 3000 + "1)")
@example("digits(size=" + "1+" * 3000 + "1)")
@given(texts())
def test_a_text_names_rules_and_tasks_or_is_refused(text):
    check_choice(text)


@pytest.mark.slow
@long(1000)
@given(texts())
def test_a_text_names_rules_and_tasks_or_is_refused_at_length(text):
    check_choice(text)
