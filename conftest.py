"""What every test may import: the collection proven.redis, as Ansible itself finds it. And what all
tests on hosts start from: an inventory, its hosts, and playbooks that run against them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import testinfra
from ansible.plugins.loader import init_plugin_loader

from tests.support.live import Play, play_against

init_plugin_loader([str(Path(__file__).resolve().parent / "collections")])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files run in the order of their names, but for those marked as first or last."""

    def place(item: pytest.Item) -> int:
        return bool(item.get_closest_marker("last")) - bool(item.get_closest_marker("first"))

    items.sort(key=place)


@pytest.fixture(scope="module")
def inventory(request: pytest.FixtureRequest) -> Path:
    """The inventory of a Molecule scenario's lab. Those of tests/hosts have another."""
    return Path(request.config.getoption("ansible_inventory")).resolve()


@pytest.fixture(scope="module")
def hosts(inventory: Path) -> dict[str, Any]:
    """All hosts of the inventory by name."""
    found = testinfra.get_hosts(["ansible://all"], ansible_inventory=str(inventory))
    return {host.backend.host: host for host in found}


@pytest.fixture(scope="module")
def play(inventory: Path) -> Callable[..., Play]:
    """Run a playbook of the project against the lab: ``play("site.yml", "--check")``."""
    return partial(play_against, inventory)
