"""Which configuration a command takes when none is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis_backup.base.errors import UsageError
from redis_backup.config.reader import find


def configured(directory: Path, **kinds: str) -> Path:
    """A directory with a configuration of each kind, by name."""
    for name, kind in kinds.items():
        (directory / f"{name}.json").write_text(json.dumps({"kind": kind}))
    (directory / "rsyncd.conf").write_text("")
    return directory


def test_the_only_one_whatever_it_is(tmp_path: Path) -> None:
    # Of another kind: to be told so, one has to be shown it.
    assert find(None, "server", configured(tmp_path, drill="drill")) == tmp_path / "drill.json"


@pytest.mark.parametrize("kind", ["server", "drill", "host"])
def test_on_a_host_that_is_several_things_the_one_of_its_kind(tmp_path: Path, kind: str) -> None:
    directory = configured(tmp_path, server="server", drill="drill", redis="host")
    name = "redis" if kind == "host" else kind
    assert find(None, kind, directory) == tmp_path / f"{name}.json"


def test_what_cannot_be_read_is_another_user_s(tmp_path: Path) -> None:
    directory = configured(tmp_path, server="server", drill="drill")
    (directory / "redis.json").symlink_to(tmp_path / "nowhere")
    (directory / "broken.json").write_text("{")
    (directory / "list.json").write_text("[]")
    assert find(None, "server", directory) == tmp_path / "server.json"


def test_several_of_its_kind_are_a_choice(tmp_path: Path) -> None:
    directory = configured(tmp_path, orders="host", sessions="host", drill="drill")
    with pytest.raises(UsageError, match=r"\(orders\.json, sessions\.json\); choose one"):
        find(None, "host", directory)
    with pytest.raises(UsageError, match="holds several configurations"):
        find(None, "server", directory)
    assert find("/a/b.json", "host", directory) == Path("/a/b.json")


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_none_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no configuration in"):
        find(None, "server", tmp_path / name)
