"""What the role redis_restore_drill writes on hosts, rendered by Ansible's own engine.

The golden files are the promise; after a wanted change,
`GOLDEN=write pytest tests/unit/test_drill_templates.py` writes them again, and the difference
belongs in the review.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from redis_backup.config import model
from redis_backup.config import reader as tool_config
from redis_backup.sandbox import prober

from tests.unit.role_templates import ROOT, Role

ROLE = "redis_restore_drill"
GOLDEN = Path(__file__).parent / "golden" / ROLE
TEMPLATES = sorted(path.name for path in (ROOT / "roles" / ROLE / "templates").iterdir())
GIVEN = {
    "redis_restore_drill_rsync_secret": "a-secret",
    "redis_restore_drill_assertions": [
        {"db": 0, "command": ["HLEN", "users"], "expect": {"at_least": 1000}}
    ],
}


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> Role:
    return Role(ROLE, tmp_path_factory.mktemp("inventory"))


@pytest.mark.parametrize("template", TEMPLATES)
def test_golden(role: Role, template: str) -> None:
    rendered = role.render(template, "drill-1", **GIVEN)
    golden = GOLDEN / template.removesuffix(".j2")
    if os.environ.get("GOLDEN") == "write":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(rendered, encoding="utf-8")
    assert rendered == golden.read_text(encoding="utf-8")


def test_every_golden_file_has_a_template() -> None:
    assert {f"{path.name}.j2" for path in GOLDEN.iterdir()} == set(TEMPLATES)


@pytest.mark.parametrize(
    ("given", "age", "sets"),
    [
        ({}, 93600, {"redis": 0}),
        (GIVEN, 93600, {"redis": 1}),
        ({"redis_restore_drill_max_age": "90000"}, 90000, {"redis": 0}),
        ({"redis_restore_drill_max_age": 0}, None, {"redis": 0}),
        (
            {"redis_restore_drill_sets": [{"name": "a", "assertions": []}, {"name": "b"}]},
            93600,
            {"a": 0, "b": 0},
        ),
    ],
)
def test_the_tool_reads_the_configuration(
    role: Role, given: dict[str, object], age: int | None, sets: dict[str, int]
) -> None:
    values = {"redis_restore_drill_rsync_secret": "a-secret", **given}
    rendered = role.render("drill.json.j2", "drill-1", **values)
    config = tool_config.parse(json.loads(rendered), Path("drill.json"))
    assert isinstance(config, model.DrillConfig)
    assert config.host == "drill-1"
    assert config.max_age == age
    assert {name: len(item.assertions) for name, item in config.sets.items()} == sets
    assert (config.transport.server, config.transport.port) == ("192.168.1.122", 8873)
    assert (config.transport.user, config.transport.secret) == ("drill-1", "a-secret")
    assert (config.unit, config.require_sandbox) == ("redis-backup-sandbox.service", True)


def test_by_default_it_drills_what_the_inventory_has(tmp_path: Path) -> None:
    """Whatever the sets are called: their names are told once, where their hosts are."""
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "redis_master.yml").write_text(
        "{redis_set_name: shop, redis_engine: valkey}"
    )
    role = Role(ROLE, tmp_path)
    sets = role.value("redis_restore_drill_sets", "drill-1", **GIVEN)
    asked = GIVEN["redis_restore_drill_assertions"]
    assert sets == [{"name": name, "assertions": asked} for name in ("redis", "shop")]
    assert role.value("redis_restore_drill_engines", "drill-1") == ["redis", "valkey"]
    # Of the engines only what it drills: another Debian may not have the other.
    for name, engine in (("shop", "valkey"), ("redis", "redis"), ("no such set", "redis")):
        given = {"redis_restore_drill_sets": [{"name": name}]}
        assert role.value("redis_restore_drill_engines", "drill-1", **given) == [engine]


def test_the_unit_binds_what_the_tool_expects(role: Role) -> None:
    unit = role.render("redis-backup-sandbox.service.j2", "drill-1", **GIVEN)
    assert f"/sandbox/in:{prober.INSIDE}/in\n" in unit
    assert f"/sandbox/out:{prober.INSIDE}/out\n" in unit
    # systemd reads %% as one per cent sign.
    assert "--memory-max 75%%\n" in unit
    assert prober.parse_memory("75%", 1000) == 750


def test_numbers_given_as_text_are_numbers(role: Role) -> None:
    """As `-e redis_restore_drill_load_timeout=60` gives them."""
    unit = role.render(
        "redis-backup-sandbox.service.j2", "drill-1", redis_restore_drill_load_timeout="60"
    )
    assert "RuntimeMaxSec=3660\n" in unit


def test_sudo_reads_its_file(role: Role, tmp_path: Path) -> None:
    visudo = shutil.which("visudo", path=f"{os.environ['PATH']}:/usr/sbin")
    rendered = role.render("sudoers.j2", "drill-1", **GIVEN)
    allowed = [line for line in rendered.splitlines() if line and not line.startswith("#")]
    unit = "redis-backup-sandbox.service"
    assert allowed == [
        f"redis-backup ALL=(root) NOPASSWD: /bin/systemctl start {unit}, /bin/systemctl stop {unit}"
    ]
    if visudo is not None:
        path = tmp_path / "sudoers"
        path.write_text(rendered)
        done = subprocess.run([visudo, "-cf", str(path)], capture_output=True, check=False)
        assert done.returncode == 0, done.stdout
