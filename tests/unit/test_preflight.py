"""What roles refuse before they change anything: their own tasks, run by Ansible."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import play_against
from tests.support.runbooks import is_seen
from tests.tool.backup_lab import free_port
from tests.unit.role_templates import Role

INVENTORY = """\
all:
  vars: {{ansible_connection: local}}
  children:
    redis: {{hosts: {{redis-1: , redis-2: }}, vars: {redis}}}
    backup_server: {{hosts: {{backup-1: }}}}
    restore_drill: {{hosts: {{{drill}: }}}}
"""
SETS = """\
all:
  vars: {{ansible_connection: local, redis_requirepass: a-long-password}}
  children:
    redis:
      children:
        orders:
          hosts: {{orders-1: , orders-2: }}
          vars: {{redis_replication_group: orders, redis_master_group: orders_master{orders}}}
        sessions:
          hosts: {{sessions-1: }}
          vars: {{redis_replication_group: sessions, redis_master_group: sessions_master{sessions}}}
    orders_master: {{hosts: {{orders-1: }}}}
    sessions_master: {{hosts: {{sessions-1: }}}}
    backup_server: {{hosts: {{backup-1: }}}}
    restore_drill: {{hosts: {{drill-1: }}}}
"""
INSTANCES = """\
redis:
  vars: {{ansible_connection: local, redis_requirepass: a-long-password}}
  hosts:
    redis-1: {{redis_address: 192.0.2.1, redis_port: {0}, redis_dir: /nonexistent}}
    redis-4: {{redis_address: localhost, redis_port: {1}, redis_dir: /nonexistent{more}}}
  children:
    redis_master: {{hosts: {{redis-1: }}}}
"""
PLAYBOOK = """\
- hosts: {host}
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {{name: proven.redis.{role}, tasks_from: preflight}}
"""


def preflight(
    directory: Path,
    role: str,
    host: str,
    drill: str = "",
    *more: str,
    redis: str = "{}",
    inventory: str = "",
) -> str:
    """What Ansible says of the role's checks on a host; empty when they let it pass. `redis`: the
    variables of the Redis hosts. `inventory`: another one altogether.
    """
    hosts, playbook = directory / "hosts.yml", directory / "play.yml"
    text = inventory or INVENTORY.format(drill=drill, redis=redis)
    hosts.write_text(text, encoding="utf-8")
    playbook.write_text(PLAYBOOK.format(host=host, role=role), encoding="utf-8")
    run = play_against(str(hosts), str(playbook), *more)
    return "" if run.code == 0 else " ".join(run.output.split())


@pytest.mark.parametrize("role", ["redis_backup", "redis_restore_drill"])
def test_a_redis_host_is_no_drill_host(tmp_path: Path, role: str) -> None:
    said = preflight(tmp_path, role, "redis-1", drill="redis-1")
    assert "redis-1 is a Redis host and a drill host" in said, said


@pytest.mark.parametrize(
    ("role", "host", "drill"),
    [
        ("redis_backup", "redis-1", "drill-1"),
        ("redis_restore_drill", "drill-1", "drill-1"),
        ("redis_restore_drill", "backup-1", "backup-1"),
    ],
)
def test_other_divisions_of_labour_are_accepted(
    tmp_path: Path, role: str, host: str, drill: str
) -> None:
    assert preflight(tmp_path, role, host, drill) == ""


@pytest.mark.parametrize(
    ("role", "host", "variable", "words"),
    [
        ("redis_backup", "redis-1", "redis_backup_zstd_level=22", "from 1 to 19"),
        (
            "redis_backup_server",
            "backup-1",
            "redis_backup_server_receipts_min_age=86400",
            "from 1209600 to",
        ),
        (
            "redis_restore_drill",
            "drill-1",
            '{"redis_restore_drill_assertions": [{"command": "DBSIZE"}]}',
            "redis_restore_drill_assertions[0].command is the text 'DBSIZE'",
        ),
    ],
)
def test_values_are_checked_without_a_play_for_it(
    tmp_path: Path, role: str, host: str, variable: str, words: str
) -> None:
    """In somebody's own playbook, which applies the role and nothing before. All the others are in
    test_values.py.
    """
    said = preflight(tmp_path, role, host, "drill-1", "-e", variable)
    # In YAML, a quote in a quoted text is written twice.
    assert words in said.replace("''", "'"), said
    assert said.partition("fatal: ")[2].count("Nothing was changed.") == 1


@pytest.mark.parametrize(
    ("redis", "words"),
    [
        (
            "{redis_backup_engine: valkey}",
            "redis_backup_engine (valkey) is not redis_engine (redis)",
        ),
        (
            "{redis_backup_redis_port: 6380}",
            "redis_backup_redis_port (6380) is not redis_port (6379)",
        ),
        ("{redis_port: 6380, redis_backup_redis_port: '6380', redis_engine: valkey}", ""),
    ],
)
def test_a_backup_is_of_the_server_of_the_set(tmp_path: Path, redis: str, words: str) -> None:
    said = preflight(tmp_path, "redis_backup", "redis-1", "drill-1", redis=redis)
    assert words in said, said
    assert bool(said) == bool(words), said


def test_what_only_the_tool_refuses_is_not_deployed(tmp_path: Path) -> None:
    """Its own code has the last word, whatever the table of forms knows."""
    given = json.dumps({"__redis_backup_server_config": {"kind": "server", "store": "store"}})
    said = preflight(tmp_path, "redis_backup_server", "backup-1", "drill-1", "-e", given)
    assert "Nothing was changed. The tool would refuse its configuration on backup-1" in said, said


@pytest.mark.parametrize(
    ("role", "host", "variable"),
    [
        ("redis_backup", "redis-1", "redis_backup_redis_password"),
        ("redis_backup", "redis-1", "redis_backup_rsync_secret"),
        ("redis_restore_drill", "drill-1", "redis_restore_drill_rsync_secret"),
    ],
)
def test_a_secret_of_digits_is_text(tmp_path: Path, role: str, host: str, variable: str) -> None:
    assert preflight(tmp_path, role, host, "drill-1", "-e", f'{{"{variable}": 123456}}') == ""


def test_a_set_that_no_host_forms_is_not_drilled(tmp_path: Path) -> None:
    given = '{"redis_restore_drill_sets": [{"name": "shop"}, {"name": "redis"}]}'
    said = preflight(tmp_path, "redis_restore_drill", "drill-1", "drill-1", "-e", given)
    assert "names shop, of which no backup can be: the sets of the inventory are redis" in said
    redis = "{redis_set_name: shop}"
    given = '{"redis_restore_drill_sets": [{"name": "shop"}]}'
    arguments = ("redis_restore_drill", "drill-1", "drill-1", "-e", given)
    assert preflight(tmp_path, *arguments, redis=redis) == ""


@pytest.mark.parametrize("role", ["redis", "redis_backup"])
@pytest.mark.parametrize(
    "orders", ["", ", redis_set_name: redis", ", redis_backup_set_name: redis"]
)
def test_two_sets_have_two_names(tmp_path: Path, role: str, orders: str) -> None:
    inventory = SETS.format(orders=orders, sessions="")
    said = preflight(tmp_path, role, "sessions-1", inventory=inventory)
    assert is_seen("several-sets#one-name", said), said


@pytest.mark.parametrize(
    ("orders", "sessions"),
    [
        (", redis_set_name: orders", ""),
        (", redis_set_name: orders", ", redis_set_name: sessions"),
        ("", ", redis_backup_set_name: sessions"),
    ],
)
def test_and_with_two_names_both_are_accepted(tmp_path: Path, orders: str, sessions: str) -> None:
    inventory = SETS.format(orders=orders, sessions=sessions)
    assert preflight(tmp_path, "redis_backup", "all:!backup-1:!drill-1", inventory=inventory) == ""


def test_a_name_that_is_a_loopback_address_is_where_no_other_host_connects(tmp_path: Path) -> None:
    inventory = INSTANCES.format(free_port(), free_port(), more="")
    said = preflight(tmp_path, "redis", "redis", inventory=inventory)
    assert is_seen("adding-a-replica#loopback", said), said


def test_beside_another_address_such_a_name_is_no_obstacle(tmp_path: Path) -> None:
    more = ", redis_bind: [127.0.0.1, 192.0.2.4]"
    inventory = INSTANCES.format(free_port(), free_port(), more=more)
    assert preflight(tmp_path, "redis", "redis", inventory=inventory) == ""


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (
            "",
            "redis_master_group is redis_master, and that group must hold exactly one host, which"
            " must be in redis too; it holds none.",
        ),
        (
            ", children: {redis: {children: {redis_master: {hosts: {redis-1: }}}}}",
            "web-9 must be in redis, the group of all instances of its set.",
        ),
    ],
)
def test_a_host_outside_the_group_learns_so(tmp_path: Path, group: str, message: str) -> None:
    """No rule may fail by itself, or it hides the message of another."""
    variables = "{ansible_connection: local, redis_requirepass: a-long-password}"
    inventory = f"all: {{vars: {variables}, hosts: {{web-9: }}{group}}}\n"
    said = preflight(tmp_path, "redis", "web-9", inventory=inventory)
    assert message in said, said
    assert "redis_min_replicas_to_write" not in said


@pytest.fixture
def seen_by_services() -> Iterator[Path]:
    """A directory that the services would see: they have a /tmp of their own."""
    if not os.access("/srv", os.W_OK):
        pytest.skip("makes a directory in /srv")
    with tempfile.TemporaryDirectory(dir="/srv") as place:
        yield Path(place)


def test_backups_are_not_left_behind_in_another_directory(
    tmp_path: Path, seen_by_services: Path
) -> None:
    """Before anything was deployed, with the same directory, with another, and once moved."""
    etc, old, new = (seen_by_services / name for name in ("etc", "old", "new"))
    etc.mkdir()
    (old / "store").mkdir(parents=True)

    def said(directory: Path) -> str:
        paths = {
            "__redis_backup_server_etc": str(etc),
            "redis_backup_server_directory": str(directory),
        }
        given = ("drill-1", "-e", json.dumps(paths))
        return preflight(tmp_path, "redis_backup_server", "backup-1", *given)

    assert said(old) == ""
    for bad in (Path("/home/backups"), Path("backups"), old / "with space\n"):
        assert "absolute path" in said(bad), bad
    assert "/srv is a directory of the system" in said(Path("/srv"))
    server = Role("redis_backup_server", tmp_path)
    written = server.render("server.json.j2", "backup-1", redis_backup_server_directory=str(old))
    (etc / "server.json").write_text(written, encoding="utf-8")
    assert said(old) == ""
    assert said(Path(f"{old}/")) == ""
    assert f"The backups are in {old}/store" in said(new)
    old.rename(new)
    assert said(new) == ""


@pytest.mark.parametrize(
    ("role", "host", "given", "said", "not_said"),
    [
        ("redis_backup", "redis-1", {"redis_backup_schedule": "daily"}, "five fields", "one host"),
        (
            "redis_backup",
            "redis-1",
            {"redis_backup_set_name": "../a"},
            "1 to 63 letters",
            "five fields",
        ),
        (
            "redis_restore_drill",
            "drill-1",
            {"redis_restore_drill_memory_max": "0%"},
            "or 1% to 100% of the machine",
            "five fields",
        ),
        (
            "redis_restore_drill",
            "drill-1",
            {"redis_restore_drill_sets": [{"name": "redis"}, {"name": "redis"}]},
            "each set that is drilled once; it names redis, redis",
            "no backup can be",
        ),
        ("redis", "redis-1", {"redis_requirepass": "short"}, "12 characters", "redis_bind"),
        ("redis", "redis-1", {"redis_master_group": "nobody"}, "it holds none", "12 characters"),
        ("redis", "redis-1", {"redis_dir": "/tmp/a"}, "hides from the server", "6379"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_else(
    tmp_path: Path, role: str, host: str, given: dict[str, object], said: str, not_said: str
) -> None:
    given = {"redis_requirepass": "a-long-password", **given}
    output = preflight(tmp_path, role, host, "drill-1", "-e", json.dumps(given))
    assert "Nothing was changed." in output, output
    assert said in output
    assert not_said not in output
