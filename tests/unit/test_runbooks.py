"""Every command and every message in the runbooks is one that a test has run or seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import runbooks

TESTS = [
    path
    for directory in ("molecule", "tests")
    for path in (runbooks.PROJECT / directory).rglob("test_*.py")
    if path != Path(__file__)
]
PAGES = sorted(path.stem for path in runbooks.RUNBOOKS.glob("*.md") if path.stem != "README")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_seen_by_a_test(page: str) -> None:
    sources = "".join(path.read_text("utf-8") for path in TESTS)
    unused = [label for label in runbooks.blocks(page) if f'"{page}#{label}"' not in sources]
    assert not unused, f"docs/runbooks/{page}.md: no test uses {unused}"


def test_the_entry_page_leads_to_every_page_and_to_no_other() -> None:
    entry = (runbooks.RUNBOOKS / "README.md").read_text("utf-8")
    assert [page for page in PAGES if f"({page}.md)" not in entry] == []


def test_numbers_ids_and_line_breaks_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "# A page\n\n```text no-room\n12 MiB free, 30 are needed:\n  make room\n```\n"
    (tmp_path / "disk.md").write_text(page, "utf-8")
    monkeypatch.setattr(runbooks, "RUNBOOKS", tmp_path)
    assert runbooks.is_seen("disk#no-room", "error: 7 MiB free,\n  31 are needed: make room.")
    assert not runbooks.is_seen("disk#no-room", "7 MiB free, 31 are needed: buy a disk")


def test_a_block_without_a_label_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk.md").write_text("```sh\nls\n```\n", "utf-8")
    monkeypatch.setattr(runbooks, "RUNBOOKS", tmp_path)
    with pytest.raises(ValueError, match="no label"):
        runbooks.blocks("disk")
