"""The backup tool as one file: same bytes for the same sources, and it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible_collections.proven.redis.plugins.lookup import redis_backup_zipapp as zipapp

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / zipapp.PACKAGE


def _package(directory: Path, **sources: str) -> Path:
    """A package whose `commands.cli` is given, with modules beside it."""
    package = directory / "greeter"
    (package / "commands").mkdir(parents=True)
    for name, text in {"__init__": "", "commands/__init__": "", **sources}.items():
        name = "commands/cli" if name == "cli" else name
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    return package


def _built(package: Path) -> bytes:
    return bytes(zipapp.zipapp(package.name, zipapp.modules(package)))


def test_the_bytes_depend_on_the_sources_alone(tmp_path: Path) -> None:
    first = _package(tmp_path / "a", cli="def main(): return 0\n", other="x = 1\n")
    second = _package(tmp_path / "b", other="x = 1\n", cli="def main(): return 0\n")
    os.utime(second / "commands" / "cli.py", (1, 1))
    (second / "commands" / "cli.py").chmod(0o600)
    (second / "__pycache__").mkdir()
    (second / "__pycache__" / "cli.cpython-311.pyc").write_bytes(b"compiled")
    assert _built(first) == _built(second)
    (second / "other.py").write_text("x = 2\n", encoding="utf-8")
    assert _built(first) != _built(second)


def test_a_module_that_is_gone_is_gone(tmp_path: Path) -> None:
    package = _package(tmp_path, cli="def main(): return 0\n", old="raise SystemExit(9)\n")
    (package / "old.py").unlink()
    assert b"old.py" not in _built(package)


def test_it_runs_and_ends_with_what_main_returns(tmp_path: Path) -> None:
    package = _package(tmp_path, cli="def main():\n    print('hello')\n    return 75\n")
    path = tmp_path / "greeter.pyz"
    path.write_bytes(_built(package))
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.stdout, done.returncode) == ("hello\n", 75)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnsibleError, match="no Python package"):
        zipapp.modules(tmp_path)


def test_the_tool_works_from_it(tmp_path: Path) -> None:
    path = tmp_path / "redis-backup"
    path.write_bytes(_built(PACKAGE))
    broken = tmp_path / "dump.rdb"
    broken.write_bytes(b"REDIS0011")
    done = subprocess.run(
        [sys.executable, "-I", str(path), "inspect", str(broken)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "dump.rdb" in done.stderr
    assert "Traceback" not in done.stderr


def _collection(directory: Path) -> Path:
    """A copy of the collection's version and of a program, with nothing else of it."""
    package = directory / zipapp.PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (directory / "galaxy.yml").write_text("version: 4.5.6\n", encoding="utf-8")
    return directory


def _git(directory: Path, *words: str) -> str:
    command = ["git", "-C", str(directory), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.check_output(command, text=True).strip()


def test_the_version_is_that_of_the_collection_and_the_commit_of_the_program(
    tmp_path: Path,
) -> None:
    collection = _collection(tmp_path)
    assert zipapp.version(collection) == "4.5.6"
    _git(collection, "init", "--quiet")
    assert zipapp.version(collection) == "4.5.6"
    _git(collection, "add", ".")
    _git(collection, "commit", "--quiet", "--message", "first")
    commit = _git(collection, "rev-parse", "HEAD")[:12]
    assert zipapp.version(collection) == f"4.5.6+{commit}"
    # What else changes in the checkout does not make another program of it.
    (collection / "README.md").write_text("text", encoding="utf-8")
    _git(collection, "add", ".")
    _git(collection, "commit", "--quiet", "--message", "second")
    assert zipapp.version(collection) == f"4.5.6+{commit}"
    (collection / zipapp.PACKAGE / "new.py~").write_text("", encoding="utf-8")
    assert zipapp.version(collection) == f"4.5.6+{commit}"
    (collection / zipapp.PACKAGE / "new.py").write_text("", encoding="utf-8")
    assert zipapp.version(collection) == f"4.5.6+{commit}.modified"


def test_an_installed_collection_has_no_commit_of_the_repository_around_it(tmp_path: Path) -> None:
    _git(tmp_path, "init", "--quiet")
    collection = _collection(tmp_path / "collections")
    assert zipapp.version(collection) == "4.5.6"
    (collection / "galaxy.yml").unlink()
    manifest = {"collection_info": {"version": "4.5.7"}}
    (collection / "MANIFEST.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert zipapp.version(collection) == "4.5.7"


def test_a_shallow_clone_knows_no_commit(tmp_path: Path) -> None:
    collection = _collection(tmp_path / "whole")
    _git(collection, "init", "--quiet")
    _git(collection, "add", ".")
    _git(collection, "commit", "--quiet", "--message", "first")
    (collection / "README.md").write_text("text", encoding="utf-8")
    _git(collection, "add", ".")
    _git(collection, "commit", "--quiet", "--message", "second")
    _git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{collection}", "shallow")
    assert zipapp.version(tmp_path / "shallow") == "4.5.6"


def test_the_environment_of_a_hook_of_git_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _git(tmp_path, "init", "--quiet", "other")
    collection = _collection(tmp_path / "collection")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert zipapp.version(collection) == "4.5.6"


def test_the_packed_program_knows_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(zipapp.build()), "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == f"redis-backup {zipapp.version(ROOT)}\n"
