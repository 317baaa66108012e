"""A lab for each of these files, of hosts that nothing was deployed on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--keep-lab", action="store_true", help="leave the hosts up when the tests have ended"
    )


def lab(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "lab", *words], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def inventory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The inventory of the file's lab, which is made for it and removed after it."""
    name = "hosts-" + request.path.stem.removeprefix("test_")
    lab("destroy", name)
    try:
        lab("create", name)
        yield ROOT / ".labs" / name / "inventory"
    finally:
        if not request.config.getoption("keep_lab"):
            lab("destroy", name)
