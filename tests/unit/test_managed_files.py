"""What the module managed_files makes, refuses and shows, in a directory of its own."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils import whole_file
from ansible_collections.proven.redis.plugins.modules import managed_files

from tests.support.ansible_runs import answer

ROOT = Path(__file__).resolve().parents[2]
MINE = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run() -> Run:
    """Run the module as Ansible would; what it answers."""

    def execute(
        check: bool = False,
        secrets: dict[str, str] | None = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        given: dict[str, Any] = {
            name: [{**MINE, **item} for item in items] for name, items in arguments.items()
        }
        given["secrets"] = secrets or {}
        return answer(managed_files, given, check)

    return execute


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077], ids=["022", "077"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_makes_directories_and_files_once(umask: None, run: Run, tmp_path: Path) -> None:
    folder, file = tmp_path / "above" / "folder", tmp_path / "above" / "folder" / "file"
    wanted: dict[str, Any] = {
        "directories": [{"path": str(folder), "mode": "0700"}],
        "files": [{"path": str(file), "mode": "0640", "content": "täxt\n"}],
    }
    dry = run(check=True, **wanted)
    assert dry["changed"]
    assert not folder.parent.exists(), "a dry run made something"

    made = run(**wanted)
    assert made["paths"] == made["created"] == dry["created"] == [str(folder), str(file)]
    assert made["modified"] == {str(file): file.stat().st_mtime}
    assert (mode(folder), mode(folder.parent), mode(file)) == (0o700, 0o755, 0o640)
    assert file.read_bytes() == "täxt\n".encode()
    assert os.listdir(folder) == ["file"], "something else was left behind"

    before = file.stat()
    again = run(**wanted)
    assert (again["changed"], again["paths"], again["diff"]) == (False, [], [])
    assert file.stat() == before


def test_names_only_what_changed(run: Run, tmp_path: Path) -> None:
    files = [{"path": str(tmp_path / name), "mode": "0600", "content": name} for name in "abc"]
    run(files=files)
    files[1]["content"] = "other"
    (tmp_path / "c").chmod(0o644)
    changed = run(files=files)
    assert changed["paths"] == [str(tmp_path / "b"), str(tmp_path / "c")]
    assert changed["created"] == []
    assert sorted(changed["modified"]) == [str(tmp_path / name) for name in "abc"]
    assert (tmp_path / "b").read_text() == "other"
    assert mode(tmp_path / "c") == 0o600
    assert [changed["diff"][0][side] for side in ("before", "after")] == ["b", "other"]


def test_comments_may_be_no_difference(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "unit.conf"
    before = "# Made by A on Monday\n\n[Service]\n; why\nLimitNOFILE=1\n"
    run(files=[{"path": str(path), "mode": "0644", "content": before}])
    wanted = {"path": str(path), "mode": "0644", "content": "# By B\n[Service]\nLimitNOFILE=1\n"}
    written = path.stat()
    assert not run(files=[{**wanted, "ignore_comments": True}])["changed"]
    assert (path.read_text(), path.stat()) == (before, written)
    other = {**wanted, "content": "# By B\n[Service]\nLimitNOFILE=2\n", "ignore_comments": True}
    assert run(files=[other])["changed"]
    assert path.read_text() == other["content"]
    # Unless asked for, a comment is what a file is to say.
    assert run(files=[wanted])["changed"]
    assert path.read_text() == wanted["content"]
    assert run(files=[{**wanted, "content": "# By C\n[Service]\nLimitNOFILE=1\n"}])["changed"]


def test_a_secret_is_neither_shown_nor_logged(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, text, **_more: logged.append(text))
    path = str(tmp_path / "secret")
    files = [{"path": path, "mode": "0600"}]
    answers = [
        run(files=files, secrets={path: "a first-secret\n"}),
        run(files=files, secrets={path: "a second-secret\n"}, check=True),
        run(files=files, secrets={path: "a second-secret\n"}),
    ]
    assert (tmp_path / "secret").read_text() == "a second-secret\n"
    assert all(answer["changed"] for answer in answers)
    assert "-secret" not in json.dumps(answers)
    assert any(path in text for text in logged), "nothing was logged at all"
    assert "-secret" not in "".join(logged)


def test_each_file_has_one_content(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    both = run(files=[{"path": path, "mode": "0600", "content": "a"}], secrets={path: "another"})
    none = run(files=[{"path": path, "mode": "0600"}])
    assert "either a content or a secret" in both["msg"]
    assert none["msg"] == both["msg"]


def test_a_secret_is_closed_before_it_has_its_name(tmp_path: Path) -> None:
    beside = whole_file.write_beside(str(tmp_path / "secret"), b"", 0o600, os.getuid(), os.getgid())
    assert os.path.dirname(beside) == str(tmp_path)
    assert mode(Path(beside)) == 0o600


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "account": ({"owner": "nobody-knows"}, "no account 'nobody-knows'"),
    "group": ({"group": "nobody-knows"}, "no group 'nobody-knows'"),
    "mode": ({"mode": "u=rw"}, "no octal number"),
    "validation": ({"validate": "sh -c 'echo wrong; exit 3' %s"}, "status 3: wrong"),
}


@pytest.mark.parametrize("what", BAD)
def test_changes_nothing_when_one_is_refused(run: Run, tmp_path: Path, what: str) -> None:
    extra, expected = BAD[what]
    good = {"path": str(tmp_path / "good"), "mode": "0644", "content": "new"}
    bad = {"path": str(tmp_path / "bad"), "mode": "0644", "content": "new", **extra}
    answer = run(files=[good, bad])
    assert answer["failed"]
    assert expected in answer["msg"]
    assert "Nothing was changed" in answer["msg"]
    assert os.listdir(tmp_path) == []


def test_says_how_far_it_came(run: Run, tmp_path: Path) -> None:
    good = {"path": str(tmp_path / "good"), "mode": "0644", "content": "new"}
    bad = {"path": str(tmp_path / "missing" / "bad"), "mode": "0644", "content": "new"}
    told = run(files=[good, bad])["msg"]
    assert told.startswith(f"{tmp_path}/good was changed already. On the way to {tmp_path}/missing")
    assert (tmp_path / "good").exists()


def test_leaves_nothing_of_a_file_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        whole_file.write_bytes(str(tmp_path / "secret"), b"text", 0o600, os.getuid(), os.getgid())
    assert os.listdir(tmp_path) == []


def test_validates_what_is_to_be_written(run: Run, tmp_path: Path) -> None:
    item = {"path": str(tmp_path / "file"), "mode": "0644", "validate": "grep --quiet right %s"}
    assert run(files=[{**item, "content": "right"}])["changed"]
    assert run(files=[{**item, "content": "wrong"}])["failed"]
    assert (tmp_path / "file").read_text() == "right"


def test_a_dry_run_does_not_need_the_accounts(run: Run, tmp_path: Path) -> None:
    item = {"path": str(tmp_path / "file"), "mode": "0644", "content": "", "owner": "nobody-knows"}
    assert run(files=[item], check=True)["changed"]


def test_neither_follows_a_link_nor_replaces_another_kind(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("theirs")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        item = {"path": str(tmp_path / name), "mode": "0600", "content": "ours"}
        assert "has to be a plain file" in run(files=[item])["msg"]
    assert target.read_text() == "theirs"
    assert "directory" in run(directories=[{"path": str(target), "mode": "0700"}])["msg"]


@pytest.mark.skipif(os.getuid() != 0, reason="gives a link to another account")
def test_follows_a_link_to_a_directory_only_if_it_is_roots(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o755)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there")
    item = {"path": str(link), "mode": "0700"}
    assert run(directories=[item])["changed"]
    assert mode(tmp_path / "there") == 0o700
    os.lchown(link, 65534, 65534)
    assert "root's link" in run(directories=[{**item, "mode": "0711"}])["msg"]
    assert mode(tmp_path / "there") == 0o700


@pytest.mark.parametrize("by_link", [True, False], ids=["link", "directory"])
def test_a_directory_that_is_swapped_meanwhile_is_left_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_link: bool
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        folder.chmod(0o755)
    real = os.open

    def swap(path: str, flags: int, *rest: int) -> int:
        if path == str(ours):
            ours.rename(tmp_path / "away")
            if by_link:
                ours.symlink_to(theirs)
            else:
                theirs.rename(ours)
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", swap)
    answer = run(directories=[{"path": str(ours), "mode": "0700"}])
    assert answer["failed"]
    assert mode(ours) == 0o755


# --- directories of others -------------------------------------------------------------------

AS_NOBODY = {"owner": "nobody", "group": grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name}
as_root = pytest.mark.skipif(os.getuid() != 0, reason="gives directories to other accounts")


@pytest.mark.parametrize("path", ["/", "//", "/etc", "/srv/", "/usr/local/bin", "/var/lib"])
def test_a_directory_of_the_system_is_no_services(run: Run, path: str) -> None:
    """As a dry run: a fault in this would change the machine of whoever runs the test."""
    before = os.stat(path)
    told = run(check=True, directories=[{"path": path, "mode": "0750"}])["msg"]
    assert "Nothing was changed." in told
    assert "is a directory of the system" in told
    assert os.stat(path)[:6] == before[:6]


def test_what_is_to_last_is_not_put_into_memory(run: Run) -> None:
    wanted = {"path": "/var/run/store", "mode": "0750", "variable": "redis_backup_server_directory"}
    told = run(check=True, directories=[wanted])["msg"]
    assert "/var/run/store, which is /run/store, lies in memory" in told
    assert "Correct redis_backup_server_directory." in told


@as_root
def test_a_directory_with_files_of_others_is_not_taken(run: Run, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    for name in range(150):
        (shared / f"file-{name:03}").touch()
    wanted = {"path": str(shared), "mode": "0750", **AS_NOBODY}
    for check in (True, False):
        told = run(check=check, directories=[wanted])["msg"]
        assert (
            "has 150 files or directories of others: file-000, file-001, file-002 and 147" in told
        )
        assert len(told) < 300
    assert (shared.stat().st_uid, mode(shared)) == (0, 0o755)
    # By a link of root's too, and for another group alone.
    (tmp_path / "link").symlink_to(shared)
    assert "147 more" in run(directories=[{**wanted, "path": str(tmp_path / "link")}])["msg"]
    group = {"path": str(shared), "mode": "0750", "group": AS_NOBODY["group"]}
    assert "147 more" in run(directories=[group])["msg"]


@as_root
def test_a_directory_of_its_own_is_taken_back(run: Run, tmp_path: Path) -> None:
    """After a `chown -R root`, or on a file system that is new."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    wanted = {"path": str(folder), "mode": "0750", **AS_NOBODY, "holds": ["dump.rdb", "aof*"]}
    for name in ("lost+found", "dump.rdb", "aof.1"):
        (folder / name).touch()
    assert run(directories=[wanted])["changed"]
    assert folder.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert not run(directories=[wanted])["changed"]
    # It is the account's: what others have in there does not keep its mode from being mended.
    (folder / "notes").touch()
    folder.chmod(0o777)
    assert run(directories=[wanted])["changed"]
    assert mode(folder) == 0o750
    # What the account owns is its own, whatever its name.
    os.chown(folder, 0, 0)
    os.chown(folder / "notes", pwd.getpwnam("nobody").pw_uid, 0)
    assert run(directories=[wanted])["changed"]


@as_root
def test_an_empty_directory_of_another_account_is_not_taken(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, pwd.getpwnam("daemon").pw_uid, 0)
    wanted = {"path": str(folder), "mode": "0750", **AS_NOBODY}
    assert "belongs to daemon" in run(directories=[wanted])["msg"]


@pytest.mark.parametrize("path", ["data", "./data", "~/data", "$HOME/data", "", "/srv/a\nb"])
def test_only_an_absolute_path_is_one(run: Run, path: str) -> None:
    told = run(directories=[{"path": path, "mode": "0750"}])["msg"]
    assert "Nothing was changed." in told
    assert "is no absolute path" in told


@pytest.mark.parametrize("name", ["a b", "$HOME", "100%", "é", "a\\b", "a'b"])
def test_a_path_is_taken_as_it_is_written(run: Run, tmp_path: Path, name: str) -> None:
    run(directories=[{"path": str(tmp_path / name), "mode": "0700"}])
    assert os.listdir(tmp_path) == [name]


def test_its_documentation_is_what_it_takes() -> None:
    command = ["ansible-doc", "--json", "proven.redis.managed_files"]
    shown = json.loads(subprocess.check_output(command, cwd=ROOT))["proven.redis.managed_files"][
        "doc"
    ]
    options = shown["options"]["files"]["suboptions"]
    assert set(options) == {
        "path", "owner", "group", "mode", "content", "ignore_comments", "validate"
    }  # fmt: skip
