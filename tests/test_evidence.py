"""The evidence pages show what the committed records say."""

import evidence
import pytest

pytestmark = pytest.mark.skipif(not evidence.DOCS.exists(), reason="needs the folder docs")


@pytest.fixture(scope="module")
def written():
    return evidence.texts()


@pytest.mark.parametrize(
    ("page", "table"),
    [(page, table) for page, tables in evidence.PAGES.items() for table in tables],
)
def test_a_table_is_what_the_records_say(page, table, written):
    text = (evidence.DOCS / page).read_text()
    assert evidence.replaced(text, table, written[table]) == text
