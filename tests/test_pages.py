"""The pages: links lead somewhere, code fits and runs, and the reference misses nothing."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import textwrap
import unicodedata
from pathlib import Path

import optax
import pytest
from versions import needs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the docs are not here")


def pages(*folders):
    found = [path for folder in folders for path in sorted(ROOT.glob(folder))]
    return [str(path.relative_to(ROOT)) for path in found if "_build" not in path.parts]


PROSE = pages("README.md", "docs/*.md")
ALL = pages("*.md", "docs/**/*.md", ".github/**/*.md", "tests/**/*.md")
NOTEBOOKS = pages("notebooks/*.ipynb")
REFERENCE = pages("docs/reference/*.md")
EXEMPT_FROM_LENGTH = {"docs/changelog.md"}
# Their examples take more than a few seconds.
LONG = {
    f"docs/{page}.md"
    for page in (
        "checkpoints",
        "coming-from",
        "finding-a-learning-rate",
        "many-chips",
        "precision",
        "state",
        "training-loop",
        "your-model",
    )
}
ROLE = re.compile(r"\{[\w:]+\}`")
FENCE = re.compile(r"^( *)(`{3,})([^\n]*)\n(.*?)^\1\2$", flags=re.DOTALL | re.MULTILINE)


def text_of(page):
    return (ROOT / page).read_text()


def blocks(text):
    """The language and the lines of each block of code."""
    for indent, _, language, body in FENCE.findall(text):
        yield language.strip(), [line.removeprefix(indent) for line in body.splitlines()]


def prose_of(page):
    """The text without blocks of code and inline code."""
    return re.sub(r"`[^`\n]*`", "``", FENCE.sub("", text_of(page)))


def anchors(page):
    """The anchors of a page's headings, as forges and MyST make them."""
    if page.suffix == ".ipynb":
        text = page.read_text()
        headings = re.findall(r'"#+ ([^"]*?)(?:\\n)?"', text)
    else:
        headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    seen, found = {}, set()
    for heading in headings:
        slug = slug_of(heading)
        found.add(slug if slug not in seen else f"{slug}-{seen[slug]}")
        seen[slug] = seen.get(slug, 0) + 1
    return found


def slug_of(heading):
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    kept = (c for c in plain.strip().lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
    return "".join(kept).replace(" ", "-")


def test_slugs_are_those_of_forges():
    assert slug_of("What `lion-jax compare` measures") == "what-lion-jax-compare-measures"
    assert slug_of("Fewer bytes, and: 8 [bits](bits.md)") == "fewer-bytes-and-8-bits"


@pytest.mark.parametrize("page", ALL)
def test_its_links_lead_somewhere(page):
    here = ROOT / page
    links = re.findall(r"\]\(<?((?!https?:|mailto:)[^)>\s]+)>?\)", prose_of(page))
    for link in links:
        path, _, anchor = link.partition("#")
        target = (here.parent / path).resolve() if path else here
        assert target.exists(), link
        if anchor:
            assert target.suffix in (".md", ".ipynb"), link
            assert anchor in anchors(target), f"{link}: its page has {sorted(anchors(target))}"


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_notebooks_links_lead_somewhere(page):
    links = re.findall(r"\]\(((?!https?:)[^)\s#\"]+\.(?:md|ipynb|py))", text_of(page))
    for link in links:
        # The site shows notebooks from a folder in docs/.
        assert (DOCS / "notebooks" / link).exists() or (ROOT / "notebooks" / link).exists(), link


@pytest.mark.parametrize("page", pages("*.md", "docs/*.md", ".github/**/*.md"))
def test_a_forge_can_show_it(page):
    found = ROLE.findall(FENCE.sub("", text_of(page)))
    assert not found, f"{len(found)} roles, which a forge shows as text"


@pytest.mark.parametrize("page", sorted(set(PROSE) - EXEMPT_FROM_LENGTH))
def test_it_has_at_most_1500_words(page):
    assert len(text_of(page).split()) <= 1500


@pytest.mark.parametrize("page", ALL)
def test_its_code_is_at_most_100_columns_wide(page):
    for language, lines in blocks(text_of(page)):
        for line in lines:
            assert len(line) <= 100, f"{len(line)} columns, in {language}: {line}"


@pytest.mark.sampled
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page in LONG))
        for page in PROSE
        if page != "docs/recipes.md"  # tests/test_recipes.py runs each recipe by itself
        and any(language == "python" for language, _ in blocks(text_of(page)))
    ],
)
def test_its_python_runs(page):
    namespace = {}  # a reader goes from one to the next
    for language, lines in blocks(text_of(page)):
        if language == "python":
            example = textwrap.dedent("\n".join(lines))
            exec(compile(example, page, "exec"), namespace)


def public_modules():
    """Names of the modules of `lion_jax` and of its `compat` that users import."""
    yield from ("lion_jax", "lion_jax.primitives.signs")
    for package in ("lion_jax", "lion_jax.compat"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if not module.name.startswith("_"):
                yield f"{package}.{module.name}"


def public_names(module):
    """Names and values that a module offers: its `__all__`, or what a package re-exports."""
    offered = getattr(module, "__all__", None)
    if offered is None:
        ours = {id(v): n for n, v in vars(module).items() if hasattr(v, "__module__")}
        offered = ours.values() if hasattr(module, "__path__") else ()
    for name in offered:
        value = getattr(module, name)
        if not (name.startswith("_") or inspect.ismodule(value)):
            yield name, value


def documented(directives="autofunction|autoclass|autoexception|py:data"):
    """The objects of the reference by their full names."""
    found = {}
    for page in REFERENCE:
        for name in re.findall(rf"^\.\. (?:{directives}):: (lion_jax\.\S+)", text_of(page), re.M):
            assert name not in found, f"{name} is in {found[name]} and in {page}"
            found[name] = page
    return found


def object_of(name):
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


@pytest.mark.parametrize("module", sorted(public_modules()))
def test_the_reference_has_every_public_name(module):
    objects = [object_of(name) for name in documented()]
    missing = [
        name
        for name, value in public_names(importlib.import_module(module))
        if not any(value is known for known in objects)
    ]
    assert not missing, f"put {missing} into a page of docs/reference"


def test_the_tables_of_the_reference_name_what_is_on_their_page():
    for page in REFERENCE:
        text = text_of(page)
        table = re.findall(r"^   ~(\S+)$", text, flags=re.MULTILINE)
        entries = re.findall(r"^\.\. auto(?:function|class|exception):: (\S+)", text, re.MULTILINE)
        assert table == entries, page


@needs(optax, "signum")
def test_names_of_other_packages_exist():
    spec = importlib.util.spec_from_file_location("elsewhere", DOCS / "_extensions/elsewhere.py")
    elsewhere = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elsewhere)
    names = " ".join(" ".join(texts.values()) for texts in elsewhere.NAMES.values()).split()
    assert len(names) > 100
    for name in names:
        first, *rest = name.split(".")
        value = importlib.import_module(first if rest else "builtins")
        for part in rest or [first]:
            if not hasattr(value, part):
                importlib.import_module(f"{value.__name__}.{part}")
            value = getattr(value, part)


@pytest.mark.parametrize("asset", pages("docs/_static/**/*.js", "docs/_static/**/*.css"))
def test_an_asset_fetches_nothing(asset):
    remote = re.findall(
        r"(?:url\(|import |src=|fetch\()['\"]?(?:https?:)?//[^)'\"\s]*", text_of(asset)
    )
    assert not remote
