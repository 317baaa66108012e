"""Wrong values of variables: refused by one message before anything is changed, in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.proven.redis.plugins.module_utils.value_checks import refusals

from tests.support.live import Play, play_against

REDIS, BACKUP = "redis", "redis_backup"
SERVER, DRILL = "redis_backup_server", "redis_restore_drill"
TOOL = "redis_backup_tool"
A_USER = {"name": "shop", "password": "of-twelve-or-more", "preset": "application"}
# Role, variable, value, words of the message that come in this order.
REFUSED: list[tuple[str, str, Any, list[str]]] = [
    (REDIS, "redis_bind", "0.0.0.0", ["is the text '0.0.0.0'", "a list", "[127.0.0.1, "]),
    (REDIS, "redis_bind", "127.0.0.1,192.168.1.2", ["is the text", "a list"]),
    (REDIS, "redis_bind", '["127.0.0.1"]', ["is the text", "a list"]),
    (REDIS, "redis_bind", [], ["is the list []", "not empty"]),
    (REDIS, "redis_bind", [["127.0.0.1"]], ["redis_bind[0] is the list", "one address"]),
    (REDIS, "redis_bind", ["127.0.0.1 192.168.1.2"], ["redis_bind[0] is", "one address"]),
    (REDIS, "redis_bind", [127], ["redis_bind[0] is the number 127", "in quotes"]),
    (REDIS, "redis_bind", {"127.0.0.1": None}, ["is the dictionary", "a list"]),
    (REDIS, "redis_bind", None, ["redis_bind has no value", "[127.0.0.1, "]),
    (REDIS, "redis_extra_config", {"unixsocketperm": 0o770}, ["504", 'unixsocketperm: "0770"']),
    (REDIS, "redis_extra_config", {"UnixSocketPerm": 770}, ["770", "in quotes"]),
    (REDIS, "redis_extra_config", {"unixsocketperm": "rwx"}, ["'rwx'", "in quotes"]),
    (REDIS, "redis_extra_config", {"activedefrag": "y"}, ["activedefrag is 'y'", "true or false"]),
    (REDIS, "redis_extra_config", {"maxmemory-clients": "1 gb"}, ["'1 gb'", "without a space"]),
    (REDIS, "redis_extra_config", {"maxmemory-clients": "0%"}, ["'0%'", "1% to 100% of"]),
    (REDIS, "redis_extra_config", {"proto-max-bulk-len": "5%"}, ["'5%'", "bytes"]),
    (REDIS, "redis_extra_config", {"hz": float("nan")}, ["hz is nan"]),
    (REDIS, "redis_extra_config", {"hz": {"a": 1}}, ["hz is a dictionary"]),
    (REDIS, "redis_extra_config", ["hz 50"], ["is the list", "a dictionary"]),
    (
        REDIS,
        "redis_appendonly",
        "y",
        ["is the text 'y'", "redis_appendonly: true"],
    ),
    (REDIS, "redis_appendonly", "yes", ["is the text 'yes'", "true or false"]),
    (REDIS, "redis_appendonly", "TRUE", ["is the text 'TRUE'", "true or false"]),
    (REDIS, "redis_appendonly", 1, ["is the number 1", "true or false"]),
    (REDIS, "redis_appendonly", "", ["is empty text", "true or false"]),
    (REDIS, "redis_save", "900", ["has a number without its other one", "900 1 300 10"]),
    (REDIS, "redis_save", "900 -1", ["'-1' is no number of changes"]),
    (REDIS, "redis_save", "0 1", ["seconds are fewer than 1"]),
    (REDIS, "redis_save", [[900, 1]], ["[900, 1] is neither a dictionary nor text"]),
    (REDIS, "redis_save", [{"seconds": 900}], ["other keys than seconds and changes"]),
    (REDIS, "redis_save", {"seconds": 900, "changes": 1}, ["neither a list nor text"]),
    (REDIS, "redis_save", None, ["redis_save has no value"]),
    (REDIS, "redis_maxmemory", "2 gb", ["is the text '2 gb'", "without a space", "2gb"]),
    (REDIS, "redis_maxmemory", "1.5gb", ["is the text '1.5gb'", "fraction"]),
    (REDIS, "redis_maxmemory", "2tb", ["is the text '2tb'", "(k, kb, m, mb, g, gb)"]),
    (REDIS, "redis_maxmemory", -1, ["is the number -1", "sign"]),
    (REDIS, "redis_maxmemory", 1.5e9, ["is the number 1500000000.0", "bytes"]),
    (REDIS, "redis_maxmemory", float("nan"), ["is the number nan"]),
    (REDIS, "redis_maxmemory", "0%", ["is the text '0%'", "from 1% to 100%"]),
    (REDIS, "redis_maxmemory", "101%", ["is the text '101%'", "from 1% to 100%"]),
    (REDIS, "redis_maxmemory", "60 %", ["is the text '60 %'", "60%"]),
    (REDIS, "redis_maxmemory", None, ["redis_maxmemory has no value", "redis_maxmemory: 2gb"]),
    (REDIS, "redis_repl_backlog_size", "64mib", ["is the text '64mib'", "bytes"]),
    (REDIS, "redis_maxmemory_policy", "AllKeys-LRU", ["one of noeviction, allkeys-lru"]),
    (REDIS, "redis_appendfsync", True, ["is true", "one of always, everysec, no"]),
    (REDIS, "redis_engine", "Redis", ["is the text 'Redis'", "one of redis, valkey"]),
    (REDIS, "redis_port", 70000, ["is the number 70000", "from 1024 to 65535", "redis_port: 6379"]),
    (REDIS, "redis_port", 0, ["is the number 0", "from 1024 to 65535"]),
    (REDIS, "redis_port", 1023, ["is the number 1023", "from 1024 to 65535"]),
    (REDIS, "redis_port", "6379/tcp", ["is the text '6379/tcp'", "a whole number"]),
    (REDIS, "redis_port", 6379.0, ["is the number 6379.0", "a whole number"]),
    (REDIS, "redis_port", [6379], ["is the list [6379]", "a whole number"]),
    (REDIS, "redis_timeout", -1, ["is the number -1", "a whole number"]),
    (REDIS, "redis_databases", 0, ["is the number 0", "from 1 to"]),
    (REDIS, "redis_databases", 10**6, ["is the number 1000000", "from 1 to 10000"]),
    (REDIS, "redis_nofile_limit", 10**20, ["is the number 1000", "from 64 to 1048576"]),
    (REDIS, "redis_sync_timeout", str(10**20), ["is the text '1000", "from 1 to 604800"]),
    (REDIS, "redis_port", "06382", ["is the text '06382'", "no zeros in front", "a whole number"]),
    (REDIS, "redis_timeout", "00", ["is the text '00'", "no zeros in front"]),
    (REDIS, "redis_timeout", "-0", ["is the text '-0'", "a whole number"]),
    (REDIS, "redis_set_name", "a" * 71, ["1 to 63 letters, digits, dots"]),
    (REDIS, "redis_set_name", 7, ["is the number 7", "in quotes"]),
    (REDIS, "redis_dir", "data", ["is the text 'data'", "an absolute path"]),
    (REDIS, "redis_dbfilename", "sub/dump.rdb", ["without a directory"]),
    (REDIS, "redis_dbfilename", "..", ["is the text '..'", "something else", "dump.rdb"]),
    (REDIS, "redis_dbfilename", "appendonly.aof", ["'appendonly.aof'", "something else"]),
    (REDIS, "redis_rejoin_as_replica", "redis-2", ["is the text 'redis-2'", "a list of text"]),
    (REDIS, "redis_requirepass", ["a", "b"], ["redis_requirepass is a list", "text"]),
    (REDIS, "redis_requirepass", "two\nlines", ["redis_requirepass is text", "without newlines"]),
    (REDIS, "redis_acl_users", A_USER, ["redis_acl_users is a dictionary", "[{name: ..."]),
    (REDIS, "redis_acl_users", [{"name": "shop"}], ["redis_acl_users[0].password is missing"]),
    (REDIS, "redis_acl_users", [{**A_USER, "preset": "admin"}], ["[0].preset is the text 'admin'"]),
    (REDIS, "redis_acl_users", [{**A_USER, "rules": "+@all"}], ["[0].rules is the text '+@all'"]),
    (REDIS, "redis_acl_users", [{**A_USER, "role": "x"}], ["[0] has 'role'"]),
    (REDIS, "redis_client_output_buffer_limit", ["normal 0 0 0"], ["has the classes normal;"]),
    (REDIS, "redis_client_output_buffer_limit", "normal 0 0 0", ["is the text", "three lines"]),
    (
        REDIS,
        "redis_client_output_buffer_limit",
        ["normal 1kb 1kb 1", "replica 0 0 0", "pubsub 0 0 0"],
        ["normal 1kb 1kb 1", "below 1mb", "CONFIG GET", "0 is no limit"],
    ),
    (
        REDIS,
        "redis_client_output_buffer_limit",
        ["normal 0 0 0", "slave 0 1m 60", "pubsub 0 0 0"],
        ["slave 0 1m 60", "below 1mb", "no replica ever gets in sync"],
    ),
    (
        REDIS,
        "redis_extra_config",
        {"Client-Output-Buffer-Limit": "pubsub 1kb 1kb 1 normal 1048575b 0 0"},
        ["Client-Output-Buffer-Limit: normal 1048575b 0", "below 1mb"],
    ),
    (
        REDIS,
        "redis_extra_config",
        {"client-output-buffer-limit": [["pubsub", 0, 0, 0], ["replica", 1024, 0, 0]]},
        ["replica 1024 0", "below 1mb"],
    ),
    (REDIS, "redis_extra_config", {"UnixSocket": "s"}, ["UnixSocket is 's'", "an absolute path"]),
    (REDIS, "redis_extra_config", {"unixsocket": 7}, ["unixsocket is 7", "an absolute path"]),
    (REDIS, "redis_maxmemroy", "2gb", ["no variable of the roles", "redis_maxmemory?"]),
    (REDIS, "redis_max_memory", "2gb", ["no variable of the roles", "redis_maxmemory?"]),
    (
        REDIS,
        "redis_maxclients",
        500,
        ["no variable", "redis_extra_config: {maxclients"],
    ),
    (BACKUP, "redis_backup_schedule", "5 24 * * *", ["'24' is no hour (0 to 23)", "5 0 * * *"]),
    (BACKUP, "redis_backup_schedule", "5 0 31 2 *", ["no such day ever comes"]),
    (BACKUP, "redis_backup_schedule", "5 0 * *", ["it has 4 fields and not five"]),
    (BACKUP, "redis_backup_schedule", "5/10 0 * * *", ["write 5-59/10"]),
    (BACKUP, "redis_backup_schedule", "@nightly", ["cron knows no such word", "@daily"]),
    (BACKUP, "redis_backup_schedule", 5, ["is the number 5", "in quotes"]),
    (BACKUP, "redis_backup_zstd_level", 22, ["is the number 22", "from 1 to 19"]),
    (BACKUP, "redis_backup_turn_delay", "-1", ["is the text '-1'", "from 0 to 86400"]),
    (BACKUP, "redis_backup_inbox_size", "64M", ["is the text '64M'", "16777216 (16 MiB)"]),
    (BACKUP, "redis_backup_inbox_size", 10**20, ["is the number 1000", "16 MiB) to", "(8 TiB)"]),
    (BACKUP, "redis_backup_hosts_allow", "192.168.1.2", ["is the text", "a list of addresses"]),
    (BACKUP, "redis_backup_shedule", "5 0 * * *", ["redis_backup_schedule?"]),
    (SERVER, "redis_backup_server_prune_schedule", "5 0 * * *", ["'5' is no part of a calendar"]),
    (SERVER, "redis_backup_server_prune_schedule", "*-*-* 25:00", ["'25' is no hour (0 to 23)"]),
    (SERVER, "redis_backup_server_check_schedule", "daily-ish", ["'daily-ish' is no part"]),
    (BACKUP, "redis_backup_notify_command", "tell me", ["first word, tell,", "absolute path"]),
    (BACKUP, "redis_backup_notify_command", "/bin/tell 'me", ["No closing quotation"]),
    (BACKUP, "redis_backup_notify_command", 5, ["is the number 5", "/usr/local/bin/tell"]),
    (SERVER, "redis_backup_server_share_per_day", 0, ["is the number 0", "from 1 to 100"]),
    (SERVER, "redis_backup_server_max_drill_age", 10**9, ["is the number 1000", "from 60 to"]),
    (SERVER, "redis_backup_server_directory", "backups", ["an absolute path"]),
    (SERVER, "redis_backup_server_inbox_backing", "Loop", ["one of loop, tmpfs"]),
    (TOOL, "redis_backup_tool_packages", "rsync zstd", ["is the text", "a list of text"]),
    (DRILL, "redis_restore_drill_schedule", "35 0 * * 8", ["'8' is no day of the week (0 to 7)"]),
    (DRILL, "redis_restore_drill_memory_max", "0%", ["is the text '0%'", "1% to 100%"]),
    (DRILL, "redis_restore_drill_assertions", [{"command": "DBSIZE"}], ["[0].command is the text"]),
    (
        DRILL,
        "redis_restore_drill_sets",
        [{"name": "redis", "assertions": [{"command": ["DBSIZE"], "expect": {"is": 1}}]}],
        ["redis_restore_drill_sets[0].assertions[0].expect is", "exactly one of equals"],
    ),
    (DRILL, "redis_restore_drill_engines", ["keydb"], ["[0] is the text 'keydb'"]),
    (DRILL, "redis_restore_drill_require_sandbox", "no", ["is the text 'no'", "true or false"]),
]
ACCEPTED: list[tuple[str, str, Any]] = [
    (REDIS, "redis_bind", ["::"]),
    (REDIS, "redis_bind", ["127.0.0.1", "-::1"]),
    (REDIS, "redis_bind", ["fe80::1%eth0", "redis-1.example.org", "*"]),
    (REDIS, "redis_appendonly", False),
    (REDIS, "redis_appendonly", "true"),
    (REDIS, "redis_appendonly", "False"),
    (REDIS, "redis_appendfsync", False),  # `no` in YAML
    (REDIS, "redis_port", "6380"),
    (REDIS, "redis_timeout", "0"),
    (REDIS, "redis_dbfilename", "appendonly.rdb"),
    (REDIS, "redis_save", "900 1"),
    (REDIS, "redis_save", ["900 1"]),
    (REDIS, "redis_save", "900 1 300 10"),
    (REDIS, "redis_save", "save 900 1\nsave 300 10\n"),
    (REDIS, "redis_save", ""),
    (REDIS, "redis_save", []),
    (REDIS, "redis_save", [{"seconds": "900", "changes": 0}]),
    (REDIS, "redis_maxmemory", "60%"),
    (REDIS, "redis_maxmemory", "2GB"),
    (REDIS, "redis_maxmemory", "64M"),
    (REDIS, "redis_maxmemory", 1073741824),
    (REDIS, "redis_maxmemory", "1073741824"),
    (REDIS, "redis_slowlog_log_slower_than", -1),
    (REDIS, "redis_requirepass", 123456789012),
    (REDIS, "redis_requirepass", " any 'characters' # at all "),
    (REDIS, "redis_masteruser", None),
    (REDIS, "redis_extra_config", {"unixsocketperm": "0770", "hz": 50, "activedefrag": True}),
    (REDIS, "redis_extra_config", {"maxmemory-clients": "5%", "MaxMemory-Clients": "64mb"}),
    (REDIS, "redis_acl_users", [A_USER, {**A_USER, "name": "b", "rules": ["~b:*", "+@all"]}]),
    (
        REDIS,
        "redis_client_output_buffer_limit",
        ["normal 0 0 0", "slave 1gb 64mb 60", "pubsub 32mb 8mb 60"],
    ),
    (
        REDIS,
        "redis_client_output_buffer_limit",
        ["normal 1mb 1048576 60", "replica 2m 0 60", "pubsub 32kb 8kb 60"],
    ),
    (REDIS, "redis_extra_config", {"client-output-buffer-limit": "normal 0 0 0 replica 1G 1gb 0"}),
    (REDIS, "redis_extra_config", {"unixsocket": "/run/redis/redis.sock"}),
    (REDIS, "redis_extra_config", {"unixsocket": ""}),
    (REDIS, "redis_exporter_port", "9121"),  # somebody else's
    (REDIS, "redis_version", 7),
    (BACKUP, "redis_backup_schedule", "@daily"),
    (BACKUP, "redis_backup_schedule", "*/20 1-5,22 * jan-MAR mon,7"),
    (BACKUP, "redis_backup_redis_username", ""),
    (BACKUP, "redis_backup_mailto", ""),
    (BACKUP, "redis_backup_notify_command", ["/bin/sh", "-c", "mail -s backup a@b"]),
    (BACKUP, "redis_backup_inbox_size", 0),
    (SERVER, "redis_backup_server_prune_schedule", "Mon..Fri 06:30 UTC"),
    (SERVER, "redis_backup_server_max_drill_age", "0"),
    (
        DRILL,
        "redis_restore_drill_assertions",
        [{"command": ["GETRANGE", "k", 0, 9], "expect": {"matches": "^a"}}],
    ),
    (DRILL, "redis_restore_drill_memory_max", "2G"),
]
GROUPS = {
    REDIS: "redis",
    BACKUP: "redis",
    TOOL: "redis",
    SERVER: "backup_server",
    DRILL: "restore_drill",
}


def said(role: str, **values: Any) -> list[str]:
    return refusals(role, list(values), values.__getitem__, list(values))


def in_order(words: list[str], text: str) -> bool:
    places = [text.find(word) for word in words]
    return -1 not in places and places == sorted(places)


@pytest.mark.parametrize(("role", "name", "value", "words"), REFUSED)
def test_a_wrong_value_is_refused_by_its_name(
    role: str, name: str, value: Any, words: list[str]
) -> None:
    found = said(role, **{name: value})
    assert found
    assert name in found[0]
    assert in_order(words, found[0]), found


@pytest.mark.parametrize(("role", "name", "value"), ACCEPTED)
def test_a_right_value_is_taken(role: str, name: str, value: Any) -> None:
    assert said(role, **{name: value}) == []


def test_the_table_is_long_enough_and_names_every_role() -> None:
    assert len(REFUSED) >= 40
    assert {role for role, *_ in REFUSED} == set(GROUPS)


def test_no_message_shows_a_secret() -> None:
    secret = "hunter2-and-more\n"
    for name in ("redis_requirepass", "redis_previous_password", "redis_masterauth"):
        assert said(REDIS, **{name: secret})
        assert "hunter2" not in str(said(REDIS, **{name: secret}) + said(REDIS, **{name: [secret]}))
    users = [{**A_USER, "password": secret}]
    for value in (users, users[0], [users]):
        assert said(REDIS, redis_acl_users=value)
        assert "hunter2" not in str(said(REDIS, redis_acl_users=value))


def site(directory: Path, hosts: dict[str, dict[str, dict[str, Any]]], *arguments: str) -> Play:
    """site.yml against these hosts by group, none of which is up."""
    base = {"redis_requirepass": "of-twelve-or-more", "ansible_host": "127.0.0.1"}
    inventory: dict[str, Any] = {
        "all": {
            "vars": {"ansible_port": 1, **base},
            "children": {name: {"hosts": members} for name, members in hosts.items()},
        }
    }
    path = directory / "hosts.yml"
    path.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    return play_against(str(path), "site.yml", *arguments)


def test_all_wrong_values_of_all_hosts_and_roles_are_one_message(tmp_path: Path) -> None:
    """Through Ansible, each on a host of its own. Nothing connects, and nothing is left behind."""
    hosts: dict[str, dict[str, dict[str, Any]]] = {group: {} for group in GROUPS.values()}
    cases = []
    for number, (role, name, value, words) in enumerate(REFUSED):
        # There is one backup server.
        if role != SERVER:
            hosts[GROUPS[role]][f"host-{number}"] = {name: value}
            cases.append((f"host-{number}", name, words))
    hosts["redis_master"] = {"host-0": {}}
    hosts["backup_server"] = {"backup-1": {"redis_backup_server_keep_last": "seven"}}
    run = site(tmp_path, hosts)
    assert run.code == 2
    assert "UNREACHABLE" not in run.output
    assert "Traceback" not in run.output
    lines = [" ".join(part.split()) for part in run.output.split("fatal: ")[1:]]
    assert len(lines) == 1, "one message, of one host"
    assert lines[0].count("Nothing was changed.") == 1
    assert "redis_backup_server_keep_last is the text" in lines[0]
    missing = [
        (host, name)
        for host, name, words in cases
        if f"{host}: {name}" not in lines[0] and f"{host}: A" not in lines[0]
    ]
    assert missing == []
    assert {path.name for path in tmp_path.iterdir()} == {"hosts.yml"}


def test_what_all_hosts_share_is_said_once(tmp_path: Path) -> None:
    hosts: dict[str, dict[str, dict[str, Any]]] = {
        "redis": {"redis-1": {}, "redis-2": {}},
        "redis_master": {"redis-1": {}},
        "backup_server": {"backup-1": {}},
        "restore_drill": {},
    }
    run = site(tmp_path, hosts, "-e", "redis_maxmemroy=2gb", "-e", "redis_appendonly=y")
    assert run.code == 2
    # Ansible itself shows the message of a task that failed in two ways.
    text = " ".join(run.output.partition("fatal: ")[2].split())
    assert "fatal: " not in text
    assert text.count("Did you mean redis_maxmemory?") == 1, run.output
    assert "redis-1, redis-2: redis_appendonly is the text 'y'" in text


def test_a_wrong_value_of_one_host_is_no_noise_about_others(tmp_path: Path) -> None:
    hosts: dict[str, dict[str, dict[str, Any]]] = {
        "redis": {"redis-1": {"redis_port": "0x10"}, "redis-2": {}},
        "redis_master": {"redis-1": {}},
        "backup_server": {"backup-1": {"redis_backup_server_rsync_port": "x"}},
        "restore_drill": {"drill-1": {}},
    }
    run = site(tmp_path, hosts)
    text = " ".join(run.output.partition("fatal: ")[2].split())
    assert "redis-1: redis_port is the text '0x10'" in text, run.output
    assert "backup-1: redis_backup_server_rsync_port is the text 'x'" in text
    assert "could not be computed" not in text, run.output
    assert "The tool would refuse" not in text, run.output
