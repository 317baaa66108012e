"""The wings of the tool: what each may import, and that each says who runs it and where."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tool.backup_lab import PACKAGE

TOOL = PACKAGE / "redis_backup"
# From top to bottom. A wing imports from those below it.
FLOORS = (
    ("commands",),
    ("host", "repository", "drill"),
    ("sandbox",),
    ("transport",),
    ("rdb", "digest", "formats", "config"),
    ("base",),
)
FLOOR = {wing: number for number, wings in enumerate(FLOORS) for wing in wings}
# Between wings of one floor, in one direction each.
SIDEWAYS = {("drill", "repository"), ("digest", "rdb"), ("formats", "rdb")}
# Of the package itself, any module may have its version.
VERSION = ("", "__version__")
PLACES = ("a Redis host", "the backup server", "the drill host", "every host")

MODULES = sorted(path.relative_to(TOOL) for path in TOOL.rglob("*.py"))


def imported(path: Path, source: str) -> Iterator[tuple[str, str]]:
    """What a module of the tool imports from the tool: (wing, name), wing empty for the package."""
    package = ("redis_backup", *path.parent.parts)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (
                (name.name.partition(".")[2].partition(".")[0], name.name)
                for name in node.names
                if name.name.split(".")[0] == "redis_backup"
            )
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            parts = [*start, *(node.module.split(".") if node.module else ())]
            if parts[0] != "redis_backup":
                continue
            for name in node.names:
                yield (parts[1], name.name) if len(parts) > 1 else _of_package(name.name)


def _of_package(name: str) -> tuple[str, str]:
    return ("", name) if name.startswith("__") else (name, "")


def complaints(path: Path, source: str) -> list[str]:
    """What a module imports that it may not."""
    own = path.parts[0] if len(path.parts) > 1 else ""
    found = []
    for wing, name in imported(path, source):
        if wing == own or (wing, name) == VERSION:
            continue
        if own and wing not in FLOOR:
            found.append(f"{path}: {wing or 'the package'} {name} is no wing")
        elif own and FLOOR[wing] <= FLOOR[own] and (own, wing) not in SIDEWAYS:
            found.append(f"{path}: {own} imports {wing}, which is not below it")
    return found


def test_every_directory_is_a_wing_with_a_place() -> None:
    assert {path.parts[0] for path in MODULES if len(path.parts) > 1} == set(FLOOR)
    assert {str(path) for path in MODULES if len(path.parts) == 1} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_downwards(path: Path) -> None:
    assert complaints(path, (TOOL / path).read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("base/files.py", "from ..config.model import Host"),
        ("base/files.py", "from .. import config"),
        ("base/files.py", "import redis_backup.config.model"),
        ("rdb/walker.py", "def late() -> None:\n    from ..digest import records"),
        ("host/create.py", "from ..repository.store import find"),
        ("repository/store.py", "from ..drill.run import run"),
        ("transport/rsync.py", "from redis_backup.sandbox.client import Client"),
        ("sandbox/server.py", "from ..elsewhere import thing"),
    ],
)
def test_an_import_upwards_is_seen(path: str, source: str) -> None:
    assert len(complaints(Path(path), source)) == 1


@pytest.mark.parametrize("wing", sorted(FLOOR))
def test_a_wing_says_who_runs_it_and_where(wing: str) -> None:
    told = " ".join(
        (ast.get_docstring(ast.parse((TOOL / wing / "__init__.py").read_text())) or "").split()
    )
    assert "Run " in told or "runs" in told
    assert any(place in told for place in PLACES) or "Redis hosts" in told


def test_a_wing_holds_nothing_but_its_docstring() -> None:
    for wing in FLOOR:
        assert len(ast.parse((TOOL / wing / "__init__.py").read_text()).body) == 1, wing


def test_the_client_of_redis_is_one() -> None:
    using = [
        path
        for path in MODULES
        for node in ast.walk(ast.parse((TOOL / path).read_text("utf-8")))
        if isinstance(node, ast.Import) and any(name.name == "redis" for name in node.names)
    ]
    assert using == [Path("transport/redis_client.py")]
