"""The README's numbers are those of the committed records."""

import pytest

from reasonrank.cli import readme


def test_the_tables_are_what_the_records_say(root):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert readme.fill(text, root / "data" / "records") == text


def test_a_missing_block_is_named(root):
    with pytest.raises(ValueError, match="no block <!-- results -->"):
        readme.fill("no blocks", root / "data" / "records")
