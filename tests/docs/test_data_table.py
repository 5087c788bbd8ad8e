"""Every row of the guide's table of data names a test, and the test is there."""

import re

from tests.pipelines.support import ROOT


def test_each_form_of_data_is_proved_by_a_test() -> None:
    table = (ROOT / "docs/guides/data.md").read_text().partition("## What people have")[2].partition("\n\nA stream")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][2:]
    there = "".join(file.read_text() for file in (ROOT / "tests/pipelines/data").glob("test_*.py"))
    for row in rows:
        assert (named := re.search(r"`(test_\w+)` \|$", row)), row
        assert f"def {named[1]}(" in there, row
    assert len(rows) > 15
