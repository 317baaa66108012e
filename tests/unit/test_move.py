"""Moving data files: what is refused, and that at every moment one place holds all of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_move import (
    MARKER,
    RESERVE,
    MoveError,
    Place,
    Survey,
    carry,
    check_writable,
    objections,
    survey,
)

FINE = Survey(others=(), odd=(), size=100, free=0, linkable=True, obstacle="")
NAMES = ("dump.rdb", "appendonlydir", "appendonly.aof")
HERE, THERE = Place("/old", *NAMES), Place("/new", *NAMES)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


DATA = {
    "dump.rdb": b"REDIS0010",
    "appendonlydir/appendonly.aof.manifest": b"file a seq 1 type i\n",
    "appendonlydir/appendonly.aof.1.incr.aof": b"*1\r\n$4\r\nPING\r\n" * 1000,
}


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """A directory with an RDB and an append-only file."""
    folder = tmp_path / "old"
    (folder / "appendonlydir").mkdir(parents=True)
    for name, content in DATA.items():
        (folder / name).write_bytes(content)
    (folder / ".redis-backup").mkdir()
    (folder / "other").write_bytes(b"not the server's")
    return Place(str(folder), *NAMES)


@pytest.fixture
def there(tmp_path: Path) -> Place:
    (tmp_path / "new").mkdir()
    return Place(str(tmp_path / "new"), *NAMES)


@pytest.fixture(params=["linked", "copied"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """On one file system, and on two."""
    if request.param == "copied":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", refuse)
    return str(request.param)


def test_both_places_hold_everything_until_the_old_one_is_given_up(
    here: Place, there: Place, way: str
) -> None:
    before = tree(Path(here.dir))
    carried = carry(here, there)
    assert carried.copied is (way == "copied")
    assert tree(Path(there.dir)) == DATA
    assert tree(Path(here.dir)) == before
    kept = carried.retire()
    assert tree(Path(there.dir)) == DATA
    assert (Path(here.dir) / "other").exists()
    assert not (Path(here.dir) / "dump.rdb").exists()
    assert not (Path(here.dir) / "appendonlydir").exists()
    if way == "linked":
        assert kept is None
    else:
        assert kept is not None
        assert tree(Path(kept)) == DATA


def test_given_up_the_new_place_is_empty_and_the_old_one_as_before(
    here: Place, there: Place, way: str
) -> None:
    before = tree(Path(here.dir))
    carry(here, there).discard()
    assert os.listdir(there.dir) == []
    assert tree(Path(here.dir)) == before


def test_a_server_that_wrote_to_the_new_files_is_noticed(
    here: Place, there: Place, way: str
) -> None:
    carried = carry(here, there)
    assert carried.untouched()
    with open(os.path.join(there.dir, "appendonlydir/appendonly.aof.1.incr.aof"), "ab") as file:
        file.write(b"more")
    assert not carried.untouched()


def test_a_snapshot_that_replaced_the_new_rdb_is_noticed(
    here: Place, there: Place, way: str
) -> None:
    carried = carry(here, there)
    other = Path(there.dir) / "temp.rdb"
    other.write_bytes(DATA["dump.rdb"])
    other.rename(Path(there.dir) / "dump.rdb")
    assert not carried.untouched()


def test_another_name_in_the_same_directory(here: Place, way: str) -> None:
    renamed = here._replace(dbfilename="data.rdb")
    carried = carry(here, renamed)
    carried.retire()
    found = tree(Path(here.dir))
    assert found["data.rdb"] == DATA["dump.rdb"]
    assert "dump.rdb" not in found
    assert found["appendonlydir/appendonly.aof.manifest"]


def test_a_copy_that_reads_back_otherwise_is_not_taken(
    here: Place, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    def damage(old: str, new: str, **_: object) -> None:
        with open(new, "r+b") as file:
            file.write(b"X")

    monkeypatch.setattr(os, "link", refuse)
    # Between the write and the read back.
    monkeypatch.setattr("shutil.copystat", damage)
    before = tree(Path(here.dir))
    with pytest.raises(MoveError, match="reads back other bytes"):
        carry(here, there)
    assert os.listdir(there.dir) == []
    assert tree(Path(here.dir)) == before


def test_what_is_there_already_is_never_replaced_or_removed(here: Place, there: Place) -> None:
    (Path(there.dir) / "appendonlydir").mkdir()
    (Path(there.dir) / "appendonlydir" / "precious").write_bytes(b"x")
    with pytest.raises(MoveError, match=r"There is already .*appendonlydir"):
        carry(here, there)
    assert tree(Path(there.dir)) == {"appendonlydir/precious": b"x"}
    assert set(DATA) <= set(tree(Path(here.dir)))


def test_a_move_that_was_killed_is_begun_again(here: Place, there: Place) -> None:
    (Path(there.dir) / MARKER).write_text("unfinished")
    (Path(there.dir) / "dump.rdb").write_bytes(b"half")
    assert objections(survey(here, there), here, there) == []
    carry(here, there)
    assert tree(Path(there.dir)) == DATA


def test_nor_does_a_killed_renaming_cost_what_keeps_its_name(here: Place) -> None:
    (Path(here.dir) / MARKER).write_text("unfinished")
    (Path(here.dir) / "data.rdb").write_bytes(b"half")
    renamed = here._replace(dbfilename="data.rdb")
    assert objections(survey(here, renamed), here, renamed) == []
    carry(here, renamed)
    found = tree(Path(here.dir))
    assert found["data.rdb"] == DATA["dump.rdb"]
    assert DATA.items() <= found.items()


def test_links_are_not_followed(here: Place, there: Place) -> None:
    (Path(here.dir) / "appendonlydir" / "link").symlink_to("/etc/shadow")
    with pytest.raises(MoveError, match="link is neither a file nor a directory"):
        carry(here, there)
    assert os.listdir(there.dir) == []


def test_a_directory_that_cannot_be_written_is_told(there: Place) -> None:
    check_writable(there)
    assert os.listdir(there.dir) == []
    with pytest.raises(MoveError, match=r"cannot write to .*missing"):
        check_writable(there._replace(dir=there.dir + "/missing"))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(FINE, "", id="one file system: no room needed"),
        pytest.param(
            FINE._replace(linkable=False, size=RESERVE, free=3 * RESERVE), "", id="enough room"
        ),
        pytest.param(
            FINE._replace(linkable=False, size=RESERVE, free=3 * RESERVE - 1),
            "has 191 MiB free, and the data with its next snapshot takes 192 MiB",
            id="a byte too few",
        ),
        pytest.param(
            FINE._replace(others=("dump.rdb",)), "there is already dump.rdb", id="other data"
        ),
        pytest.param(
            FINE._replace(odd=("/old/appendonlydir",)), "link or a mount point", id="nested mount"
        ),
        pytest.param(FINE._replace(obstacle="/new is no directory"), "/new is no", id="obstacle"),
    ],
)
def test_what_speaks_against_a_move(found: Survey, said: str) -> None:
    reasons = objections(found, HERE, THERE)
    assert (said in " ".join(reasons)) if said else (reasons == [])


def test_what_a_survey_sees(here: Place, there: Place) -> None:
    found = survey(here, there)
    assert found.others == found.odd == ()
    assert found.linkable
    assert found.size == sum(map(len, DATA.values()))
    assert found.free > 0
    # It need not exist yet, nor the directory that it is to be in.
    missing = survey(here, there._replace(dir=there.dir + "/a/b"))
    assert missing._replace(free=found.free) == found


def test_what_is_no_data_is_not_in_the_way(here: Place, there: Place) -> None:
    for name in ("lost+found", ".redis-backup", "moved-20260101T000000Z"):
        (Path(there.dir) / name).mkdir()
    assert survey(here, there).others == ()
    (Path(there.dir) / "dump.rdb").write_bytes(b"")
    (Path(there.dir) / "letters").write_bytes(b"")
    assert survey(here, there).others == ("dump.rdb", "letters")


def test_other_data_under_the_new_name_is_in_the_way(here: Place) -> None:
    renamed = here._replace(dbfilename="data.rdb")
    assert survey(here, renamed).others == ()
    (Path(here.dir) / "data.rdb").write_bytes(b"")
    assert survey(here, renamed).others == ("data.rdb",)


def test_a_linked_data_path_is_seen(here: Place, there: Place) -> None:
    elsewhere = Path(here.dir).parent / "elsewhere"
    (Path(here.dir) / "appendonlydir").rename(elsewhere)
    (Path(here.dir) / "appendonlydir").symlink_to(elsewhere)
    assert survey(here, there).odd == (str(Path(here.dir) / "appendonlydir"),)


def test_a_file_is_no_directory_and_data_no_place_for_itself(here: Place, there: Place) -> None:
    path = Path(here.dir) / "other"
    assert survey(here, there._replace(dir=str(path))).obstacle == f"{path} is no directory"
    within = os.path.join(here.dir, "appendonlydir", "new")
    assert "lies within the data" in survey(here, there._replace(dir=within)).obstacle
