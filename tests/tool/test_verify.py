"""`redis-backup verify`, `list` and `show` over a store in which something was changed: the file
is named.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from redis_backup.base.output import Output
from redis_backup.formats import catalogue as catalogue_format
from redis_backup.formats import document, manifest
from redis_backup.repository import catalogue, reread

from tests.tool.backup_lab import SET, BackupServer, id_now, lab, make_upload, refusal, run
from tests.tool.store_lab import drilled, opened


@pytest.fixture
def filled(tmp_path: Path, dump: bytes) -> Iterator[tuple[BackupServer, list[str]]]:
    """A backup server with three backups."""
    with lab(tmp_path, "redis-1", rsync=False) as made:
        ids = [id_now("redis-1", offset) for offset in (-20, -10, 0)]
        for backup_id in ids:
            make_upload(made.server.inbox / "redis-1", dump, backup_id)
        assert len(made.server.accept().json["accepted"]) == 3
        assert run("--config", made.server.config, "verify").code == 0
        yield made.server, ids


class BadSector(io.BytesIO):
    """A file that the disk cannot give back."""

    def read(self, _size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def bad(server: BackupServer, *arguments: str) -> str:
    """What `verify` complains about; it must."""
    result = run("--config", server.config, "verify", *arguments)
    assert result.code == 1, result.text
    assert "Traceback" not in result.text
    return "\n".join(line for line in result.out.splitlines() if line.startswith("BAD: "))


def damage(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change the bytes of a file, whatever its mode."""
    raw = bytearray(path.read_bytes())
    change(raw)
    path.chmod(0o600)
    path.write_bytes(raw)


def test_a_flipped_byte_anywhere_is_named(filled: tuple[BackupServer, list[str]]) -> None:
    server, ids = filled
    path = server.store / SET / ids[1] / "dump.rdb.zst"
    for position in (0, 5, path.stat().st_size // 2, path.stat().st_size - 1):

        def flip(raw: bytearray, at: int = position) -> None:
            raw[at] ^= 0x10

        damage(path, flip)
        assert f"{SET}/{ids[1]}/dump.rdb.zst: sha256" in bad(server, "--all")
        assert f"{SET}/{ids[1]}/dump.rdb.zst: sha256" in bad(server, ids[1])
        assert run("--config", server.config, "verify", ids[0]).code == 0
        damage(path, flip)
    assert run("--config", server.config, "verify").code == 0


def test_a_truncated_file_is_named(filled: tuple[BackupServer, list[str]]) -> None:
    server, ids = filled
    damage(server.store / SET / ids[0] / "dump.rdb.zst", lambda raw: raw.__delitem__(-1))
    assert f"{SET}/{ids[0]}/dump.rdb.zst" in bad(server)


def test_a_changed_manifest_is_named(filled: tuple[BackupServer, list[str]]) -> None:
    server, ids = filled
    path = server.store / SET / ids[0] / "manifest.json"
    damage(path, lambda raw: raw.extend(b"\n"))
    assert f"{SET}/{ids[0]}/manifest.json" in bad(server)
    shown = run("--config", server.config, "list")
    assert f"{SET}/{ids[0]}/manifest.json" in shown.out
    damage(path, lambda raw: raw.clear())
    assert f"{SET}/{ids[0]}/manifest.json: not valid JSON" in bad(server)


@pytest.mark.parametrize("name", ["dump.rdb.zst", "manifest.json"])
def test_a_missing_file_is_named(filled: tuple[BackupServer, list[str]], name: str) -> None:
    server, ids = filled
    (server.store / SET / ids[2] / name).unlink()
    assert f"{SET}/{ids[2]}/{name}: is missing" in bad(server)


def test_a_disk_that_cannot_read_a_file_is_named_and_the_rest_is_verified(
    filled: tuple[BackupServer, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ids = filled
    name = f"{SET}/{ids[0]}/manifest.json"
    real = reread._opened

    @contextmanager
    def opened(path: Path, where: str) -> Iterator[BinaryIO]:
        with real(path, where) as file:
            yield BadSector() if where == name else file

    monkeypatch.setattr(reread, "_opened", opened)
    result = run("--config", server.config, "verify", "--all")
    assert result.code == 1
    assert f"BAD: {name}: cannot be read (Input/output error)" in result.out
    for backup_id in ids[1:]:
        assert f"good: {SET}/{backup_id}" in result.out
    assert f"{name}: cannot be read" in run("--config", server.config, "list").out


def test_a_missing_set_and_one_too_many(filled: tuple[BackupServer, list[str]]) -> None:
    server, ids = filled
    other = id_now("redis-9", -5)
    (server.store / SET / ids[1]).rename(server.store / SET / other)
    said = bad(server)
    assert f"{SET}/{ids[1]}: has a line in the catalogue but is not in the store" in said
    # It has the receipt of another one: it is no backup that a killed run left either.
    assert f"{SET}/{other}/receipt.json: is not the receipt of this backup" in said
    assert "is not in the store" in bad(server, ids[1])


def resealed(line: bytes) -> bytes:
    """An edited line with its own hash right again."""
    data = json.loads(line)
    del data["line_sha256"], data["schema"]
    return catalogue_format.encode(catalogue_format.Entry(**data)) + b"\n"


def test_a_drill_s_report_without_its_line(filled: tuple[BackupServer, list[str]]) -> None:
    server, ids = filled
    drill_id = drilled(server, ids[0], "passed", time.time())
    path = server.store / SET / "catalogue.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    # A run is between the two, or was killed there: nothing is wrong, and the next one finishes it.
    assert run("--config", server.config, "verify").code == 0
    assert server.accept().json["finished"] == [f"{SET}/{ids[0]}"]
    assert path.read_bytes() == whole
    assert catalogue.read(server.store / SET).has_drill(drill_id)


def test_a_catalogue_that_was_edited(filled: tuple[BackupServer, list[str]]) -> None:
    server, _ = filled
    path = server.store / SET / "catalogue.jsonl"
    good = path.read_bytes()
    lines = good.splitlines(keepends=True)
    edits = {
        "line 2": [
            b"".join([lines[0], lines[2]]),
            b"".join([lines[0], lines[2], lines[1]]),
            b"".join([lines[0], lines[1].replace(b"redis-1", b"redis-2"), lines[2]]),
        ],
        "line 1": [b"".join(lines[1:])],
        "line 3": [
            b"".join([lines[0], resealed(lines[1].replace(b"redis-1", b"redis-2")), lines[2]]),
            # Nothing follows that could tell: it carries its own hash.
            b"".join([lines[0], lines[1], lines[2].replace(b"redis-1", b"redis-2")]),
            b"".join([lines[0], lines[1], lines[2].replace(b'":"', b'": "', 1)]),
        ],
    }
    for line, contents in edits.items():
        for content in contents:
            path.write_bytes(content)
            assert f"{SET}/catalogue.jsonl {line}" in bad(server)
            listed = run("--config", server.config, "list")
            assert listed.code == 1
            assert f"{SET}/catalogue.jsonl {line}" in listed.err
    # What is missing at its end is written again from the receipts.
    for left in (lines[0] + lines[1], lines[0][:40], b""):
        path.write_bytes(left)
        assert len(server.accept().json["finished"]) == 3 - left.count(b"\n")
        assert path.read_bytes() == good
    path.unlink()
    assert len(server.accept().json["finished"]) == 3
    assert path.read_bytes() == good


def test_pruned_backups_have_a_tombstone(filled: tuple[BackupServer, list[str]]) -> None:
    server, ids = filled
    set_dir = server.store / SET
    book = opened(server)
    book.record(book.about(ids[0], "pruned", time.time()))
    # Its directory is what retention removes next.
    assert run("--config", server.config, "verify").code == 0
    shutil.rmtree(set_dir / ids[0])
    assert run("--config", server.config, "verify").code == 0
    asked = run("--config", server.config, "verify", ids[0])
    assert f"{SET}/{ids[0]}: was deleted by retention" in refusal(asked)
    shown = run("--config", server.config, "show", ids[0])
    assert shown.code == 0
    assert "pruned" in shown.out
    with pytest.raises(catalogue_format.CatalogueError, match="second time"):
        catalogue.append(set_dir, book.known, [replace(book.known.accepted()[ids[0]], n=9)])


def test_targets(filled: tuple[BackupServer, list[str]]) -> None:
    server, ids = filled
    for command in ("show", "verify"):
        assert run("--config", server.config, command, f"{SET}/{ids[0]}").code == 0
        for target, code in (("../../etc", 2), ("x", 2), (f"../{ids[0]}", 2), (f"a/b/{ids[0]}", 2)):
            result = run("--config", server.config, command, target)
            assert (result.code, "Traceback" in result.text) == (code, False)
        result = run("--config", server.config, command, "20200101T000000Z-redis-1")
        assert result.code == 1
        assert "no such backup" in result.err


def test_an_empty_store(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1", rsync=False) as made:
        assert run("--config", made.server.config, "list").out == "no backups yet\n"
        assert run("--config", made.server.config, "verify").code == 0
        shutil.rmtree(made.server.store)
        result = run("--config", made.server.config, "list")
        assert result.code == 1
        assert "the store cannot be read" in result.err


def test_levels_that_were_reached(dump: bytes, tmp_path: Path) -> None:
    backup_id = id_now("redis-1")
    upload = make_upload(tmp_path, dump, backup_id)
    good, _ = reread.read_manifest(upload, SET, backup_id)
    plain_file = tmp_path / "dump.rdb"
    reread.unpack(upload, good, plain_file)
    assert plain_file.read_bytes() == dump
    assert reread.walk(plain_file, good) == reread.verify_set(upload, good)

    def reached(claim: manifest.Manifest) -> str | None:
        with pytest.raises(reread.VerifyError) as caught:
            reread.verify_set(upload, claim)
        assert f"{SET}/{backup_id}/dump.rdb.zst" in str(caught.value)
        return caught.value.reached

    data = {"schema": document.SCHEMA, **manifest.to_json(good)}
    counts = {**data, "databases": {"0": {"keys": 1, "expires": 0}}}
    assert reached(manifest.from_json(counts, "x")) == "form"
    plain = {**data, "files": [{**data["files"][0], "sha256": "0" * 64}]}
    assert reached(manifest.from_json(plain, "x")) is None
    short = {**data, "files": [{**data["files"][0], "size": len(dump) - 1}]}
    for change, level, words in (
        (short, None, f"more than the announced {len(dump) - 1} bytes"),
        ({**data, "rdb": {"magic": "REDIS", "version": 9}}, "bytes", "the manifest says REDIS"),
    ):
        other = tmp_path / f"other-{level}"
        with pytest.raises(reread.VerifyError, match=words) as caught:
            reread.unpack(upload, manifest.from_json(change, "x"), other)
        assert caught.value.reached == level
        assert other.stat().st_size <= len(dump)
    cut = {"size": len(dump) - 1, "sha256": hashlib.sha256(dump[:-1]).hexdigest()}
    for change, level in (
        (plain, None),
        (counts, "form"),
        (short, None),
        ({**data, "files": [{**data["files"][0], "size": len(dump) + 1}]}, None),
    ):
        with pytest.raises(reread.VerifyError) as caught:
            reread.walk(plain_file, manifest.from_json(change, "x"))
        assert caught.value.reached == level
    plain_file.write_bytes(dump[:-1])
    claim = manifest.from_json({**data, "files": [{**data["files"][0], **cut}]}, "x")
    with pytest.raises(reread.VerifyError) as caught:
        reread.walk(plain_file, claim)
    assert caught.value.reached == "bytes"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": {"databases": "16\nloadmodule x"}}, '"databases" must be one line'),
        ({"settings": {"databases": "16 17"}}, '"databases" has a form that is not allowed'),
        ({"settings": {"Load Module": "1"}}, "has a key of a form that is not allowed"),
        ({"settings": {f"a{n}": "1" for n in range(101)}}, "has 101 keys, more than 100"),
        ({"settings": ["databases"]}, '"settings" must be an object'),
        ({"seconds": {"walk": -1}}, '"walk" must be at least 0'),
        ({"seconds": {"walk": 1e300}}, "more than 1000000000 seconds"),
    ],
    ids=str,
)
def test_settings_and_seconds_that_are_none_are_refused(
    tmp_path: Path, dump: bytes, change: dict[str, Any], words: str
) -> None:
    upload = make_upload(tmp_path, dump, id_now("redis-1"), **change)
    with pytest.raises(reread.VerifyError, match=re.escape(words)):
        reread.read_manifest(upload, SET, upload.name)


def test_a_manifest_of_an_older_tool_is_read(tmp_path: Path, dump: bytes) -> None:
    """It has a digest, and neither settings nor seconds."""
    upload = make_upload(tmp_path, dump, id_now("redis-1"), digest="values-1:" + "0" * 64)
    data = json.loads((upload / "manifest.json").read_text())
    del data["settings"], data["seconds"]
    (upload / "manifest.json").write_text(json.dumps(data))
    claim, _ = reread.read_manifest(upload, SET, upload.name)
    assert (claim.settings, claim.seconds) == ({}, {})


def test_text_from_elsewhere_cannot_drive_the_terminal() -> None:
    out = io.StringIO()
    Output(False, out, out).step("a\x1b[31m\nb")
    assert out.getvalue() == "a?[31m?b\n"


def test_json_is_one_document(filled: tuple[BackupServer, list[str]]) -> None:
    server, ids = filled
    for arguments in (["list"], ["show", ids[0]], ["verify", "--all"], ["accept"]):
        before = run("--json", "--config", server.config, *arguments)
        after = run(*arguments, "--json", "--config", server.config)
        assert json.loads(before.out) == json.loads(after.out)
    assert re.search(
        r"^redis/.* KiB +305 +none yet$", run("--config", server.config, "list").out, re.M
    )
