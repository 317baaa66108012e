"""The collection in other people's hands: built, installed elsewhere, called by its full names; and
a bare clone, in which nothing was installed and from which nobody has to call it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support import collection
from tests.support.ansible_runs import ROOT, good
from tests.support.collection import ansible

PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
KINDS = {"filter": "filter_plugins", "lookup": "plugins/lookup", "module": "plugins/modules"}

# Nothing listens on port 1: what is wrong with a play shows before a host is unreachable.
INVENTORY = """\
all:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1, redis_requirepass: of-twelve-or-more}
  children:
    redis: {children: {redis_master: {hosts: {redis-1: }}}}
    backup_server: {hosts: {backup-1: }}
    restore_drill: {hosts: {drill-1: }}
"""
CONSUMER = """\
- hosts: redis
  gather_facts: false
  roles: [proven.redis.redis]
- import_playbook: proven.redis.site
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection.clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, clone: Path) -> Path:
    """An empty project into which the collection was installed, by its build."""
    directory = tmp_path_factory.mktemp("project")
    # What a person has made in the checkout must not be in it.
    secret = clone / "inventories" / "prod" / ".secrets" / "redis-1.rsync"
    secret.parent.mkdir(parents=True)
    secret.write_text("a-secret", encoding="utf-8")
    (clone / ".venv").mkdir()
    (clone / "reports").mkdir()
    collection.install(clone, directory)
    (directory / "hosts.yml").write_text(INVENTORY, encoding="utf-8")
    (directory / "play.yml").write_text(CONSUMER, encoding="utf-8")
    return directory


def test_what_is_installed_is_the_product_and_nothing_of_its_makers(project: Path) -> None:
    installed = (
        collection.home_of(project)
        / ".ansible"
        / "collections"
        / "ansible_collections"
        / "proven"
        / "redis"
    )
    names = {path.name for path in installed.iterdir()}
    assert names == {
        "CHANGELOG.md", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md",
        "docs", "filter_plugins", "meta", "playbooks", "plugins", "roles",
    }  # fmt: skip
    assert not list(installed.rglob("__pycache__"))
    assert {path.name for path in (installed / "playbooks").iterdir()} == {
        "parts", "tasks", "templates", *(f"{name}.yml" for name in PLAYBOOKS),
    }  # fmt: skip


def test_roles_and_playbooks_run_by_their_full_names(project: Path) -> None:
    done = ansible(project, "ansible-playbook", "-i", "hosts.yml", "play.yml")
    # Both plays were read, and every role of theirs was found; then the hosts were asked.
    assert "redis-1]: UNREACHABLE" in done.stdout, done.stdout + done.stderr
    for name in PLAYBOOKS:
        good(
            ansible(
                project, "ansible-playbook", "-i", "hosts.yml", f"proven.redis.{name}",
                "--syntax-check",
            )
        )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_is_documented_by_its_full_name(project: Path, kind: str) -> None:
    names = [f"proven.redis.{path.stem}" for path in sorted((ROOT / KINDS[kind]).glob("*.py"))]
    shown = json.loads(good(ansible(project, "ansible-doc", "--json", "-t", kind, *names)))
    assert sorted(shown) == names
    for name in names:
        assert shown[name]["doc"]["short_description"], name
        assert shown[name]["examples"], name
        assert shown[name]["return"], name


def test_every_role_is_documented_by_its_full_name(project: Path) -> None:
    names = [f"proven.redis.{name}" for name in ROLES]
    shown = json.loads(good(ansible(project, "ansible-doc", "--json", "-t", "role", *names)))
    assert sorted(shown) == names
    assert all(entry["entry_points"] for entry in shown.values())


@pytest.mark.parametrize("place", ["checkout", "elsewhere"])
@pytest.mark.parametrize("name", ["site.yml", *(f"playbooks/{name}.yml" for name in PLAYBOOKS)])
def test_a_bare_clone_runs_from_anywhere(
    clone: Path, tmp_path: Path, place: str, name: str
) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(INVENTORY, encoding="utf-8")
    directory, playbook = (clone, name) if place == "checkout" else (tmp_path, str(clone / name))
    words = ["-e", "redis_removed_host=redis-1"] if "remove_replica" in name else []
    done = ansible(directory, "ansible-playbook", "-i", str(hosts), playbook, *words)
    output = done.stdout + done.stderr
    # Only this one asks no host.
    alone = "check_inventory" in name and done.returncode == 0
    assert "]: UNREACHABLE" in output or alone, output
    assert not re.search("not found|couldn't resolve|No filter named", output), output


def test_both_sets_of_links_lead_to_the_parts_of_the_collection() -> None:
    for place, parts in {
        "collections": {"galaxy.yml", "meta", "playbooks", "plugins", "roles"},
        # Without the playbooks: a circle of links is more than ansible-lint can take.
        "playbooks/collections": {"galaxy.yml", "meta", "plugins", "roles"},
    }.items():
        links = list((ROOT / place / "ansible_collections" / "proven" / "redis").iterdir())
        assert {link.name for link in links} == parts
        assert all(link.is_symlink() and link.resolve() == ROOT / link.name for link in links)
