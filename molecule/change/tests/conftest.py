"""The hosts of this scenario, and clients that work while a set is changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import testinfra

from tests.support.live import Play, play_against

NAMES = ("redis-1", "redis-2", "redis-3", "backup-1")


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
