"""Forms of values: schedules, calendar events, save points, shares of memory, names; and that what
the program redis-backup demands of its configuration is refused before, by the variable's name.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.proven.redis.plugins.filter.asks_for_facts import asks
from ansible_collections.proven.redis.plugins.filter.redis_memory_share import redis_memory_share
from ansible_collections.proven.redis.plugins.lookup.kept_secret import NOT_MADE, read
from ansible_collections.proven.redis.plugins.module_utils import (
    calendar_event,
    cron_schedule,
    host_memory,
    value_forms,
)
from ansible_collections.proven.redis.plugins.module_utils.role_variables import (
    defaults,
    known_names,
    options,
)
from ansible_collections.proven.redis.plugins.module_utils.save_points import save_points
from ansible_collections.proven.redis.plugins.module_utils.value_checks import refusals
from ansible_collections.proven.redis.plugins.module_utils.variable_names import unknown
from redis_backup.base.errors import UsageError
from redis_backup.config import reader

from tests.unit.role_templates import Role

ROLES = (
    *("redis", "redis_backup", "redis_backup_server"),
    *("redis_backup_tool", "redis_restore_drill"),
)

# What `crontab -n` of Debian 12 (cron 3.0pl1-162) said of each.
CRON_TAKES = [
    *("5 0 * * *", "05 00 * * *", "*/90 * * * *", "1,2,3-5/2 * * * 7", "* * * * 5-7"),
    *("* * * jan-mar mon-fri", "* * * Jan,FEB *", "* * * * sun-sat", "1-5/90 * * * *"),
    *("*/5,3 * * * *", "0-59/60 * * * *", " 5  0\t* * * ", "@daily", "@reboot", "@annually"),
]
CRON_REFUSES = [
    *("5 24 * * *", "60 * * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "5 0 * *"),
    *("5/10 * * * *", "*/0 * * * *", "5x * * * *", "* * * foo *", "-1 * * * *", "1, * * * *"),
    *(",1 * * * *", "1-70 * * * *", "? * * * *", "* * L * *", "* * * * monday", "3/* * * * *"),
    *("1--5 * * * *", "*/1a * * * *", "@Daily", "@every_minute", "", "daily"),
]
# It takes these too, and means something else by them, or never runs them.
CRON_MISREADS = [
    *("22-2 * * * *", "5;3 * * * *", "*-5 * * * *", "** * * * *", "* * * * sat-sun"),
    *("0 0 31 2 *", "0 0 30,31 feb *", "* * * * mon#1", "1~5 * * * *", "*/5-10 * * * *"),
    *("@daily x", "5 0 * * * root", "5 0 * * *\n* * * * *"),
]
EVENTS = [
    *("daily", "Daily", "weekly", "hourly UTC", "06:30", "*-*-* 06:30:00", "*:0/15", "3:00"),
    *("Mon..Fri 10:00", "Mon-Fri", "Mon,Tue", "sat..sun 03:00", "monday 3:00", "Mon *-*-01"),
    *("*-*-1..7 18:00", "*-*~3", "06:30:00.5", "quarterly", "*-*-* *:*:*", "0/8,5:00", "02-29"),
    *("10:00 Europe/Berlin", "*-*-* 6:05", "Mon..Mon 6:00", "Fri-Sun,Mon 6:00", "Mon, 6:00"),
    *("0/23:0", "5..10/5:0", "*-1/11-1", "*-*-30/1", "Mon *-05~07/1"),
    *("*-02-28..31", "*-04,05-31", "Mon *-02-29 06:30", "6:30:00/59", "*-*~28/27"),
]
NO_EVENTS = [
    *("", "every day", "5 0 * * *", "@daily", "*-*-* 25:00:00", "12:60", "24:00", "mon tue"),
    *("00:00/0", "*-*-32", "*-13-* 00:00", "*-*-* 6", "5..3:00", "06:30 Mon", "5m", "a", "*"),
    *("02-30", "*-02-30", "10:00 Foo/Bar", "*-*-*T06:30:00"),
    *("Sat..Mon 06:30", "Sun-Tue 6:00", "Mon..Wed..Fri 6:00", "*/2:00", "*/1:00", "*-*-*/2 06:30"),
    *("*-*-* 0/30:0", "6:30:00/100", "6:30:00/60", "0/24:0", "1/23:0", "*-1/12-1", "*-*-*,5 6:0"),
    *("*-02-30,31 06:30", "*-02-30..31", "*-04,06-31", "Mon *-04/5,11-31", "*-02-30/1", "6:30:*.5"),
    *(
        "*-*~31",
        "*-02~29",
        "*-*~7/7",
        "*-*~1/2 6:0",
        "6:0:59..59",
        "8~4,20..26",
        "*-*~28,3",
        "06:٣٠",
    ),
]


@pytest.mark.parametrize("text", CRON_TAKES)
def test_schedules_that_cron_takes(text: str) -> None:
    assert cron_schedule.problem(text) == ""


@pytest.mark.parametrize("text", CRON_REFUSES + CRON_MISREADS)
def test_schedules_that_would_never_run_as_they_are_meant(text: str) -> None:
    assert cron_schedule.problem(text) != ""


@pytest.mark.parametrize("text", EVENTS + NO_EVENTS)
def test_calendar_events_are_those_of_systemd(text: str) -> None:
    assert (calendar_event.problem(text) == "") == (text in EVENTS)
    if shutil.which("systemd-analyze"):
        done = subprocess.run(
            ["systemd-analyze", "calendar", text], capture_output=True, text=True, check=False
        )
        # A day that never comes is one for systemd, and not for us.
        runs = done.returncode == 0 and "never" not in done.stdout
        assert runs == (text in EVENTS), done.stdout + done.stderr


def test_what_ends_is_no_schedule() -> None:
    assert calendar_event.problem("2026-01-01 06:30") != ""


def test_save_points_in_all_their_spellings() -> None:
    classic = [[900, 1], [300, 10]]
    spellings: list[Any] = [
        "900 1 300 10",
        ["900 1", "300 10"],
        ["900 1 300 10"],
        "save 900 1\nsave 300 10",
        "  save 900 1\n\n  save 300 10  \n",
        [{"seconds": 900, "changes": 1}, {"seconds": "300", "changes": "10"}],
        [{"seconds": 900, "changes": 1}, "300 10"],
    ]
    for spelling in spellings:
        assert save_points(spelling) == classic, spelling
    for nothing in ("", '""', 'save ""', [], [""]):
        assert save_points(nothing) == [], nothing


@pytest.mark.parametrize("value", ["900 1 300 10", ["900 1", "300 10"], ""])
def test_the_classic_spelling_reaches_the_file(tmp_path: Path, value: Any) -> None:
    role = Role("redis", tmp_path)
    given = {"__redis_plan": {"replicaof": None}, "__redis_version": "7.0"}
    lines = role.render("redis.conf.j2", "redis-1", redis_save=value, **given).splitlines()
    saved = [line for line in lines if line.startswith("save")]
    assert saved == (["save 900 1", "save 300 10"] if value else ['save ""'])


MEMINFO = "MemTotal:       16333108 kB\nMemFree:  1 kB\n"
MIB = 1024**2


def test_memory_is_that_of_the_machine_or_of_its_container() -> None:
    assert host_memory.rounded(MEMINFO, ["max\n", ""]) == 15936 * MIB
    # Version 1 without a limit.
    assert host_memory.rounded(MEMINFO, ["9223372036854771712\n"]) == 15936 * MIB
    assert host_memory.rounded(MEMINFO, [f"{2048 * MIB}\n"]) == 2048 * MIB
    assert host_memory.rounded("", []) == 0
    assert host_memory.memory() > 0


def test_a_page_more_or_less_changes_no_limit() -> None:
    some = {
        host_memory.rounded(f"MemTotal: {16333108 + pages * 4} kB", []) for pages in range(-99, 99)
    }
    assert len(some) == 1


def test_a_share_of_the_memory_is_in_whole_mebibytes() -> None:
    assert redis_memory_share("60%", 2048 * MIB) == "1228mb"
    assert redis_memory_share("100%", 15936 * MIB) == "15936mb"
    with pytest.raises(AnsibleFilterError, match="redis_maxmemory in bytes"):
        redis_memory_share("60%", 0)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("60%", "maxmemory 9561mb"),
        ("2gb", "maxmemory 2gb"),
        (0, "maxmemory 0"),
        ("64M", "maxmemory 64M"),
    ],
)
def test_the_limit_in_the_file(tmp_path: Path, value: Any, line: str) -> None:
    role = Role("redis", tmp_path)
    given: dict[str, Any] = {
        "__redis_plan": {"replicaof": None},
        "__redis_version": "7.0",
        "__redis_state": {"host": {"memory": 15936 * MIB}},
    }
    text = role.render("redis.conf.j2", "redis-1", redis_maxmemory=value, **given)
    assert line in text.splitlines()


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["redis_maxmemroy"], "redis_maxmemory?"),
        (["redis_max_memory"], "redis_maxmemory"),
        (["redis_MaxMemory"], "redis_maxmemory?"),
        (["redis_backup_shedule"], "redis_backup_schedule"),
        (["redis_restore_drill_schedul"], "redis_restore_drill_schedule"),
        (["redis_apendonly"], "redis_appendonly"),
        (["redis_save_", "redis_version", "redis_exporter_port"], "redis_save"),
        (["redis_hz"], "redis_extra_config"),
        (["redis_logfile"], "The role decides logfile of redis.conf itself."),
        (["redis_max_clients"], "redis_extra_config: {maxclients: ...}"),
        (["redis_maxclient"], "redis_extra_config: {maxclients: ...}"),
        (["redis_max_memory_samples"], "redis_extra_config: {maxmemory-samples: ...}"),
        (["redis_tls_port"], "redis_extra_config: {tls-port: ...}"),
        (["redis_rename_commands"], "The role decides rename-command of redis.conf itself."),
        (["reids_maxmemory"], "redis_maxmemory?"),
        (["rediis_backup_schedule"], "redis_backup_schedule?"),
        (["edis_port"], "redis_port?"),
        (["redis_version", "redis_host", "my_redis_port", "redis", "redis_"], ""),
        (["predis_port", "redis6_port", "redir_port", "redmine_port", "reids_user", "reids"], ""),
        (
            ["redis_exporter_port", "redis_log_file", "redis_password", "redis_user", "redis_tls"],
            "",
        ),
        (
            ["redis_sentinel_port", "redis_package", "redis_daemon", "redis_hosts", "redis_users"],
            "",
        ),
    ],
)
def test_names_that_nobody_reads(names: list[str], meant: str) -> None:
    found = unknown([*names, *known_names()], known_names())
    assert len(found) == bool(meant)
    assert meant in "".join(found)


def test_every_default_is_a_value_that_is_taken() -> None:
    for role in ROLES:
        stated = {name: value for name, value in defaults(role).items() if "{{" not in str(value)}
        assert refusals(role, list(stated), stated.__getitem__, list(stated)) == []


def test_every_form_is_that_of_a_variable() -> None:
    names = {name for role in ROLES for name in options(role)}
    for form in [*value_forms.FORMS, *value_forms.BOUNDS]:
        assert form.partition("[")[0] in names, form


def whole_numbers(role: str) -> dict[str, tuple[str, Any]]:
    """Names in the table of bounds, with a variable and its value for a number in that place."""
    found: dict[str, tuple[str, Any]] = {}
    for name, option in options(role).items():
        if option["type"] == "int":
            found[name] = (name, lambda number: number)
    if role == "redis_restore_drill":
        found["redis_restore_drill_assertions[].db"] = (
            "redis_restore_drill_assertions",
            lambda number: [{"db": number, "command": ["DBSIZE"], "expect": {"equals": 1}}],
        )
    return found


@pytest.mark.parametrize("role", ROLES)
def test_every_whole_number_has_an_end(role: str) -> None:
    for place, (name, value_for) in whole_numbers(role).items():
        low, high = value_forms.BOUNDS[place]
        good: list[Any] = [low, high]
        for number in good:
            assert refusals(role, [name], {name: value_for(number)}.__getitem__, [name]) == [], name
        bad: list[Any] = [low - 1, high + 1, 10**20, str(10**20)]
        for number in bad:
            found = refusals(role, [name], {name: value_for(number)}.__getitem__, [name])
            assert len(found) == 1, name
            assert found[0].startswith(name)


def test_the_rdb_is_named_like_nothing_else_in_its_directory() -> None:
    variables = yaml.safe_load(Path("roles/redis/vars/main.yml").read_text(encoding="utf-8"))
    patterns = [name for name in variables["__redis_data_names"] if "{{" not in name]
    assert len(patterns) > 5
    names = {pattern.replace("[1-9]*[0-9]", "6380").replace("*", "x") for pattern in patterns}
    for name in {*names, "appendonly.aof", ".", ".."}:
        found = refusals("redis", ["redis_dbfilename"], {"redis_dbfilename": name}.__getitem__, [])
        assert "something else" in "".join(found), name


def test_a_rule_that_fails_by_itself_hides_no_other() -> None:
    class Crashing(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise ValueError("object has no attribute 'redis'")

    good, bad = {"holds": True, "say": "never"}, {"holds": False, "say": "this one\n is broken."}
    crashing = Crashing(holds=True)
    rules: list[Any] = [crashing, good, bad, crashing]
    assert refusals("redis", [], dict[str, Any]().__getitem__, [], rules) == ["this one is broken."]
    found = refusals("redis", [], dict[str, Any]().__getitem__, [], [good, crashing])
    assert len(found) == 1
    assert "object has no attribute 'redis'" in found[0]
    assert refusals("redis", ["redis_port"], {"redis_port": "x"}.__getitem__, [], rules) == [
        "redis_port is the text 'x'; it must be a whole number from 1024 to 65535, such as"
        " redis_port: 6379."
    ]


def test_a_value_that_cannot_be_computed_is_a_reason_of_its_own() -> None:
    def value_of(name: str) -> Any:
        raise KeyError(name) from ValueError("'vault_password' is undefined")

    found = refusals("redis", ["redis_requirepass"], value_of, [])
    assert found == ["redis_requirepass cannot be computed: 'vault_password' is undefined."]


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"redis_maxmemory": "{{ (ansible_facts['memtotal_mb'] * 0.6) | int }}mb"}, True),
        ({"redis_maxmemory": "{{ ansible_memtotal_mb }}mb"}, True),
        ({"redis_maxmemory": "{{ mine }}", "mine": "{{ ansible_facts.memtotal_mb }}mb"}, True),
        ({"redis_bind": ["127.0.0.1", "{{ ansible_facts.default_ipv4.address }}"]}, True),
        ({"redis_address": "{{ ansible_host | default(inventory_hostname) }}"}, False),
        ({"redis_maxmemory": "2gb", "other": "{{ ansible_facts.memtotal_mb }}"}, False),
        ({"redis_maxmemory": "ansible_facts"}, False),
        ({"redis_a": "{{ redis_b }}", "redis_b": "{{ redis_a }}"}, False),
    ],
)
def test_facts_are_gathered_where_a_variable_asks_for_them(
    variables: dict[str, Any], wanted: bool
) -> None:
    assert asks(variables) == wanted


def test_a_secret_is_read_and_never_made(tmp_path: Path) -> None:
    path = tmp_path / ".secrets" / "redis-1.rsync"
    assert read(path).startswith(NOT_MADE)
    assert read(path) != read(path), "nobody can know it"
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_text("a-secret salt=abc\n", encoding="utf-8")
    assert read(path) == "a-secret"


CONFIGS = {
    "redis_backup": ("config.json.j2", "redis-1"),
    "redis_backup_server": ("server.json.j2", "backup-1"),
    "redis_restore_drill": ("drill.json.j2", "drill-1"),
}


@pytest.mark.parametrize("role_name", CONFIGS)
def test_what_the_program_demands_is_in_the_table(tmp_path: Path, role_name: str) -> None:
    """A number that it refuses is refused by the name of the variable, and no other is."""
    role = Role(role_name, tmp_path)
    template, host = CONFIGS[role_name]

    def program_takes(**given: Any) -> bool:
        text = role.render(template, host, **given)
        try:
            reader.parse(json.loads(text), Path("x"))
        except UsageError:
            return False
        return True

    numbers = [name for name, option in options(role_name).items() if option["type"] == "int"]
    for name in numbers:
        low, high = value_forms.BOUNDS[name]
        for value in (low - 1, low, high, high + 1):
            refused = refusals(role_name, [name], {name: value}.__getitem__, [name])
            if not program_takes(**{name: value}):
                assert refused, f"{name}: {value}"
