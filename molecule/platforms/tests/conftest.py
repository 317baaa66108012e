"""The hosts of this scenario: three sets on two releases of Debian."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import testinfra

from tests.support.live import Play, play_against

NAMES = ("eleven-1", "eleven-2", "thirteen-1", "valkey-1", "backup-1", "drill-1")


@pytest.fixture(scope="session")
def inventory(request: pytest.FixtureRequest) -> str:
    return str(Path(request.config.getoption("ansible_inventory")).resolve())


@pytest.fixture(scope="session")
def play(inventory: str) -> Callable[..., Play]:
    """Run a playbook of the project against the lab: ``play("site.yml", "--check")``."""
    return partial(play_against, inventory)


@pytest.fixture(scope="session")
def hosts(inventory: str) -> dict[str, Any]:
    """All hosts of the lab by name."""
    return {
        name: testinfra.get_host(f"ansible://{name}", ansible_inventory=inventory) for name in NAMES
    }
