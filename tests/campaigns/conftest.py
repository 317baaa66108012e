"""Campaigns: many random tries at one promise, few in the fast tests, all of them in `make soak`.

SOAK=1 makes them full. CAMPAIGN_SEED repeats a run: every test that draws prints the seed that it
used, and the table of what it tried and found, at the end of the run (`tell`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

import pytest

SOAK = os.environ.get("SOAK") == "1"

Size = Callable[[int, int], int]
Tell = Callable[[str], None]
TellTable = Callable[[Sequence[str], Sequence[Sequence[object]]], None]


@pytest.fixture
def size() -> Size:
    """`size(small, full)`: how many tries this run makes."""
    return lambda small, full: full if SOAK else small


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Lines for the end of the run, also when tests run in several processes."""
    return lambda text: record_property("figures", text)


@pytest.fixture
def table(tell: Tell) -> TellTable:
    """`table(header, rows)`: the same, in columns."""

    def told(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        cells = [[str(cell) for cell in row] for row in (header, *rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        tell(
            "\n".join(
                "  ".join(
                    cell.ljust(width) for cell, width in zip(row, widths, strict=True)
                ).rstrip()
                for row in cells
            )
        )

    return told


@pytest.fixture
def draw(tell: Tell) -> random.Random:
    """The dice of one test."""
    seed = int(os.environ.get("CAMPAIGN_SEED") or random.SystemRandom().randrange(2**32))
    tell(f"CAMPAIGN_SEED={seed}")
    return random.Random(seed)
