"""What the backup roles write on hosts, rendered by Ansible's own engine.

The golden files are the promise. After a wanted change `GOLDEN=write pytest THIS_FILE` writes them
again, and the difference belongs in the review.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from redis_backup.config import model
from redis_backup.config import reader as tool_config
from redis_backup.config.model import Policy

from tests.unit.role_templates import Role

GOLDEN = Path(__file__).parent / "golden"
SOURCE: dict[str, object] = {
    "redis_backup_server_uploader_kind": "host",
    "redis_backup_server_uploader_set": "redis",
    "redis_backup_server_uploader_secret": "a-secret",
    "redis_backup_server_uploader_hosts_allow": ["192.168.1.2", "10.0.0.0/24"],
    "redis_backup_server_uploader_readers": ["redis-1", "redis-2", "redis-3"],
    "redis_backup_server_uploader_readers_allow": ["192.168.1.2", "192.168.1.3", "192.168.1.2"],
}
DRILL: dict[str, object] = {
    "redis_backup_server_uploader_kind": "drill",
    "redis_backup_server_uploader_secret": "a-secret",
    "redis_backup_server_uploader_hosts_allow": ["192.168.1.123"],
}
SERVER, CLIENT = "redis_backup_server", "redis_backup"


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Role]:
    directory = tmp_path_factory.mktemp("inventory")
    return {name: Role(name, directory) for name in (SERVER, CLIENT)}


@pytest.mark.parametrize(
    ("role", "template", "host", "extra"),
    [
        (CLIENT, "config.json.j2", "redis-3", {}),
        (CLIENT, "cron.j2", "redis-1", {}),
        (SERVER, "rsyncd.conf.j2", "backup-1", {}),
        (SERVER, "server.json.j2", "backup-1", {}),
        (SERVER, "redis-backup-rsyncd.service.j2", "backup-1", {}),
        (SERVER, "redis-backup-accept.service.j2", "backup-1", {}),
        (SERVER, "redis-backup-accept.timer.j2", "backup-1", {}),
        (SERVER, "redis-backup-prune.service.j2", "backup-1", {}),
        (SERVER, "redis-backup-prune.timer.j2", "backup-1", {}),
        (SERVER, "redis-backup-scrub.service.j2", "backup-1", {}),
        (SERVER, "redis-backup-scrub.timer.j2", "backup-1", {}),
        (SERVER, "redis-backup-check.service.j2", "backup-1", {}),
        (SERVER, "redis-backup-check.timer.j2", "backup-1", {}),
        (SERVER, "redis-backup-notify@.service.j2", "backup-1", {}),
        (SERVER, "inbox.conf.j2", "redis-1", SOURCE),
        (SERVER, "receipts.conf.j2", "redis-1", SOURCE),
        (SERVER, "uploader.json.j2", "redis-1", SOURCE),
        (SERVER, "secret.j2", "redis-1", SOURCE),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith(".j2") else "",
)
def test_golden(
    roles: dict[str, Role], role: str, template: str, host: str, extra: dict[str, object]
) -> None:
    rendered = roles[role].render(template, host, **extra)
    golden = GOLDEN / role / template.removesuffix(".j2")
    if os.environ.get("GOLDEN") == "write":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(rendered, encoding="utf-8")
    assert rendered == golden.read_text(encoding="utf-8")


def test_every_template_has_a_golden_file() -> None:
    for role in (SERVER, CLIENT):
        templates = (GOLDEN.parents[2] / "roles" / role / "templates").iterdir()
        assert {path.name.removesuffix(".j2") for path in templates} == {
            path.name for path in (GOLDEN / role).iterdir()
        }


def test_the_tool_reads_the_configuration_of_a_redis_host(
    roles: dict[str, Role], tmp_path: Path
) -> None:
    path = tmp_path / "redis.json"
    path.write_text(roles[CLIENT].render("config.json.j2", "redis-2"), encoding="utf-8")
    path.chmod(0o600)
    config = tool_config.load(path)
    assert isinstance(config, model.HostConfig)
    assert [(host.name, host.address, host.port) for host in config.hosts] == [
        ("redis-1", "192.168.1.2", 6379),
        ("redis-2", "192.168.1.3", 6379),
        ("redis-3", "192.168.1.4", 6379),
    ]
    assert (config.host, config.redis.password, config.redis.username) == (
        "redis-2",
        "a-password",
        None,
    )
    assert (config.transport.server, config.transport.port) == ("192.168.1.122", 8873)
    assert config.transport.inbox_module == "inbox-redis-2"


def test_numbers_given_as_text_are_numbers_for_the_tool(roles: dict[str, Role]) -> None:
    """As `-e redis_backup_turn_delay=8` and INI inventories give them."""
    source = json.loads(
        roles[CLIENT].render(
            "config.json.j2",
            "redis-1",
            redis_port="6380",
            redis_backup_turn_delay="8",
            redis_backup_bgsave_timeout="9",
            redis_backup_receipt_timeout="10",
            redis_backup_disk_reserve="11",
            redis_backup_zstd_level="12",
        )
    )
    assert source["redis"]["port"] == 6380
    assert source["turn_delay_seconds"] == 8
    tool_config.parse(source, Path("redis.json"))
    server = roles[SERVER].render(
        "server.json.j2",
        "backup-1",
        redis_backup_server_inbox_max_age="86400",
        redis_backup_server_receipts_min_age="1209600",
        redis_backup_server_disk_reserve="1",
        redis_backup_server_keep_last="1",
        redis_backup_server_keep_daily="2",
        redis_backup_server_keep_weekly="3",
        redis_backup_server_keep_monthly="4",
        redis_backup_server_keep_minimum="5",
        redis_backup_server_max_backup_age="60",
        redis_backup_server_max_drill_age="61",
    )
    config = tool_config.parse(json.loads(server), Path("server.json"))
    assert isinstance(config, model.ServerConfig)
    assert config.retention == Policy(last=1, daily=2, weekly=3, monthly=4, minimum=5)
    assert (config.max_backup_age, config.max_drill_age) == (60, 61)


def test_no_drill_is_expected_where_no_host_drills(roles: dict[str, Role]) -> None:
    for group, expected in (("nobody", None), ("restore_drill", 93600)):
        text = roles[SERVER].render("server.json.j2", "backup-1", redis_restore_drill_group=group)
        assert json.loads(text)["max_drill_age_seconds"] == expected


def test_a_redis_without_password_is_configured_without_one(roles: dict[str, Role]) -> None:
    text = roles[CLIENT].render("config.json.j2", "redis-1", redis_requirepass="")
    assert json.loads(text)["redis"]["password"] is None


def test_the_tool_is_the_user_for_backups_where_there_is_one(roles: dict[str, Role]) -> None:
    def login(**extra: object) -> tuple[str | None, str | None]:
        redis = json.loads(roles[CLIENT].render("config.json.j2", "redis-1", **extra))["redis"]
        return redis["username"], redis["password"]

    odd = 'it\'s "this" {{ one }} # é'
    shop = {"name": "shop", "preset": "application", "password": "another"}
    saver = {"name": "saver", "preset": "backup", "password": odd}
    assert login(redis_acl_users=[shop, saver]) == ("saver", odd)
    assert login(redis_acl_users=[shop]) == (None, "a-password")
    assert login(redis_acl_users=[], redis_admin_user="default") == (None, "a-password")
    assert login(redis_admin_user="operator") == ("operator", "a-password")


def test_the_tool_reads_the_configuration_of_the_server(
    roles: dict[str, Role], tmp_path: Path
) -> None:
    path = tmp_path / "server.json"
    path.write_text(roles[SERVER].render("server.json.j2", "backup-1"), encoding="utf-8")
    path.chmod(0o600)
    config = tool_config.load(path)
    assert isinstance(config, model.ServerConfig)
    assert config.inbox == Path("/var/lib/redis-backup/inbox")


@pytest.mark.parametrize(
    ("host", "source", "expected"),
    [
        ("redis-1", SOURCE, model.Uploader("redis-1", "host", "redis")),
        ("drill-1", DRILL, model.Uploader("drill-1", "drill", None)),
    ],
)
def test_the_tool_reads_who_may_upload(
    roles: dict[str, Role],
    tmp_path: Path,
    host: str,
    source: dict[str, object],
    expected: model.Uploader,
) -> None:
    text = roles[SERVER].render("uploader.json.j2", host, **source)
    (tmp_path / f"{host}.json").write_text(text, encoding="utf-8")
    assert tool_config.load_uploaders(tmp_path) == [expected]


def test_the_server_has_no_store_module_without_drill_hosts(roles: dict[str, Role]) -> None:
    text = roles[SERVER].render("rsyncd.conf.j2", "backup-1", redis_restore_drill_group="nobody")
    assert "[store]" not in text


def test_only_what_the_daemon_read_at_its_start_is_in_its_unit(roles: dict[str, Role]) -> None:
    """rsync reads rsyncd.conf for every connection, so a change there restarts nothing."""
    given = {"redis_backup_server_rsync_port": "8874"}
    unit = roles[SERVER].render("redis-backup-rsyncd.service.j2", "backup-1", **given)
    assert " --port=8874 " in unit
    assert "8874" not in roles[SERVER].render("rsyncd.conf.j2", "backup-1", **given)


def test_one_host_of_the_run_speaks_for_the_set(roles: dict[str, Role]) -> None:
    def speaks(host: str, run: list[str], source: dict[str, object] = SOURCE) -> object:
        return roles[SERVER].value(
            "__redis_backup_server_speaks_for_set", host, **{**source, "ansible_play_hosts": run}
        )

    assert speaks("redis-1", ["redis-1", "redis-2"]) is True
    assert speaks("redis-2", ["redis-1", "redis-2"]) is False
    assert speaks("redis-2", ["redis-2"]) is True
    assert speaks("drill-1", ["drill-1"], DRILL) is False


def test_a_custom_directory_of_the_server_is_known_to_the_other_hosts(tmp_path: Path) -> None:
    role = Role(SERVER, tmp_path)
    hosts = {"backup-1": {"redis_backup_server_directory": "/srv/backups"}}
    text = role.render("inbox.conf.j2", "redis-1", **{**SOURCE, "hostvars": hosts})
    assert "path = /srv/backups/inbox/redis-1\n" in text


def test_files_are_named_by_the_instance_and_not_by_its_set(roles: dict[str, Role]) -> None:
    def files(**given: object) -> list[str]:
        names = ("__redis_backup_cron_file", "__redis_backup_config_file")
        return [roles[CLIENT].value(name, "redis-1", **given) for name in names]

    default = ["/etc/cron.d/redis-backup-redis", "/etc/redis-backup/redis.json"]
    assert files() == default
    # Another name of the set takes the place of the one before.
    assert files(redis_backup_set_name="orders") == default
    # Two instances of one machine share no file, whatever their engines. cron ignores files with a
    # dot in their names.
    other = ["/etc/cron.d/redis-backup-redis-6380", "/etc/redis-backup/redis-6380.json"]
    assert files(redis_port="6380", redis_engine="valkey") == other


@pytest.mark.parametrize(
    ("ends_with", "reported"), [(0, False), (75, False), (1, True), (2, True), (137, True)]
)
def test_cron_reports_failures_and_keeps_quiet_about_turns(
    roles: dict[str, Role], tmp_path: Path, ends_with: int, reported: bool
) -> None:
    """The line that cron would run, with programs that only note how they were called."""
    calls = tmp_path / "calls"
    for name, status in (("systemd-cat", ends_with), ("logger", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\nexit {status}\n')
        program.chmod(0o755)
    line = roles[CLIENT].render("cron.j2", "redis-1").splitlines()[-1]
    schedule, user, command = line[:9], line.split()[5], line.split(maxsplit=6)[6]
    assert (schedule, user) == ("5 0 * * *", "redis")
    # cron turns an unescaped % into a newline.
    assert "%" not in line
    subprocess.run(
        ["/bin/sh", "-c", command.replace("/usr/bin/", f"{tmp_path}/")], check=False, timeout=10
    )
    backup, *reports = calls.read_text(encoding="utf-8").splitlines()
    assert backup.endswith(
        "/usr/local/bin/redis-backup --config /etc/redis-backup/redis.json create"
    )
    assert [f"exit status {ends_with}," in report for report in reports] == (
        [True] if reported else []
    )


def test_only_hosts_of_sets_and_drill_hosts_are_let_in(roles: dict[str, Role]) -> None:
    """A host that left its set is forgotten although the inventory has it still, like the backup
    server itself."""
    let_in = roles[SERVER].value("__redis_backup_server_uploaders", "backup-1")
    assert sorted(let_in) == ["drill-1", "redis-1", "redis-2", "redis-3"]
