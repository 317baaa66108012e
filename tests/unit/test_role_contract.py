"""What every role, playbook and inventory of the project keeps to, read from the files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.ansible_runs import ROOT, ansible

ROLES = sorted(path.parent for path in (ROOT / "roles").glob("*/tasks"))
PLAYBOOKS = [ROOT / "site.yml", *sorted((ROOT / "playbooks").glob("*.yml"))]
INVENTORIES = [ROOT / "inventories" / name for name in ("example", "lab", "two-sets")]
TEST_INVENTORIES = [
    path.parent
    for pattern in ("molecule/*/inventory/hosts.yml", "tests/hosts/*/hosts.yml")
    for path in sorted(ROOT.glob(pattern))
]
GROUPS = {"redis", "backup_server", "restore_drill"}
TEXT_FILES = ("tasks", "handlers", "templates", "vars", "defaults", "meta")
# Variables that are Ansible's own where an inventory sets them.
NOT_OURS = re.compile(r"ansible_|vault_")

by_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def load(path: Path) -> Any:
    """A YAML file; an absent one is empty."""

    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def options(role: Path) -> dict[str, Any]:
    """The options of the role's main entry point; of all, where it has no such one."""
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    entries = [specs["main"]] if "main" in specs else specs.values()
    return {name: option for spec in entries for name, option in spec["options"].items()}


def texts(role: Path) -> dict[Path, str]:
    """The text of every file of the role that Ansible reads."""
    return {
        path: path.read_text(encoding="utf-8")
        for directory in TEXT_FILES
        for path in sorted((role / directory).rglob("*"))
        if path.is_file()
    }


def tasks(role: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every task and handler of the role, those in blocks too, with the file it is in."""

    def walk(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for item in items:
            yield item
            for section in ("block", "rescue", "always"):
                yield from walk(item.get(section) or [])

    for directory in ("tasks", "handlers"):
        for path in sorted((role / directory).glob("*.yml")):
            for task in walk(load(path) or []):
                yield path, task


@by_role
def test_defaults_and_specification_agree(role: Path) -> None:
    specified, defaults = options(role), load(role / "defaults" / "main.yml") or {}
    assert set(defaults) <= set(specified), "defaults that meta/argument_specs.yml does not know"
    commented = (role / "defaults" / "main.yml").read_text(encoding="utf-8")
    for name, option in specified.items():
        if name not in defaults:
            assert "default" not in option, f"{name}: a default that defaults/main.yml has not"
            # The reader of defaults/main.yml learns of it all the same.
            assert re.search(rf"(?m)^# {name}:", commented), f"{name} is not in defaults/main.yml"
        elif "{{" not in str(defaults[name]):
            assert option.get("default", ...) == defaults[name], f"{name}: two different defaults"
        else:
            assert option.get("default", defaults[name]) == defaults[name], f"{name}: two defaults"


@by_role
def test_specification_is_complete(role: Path) -> None:
    for name, option in options(role).items():
        assert option.get("description"), f"{name} has no description"
        assert "type" in option, f"{name} has no type"
        if option["type"] == "list":
            assert "elements" in option, f"{name} does not say what it is a list of"
        if re.search(r"(password|secret|requirepass|masterauth)$", name):
            assert option.get("no_log") is True, f"{name} is a secret: no_log"


@by_role
def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    for name in options(role):
        assert name.startswith(f"{role.name}_"), name
    for path in sorted((role / "vars").glob("*.yml")):
        for name in load(path) or {}:
            assert name.startswith(f"__{role.name}"), f"{path}: {name}"
    for path, task in tasks(role):
        registered = task.get("register")
        if registered:
            assert registered.startswith(f"__{role.name}"), f"{path}: {registered}"


@by_role
def test_every_default_is_used(role: Path) -> None:
    everything = texts(role)
    defaults = role / "defaults" / "main.yml"
    # The modules of a role are called from its tasks, so its variables are in the files above.
    used = "\n".join(
        text for path, text in everything.items() if path.parent.name not in ("defaults", "meta")
    )
    used += "".join(str(value) for value in (load(defaults) or {}).values() if "{{" in str(value))
    unused = [name for name in options(role) if not re.search(rf"\b{name}\b", used)]
    assert [name for name in unused if not _read_through_hostvars(name)] == []


def _read_through_hostvars(name: str) -> bool:
    """Whether another role or a plugin reads the variable of this role's hosts."""
    places = [*ROOT.glob("roles/*/vars/*.yml"), *ROOT.glob("roles/*/templates/*")]
    places += [*ROOT.glob("roles/*/defaults/*.yml"), *ROOT.glob("filter_plugins/*.py")]
    return any(
        re.search(rf"""(vars|hostvars\[[^\]]+\])\.{name}\b|["']{name}["']""", path.read_text())
        for path in places
    )


@by_role
def test_booleans_may_come_as_text(role: Path) -> None:
    """From an INI inventory or -e, where `false` is a text, and a text is no condition.

    A module takes either, so the whole argument of one may be such a variable.
    """
    booleans = [name for name, option in options(role).items() if option["type"] == "bool"]
    for path, text in texts(role).items():
        if path.parent.name in ("defaults", "meta"):
            continue
        for name in booleans:
            argument = rf'"{{{{ {name} }}}}"' if path.parent.name == "tasks" else "(?!)"
            for found in re.finditer(rf"\b{name}\b(?!=)", text):
                line = text.splitlines()[text.count("\n", 0, found.start())]
                assert re.search(rf"\b{name} \| bool\b|{argument}", line), f"{path}: {line.strip()}"


@by_role
def test_templates_and_handlers_are_used_and_exist(role: Path) -> None:
    everything = "\n".join(texts(role).values())
    for path in (role / "templates").glob("*"):
        stem = path.name.removesuffix(".j2")
        assert path.name in everything or stem in everything, f"{path} is used by no task"
    handlers = {task["name"] for path, task in tasks(role) if path.parent.name == "handlers"}
    notified: set[str] = set()
    for _path, task in tasks(role):
        notify = task.get("notify") or []
        notified.update([notify] if isinstance(notify, str) else notify)
    assert notified == handlers


@by_role
def test_nothing_hides_a_failure(role: Path) -> None:
    told = "".join(texts(role).values())
    for path, task in tasks(role):
        assert "ignore_errors" not in task, f"{path}: {task['name']}"
        if task.get("failed_when") is False:
            # It fails for all hosts at once, in the task behind it.
            told_by = rf"(?m)(refusals|failures): >-\n(?: .*\n)*?.*\b{task['register']}\b"
            assert re.search(told_by, told), f"{path}: {task['name']}"


@by_role
def test_names_of_tasks_say_where_they_are(role: Path) -> None:
    for path, task in tasks(role):
        name = task["name"]
        if path.parent.name == "tasks" and path.name != "main.yml":
            assert name.startswith(f"{path.stem} | "), f"{path}: {name}"
        assert name.split(" | ")[-1][0].isupper(), f"{path}: {name}"


@by_role
def test_a_role_has_what_a_reader_expects(role: Path) -> None:
    for name in ("README.md", "meta/argument_specs.yml", "defaults/main.yml"):
        assert (role / name).is_file(), f"{role.name} has no {name}"


def test_inventories_set_only_variables_that_a_role_knows() -> None:
    known: set[str] = set()
    for role in ROLES:
        known.update(options(role))
    # Shared with other hosts by the inventory alone.
    for role in ROLES:
        specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
        for spec in specs.values():
            known.update(spec.get("options") or {})
    for inventory in INVENTORIES:
        for path in sorted(
            [*inventory.rglob("group_vars/**/*"), *inventory.rglob("host_vars/**/*")]
        ):
            if path.suffix not in (".yml", ".yaml"):
                continue
            for name in load(path) or {}:
                assert name in known or NOT_OURS.match(name), f"{path}: no role knows {name}"


def hosts_of(groups: dict[str, Any], group: str) -> list[str]:
    """All hosts of a group, those of its children too."""
    entry = groups.get(group, {})
    found = list(entry.get("hosts", []))
    for child in entry.get("children", []):
        found += hosts_of(groups, child)
    return found


@pytest.mark.parametrize(
    "inventory",
    [*INVENTORIES, *TEST_INVENTORIES],
    ids=lambda path: path.name.replace("inventory", path.parent.name),
)
def test_inventory_has_the_groups_of_every_set(inventory: Path) -> None:
    done = ansible("ansible-inventory", "--list", f"--inventory={inventory}")
    assert done.returncode == 0, done.stderr
    groups = json.loads(done.stdout)
    variables = groups["_meta"]["hostvars"]
    # What a test's inventory leaves out is not its subject.
    assert inventory in TEST_INVENTORIES or set(groups) >= GROUPS
    assert len(hosts_of(groups, "backup_server")) == ("backup_server" in groups)
    redis = hosts_of(groups, "redis")
    assert set(redis).isdisjoint(hosts_of(groups, "restore_drill"))
    sets: dict[str, set[tuple[Any, ...]]] = {}
    for host in redis:
        given = variables.get(host, {})
        members = hosts_of(groups, given.get("redis_replication_group", "redis"))
        master = hosts_of(groups, given.get("redis_master_group", "redis_master"))
        assert host in members
        assert len(master) == 1
        assert master[0] in members
        sets.setdefault(given.get("redis_set_name", "redis"), set()).add(
            (given.get("redis_engine"), given.get("redis_port"), *sorted(members))
        )
    assert all(len(kinds) == 1 for kinds in sets.values()), "hosts of a set that differ"
    drilled = [
        name
        for host in hosts_of(groups, "restore_drill")
        for name in (
            [item["name"] for item in variables.get(host, {}).get("redis_restore_drill_sets", [])]
            or ["redis"]
        )
    ]
    if inventory in INVENTORIES or drilled:
        assert sorted(drilled) == sorted(sets), "every set is proven, on one drill host"


def test_playbooks_pass_the_syntax_check() -> None:
    names = [str(path.relative_to(ROOT)) for path in PLAYBOOKS]
    example = ROOT / "inventories" / "example"
    done = ansible("ansible-playbook", "--syntax-check", f"--inventory={example}", *names)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("playbook: ") == len(PLAYBOOKS)


def test_configuration_of_ansible_is_valid() -> None:
    done = ansible("ansible-config", "validate", "-t", "all")
    assert done.returncode == 0, done.stdout + done.stderr
