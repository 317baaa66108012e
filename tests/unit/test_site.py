"""What site.yml sees of the inventory before it changes anything: run while no host is up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.live import Play, play_against

INVENTORY = """\
all:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1}
  children:
    redis:
      hosts: {redis-1: }
      children: {redis_master: {hosts: {redis-1: }}}
      vars: {redis_requirepass: of-twelve-or-more}
    backup_server: {hosts: {backup-1: }}
"""


def site(directory: Path, inventory: str, *arguments: str) -> Play:
    (directory / "hosts.yml").write_text(inventory, encoding="utf-8")
    return play_against(str(directory / "hosts.yml"), "site.yml", *arguments)


def test_a_group_that_is_missing_is_told_before_redis_is_deployed(tmp_path: Path) -> None:
    run = site(tmp_path, INVENTORY)
    assert run.code == 2, run.output
    assert "Nothing was changed. The inventory has no group restore_drill." in run.output
    assert "PLAY [Deploy Redis]" not in run.output


@pytest.mark.parametrize("limit", ["redis-1", "backup-1"])
def test_an_empty_group_is_enough(tmp_path: Path, limit: str) -> None:
    run = site(tmp_path, INVENTORY + "    restore_drill:\n", "--limit", limit)
    assert f"{limit}]: UNREACHABLE" in run.output, run.output
    assert "Could not match" not in run.output
