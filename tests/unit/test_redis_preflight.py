"""What the role redis refuses by the inventory alone: its playbook, run while no host is up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.live import Play, play_against

# Nothing listens on port 1: a host that is asked at all is seen to be unreachable.
INVENTORY = """\
redis:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1, redis_requirepass: of-twelve-or-more}
  children: {redis_master: {hosts: {redis-1: }}}
"""


def deploy(directory: Path, variable: str) -> Play:
    (directory / "hosts.yml").write_text(INVENTORY, encoding="utf-8")
    hosts = str(directory / "hosts.yml")
    return play_against(hosts, "playbooks/deploy_redis.yml", "-e", variable)


@pytest.mark.parametrize("hidden", ["/home", "/root/redis", "/tmp/redis/", "/var/../var/tmp/redis"])
def test_data_is_not_put_where_the_unit_hides_it(tmp_path: Path, hidden: str) -> None:
    run = deploy(tmp_path, f"redis_dir={hidden}")
    assert "UNREACHABLE" not in run.output
    assert "which Debian's unit hides from the server" in " ".join(run.output.split()), run.output


def test_other_directories_will_do(tmp_path: Path) -> None:
    run = deploy(tmp_path, "redis_dir=/homes/tmp")
    assert "redis-1]: UNREACHABLE" in run.output, run.output
