"""The collection, installed in another project, is the same product: it finds nothing to change."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import collection
from tests.support.ansible_runs import good
from tests.support.collection import ansible
from tests.support.live import Play

PLAY = """\
- hosts: redis
  become: true
  gather_facts: false
  any_errors_fatal: true
  roles: [proven.redis.redis]
- import_playbook: proven.redis.site
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path: ssh's control sockets lie in the user's home."""
    with tempfile.TemporaryDirectory(prefix="c-") as name:
        yield Path(name)


def test_it_deploys_the_hosts_from_elsewhere(
    inventory: Path, place: Path, play: Callable[..., Play]
) -> None:
    project = place / "p"
    project.mkdir()
    collection.install(collection.clone(place), project)
    (project / "play.yml").write_text(PLAY, encoding="utf-8")
    output = good(ansible(project, "ansible-playbook", "-i", str(inventory), "play.yml"))
    changed = re.findall(r"^TASK \[(.+)\] \*+\n(?:.+\n)*?changed: ", output, re.MULTILINE)
    # The version of the tool has no commit there.
    assert changed == ["proven.redis.redis_backup_tool : Install the backup tool"]
    # An installed collection is no place for what is kept, and what a drill host has written is no
    # part of the inventory.
    good(ansible(project, "ansible-playbook", "-i", str(inventory), "proven.redis.restore_drill"))
    assert list((inventory / ".reports").glob("*.json"))
    # Back to the tool of this checkout.
    assert play("site.yml").code == 0
