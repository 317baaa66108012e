"""What a Redis host may do on the backup server, and what it may not: a real rsync daemon over the
rendered files.

Everything is as the roles write it but for what a test cannot have: the paths, the port, the
account and `redis-backup accept`.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis_backup.config.model import Transport
from redis_backup.transport import rsync

from tests.unit.role_templates import Role

HOST = "redis-1"
SECRET = "secret-of-redis-1"
UPLOAD = "20260102T030405Z-redis-1"


@dataclass
class Server:
    """A running daemon with the inbox of redis-1, the receipts of its set and a store."""

    root: Path
    port: int

    @property
    def inbox(self) -> Path:
        return self.root / "data" / "inbox" / HOST

    @property
    def kicked(self) -> Path:
        """Written by every transfer into the inbox that ends."""
        return self.root / "kicked"

    def url(self, module: str, path: str = "", user: str = HOST) -> str:
        return f"rsync://{user}@127.0.0.1:{self.port}/{module}/{path}"

    def transport(self) -> Transport:
        return Transport(
            server="127.0.0.1",
            port=self.port,
            user=HOST,
            secret=SECRET,
            inbox_module=f"inbox-{HOST}",
            receipts_module="receipts-redis",
            retry_delays=(),
        )


def run_rsync(*arguments: str, cwd: Path, secret: str = SECRET) -> subprocess.CompletedProcess[str]:
    """Run a client; the secret is in its environment."""
    return subprocess.run(
        ["rsync", "--no-motd", "--timeout=60", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "RSYNC_PASSWORD": secret},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _render(root: Path) -> None:
    """The files of the backup server below `root`, as the role writes them."""
    role = Role("redis_backup_server", root)
    account = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    overrides = {
        "redis_backup_server_directory": str(root / "data"),
        "redis_backup_server_max_connections": 100,
        "__redis_backup_server_root": str(root / "data"),
        "__redis_backup_server_etc": str(root / "etc"),
        "__redis_backup_server_locks": str(root / "locks"),
        "redis_backup_server_uploader_kind": "host",
        "redis_backup_server_uploader_set": "redis",
        "redis_backup_server_uploader_hosts_allow": ["127.0.0.1"],
        "redis_backup_server_uploader_readers": [HOST],
        "redis_backup_server_uploader_readers_allow": ["127.0.0.1"],
    }

    def text(template: str, host: str, **extra: object) -> str:
        rendered = role.render(template, host, **{**overrides, **extra})
        rendered = re.sub(r"(?m)^uid = .*", f"uid = {account}", rendered)
        rendered = re.sub(r"(?m)^gid = .*", "gid = *", rendered)
        rendered = rendered.replace("192.168.1.123", "127.0.0.1")  # the drill host
        if os.geteuid() != 0:
            rendered = rendered.replace("use chroot = yes", "use chroot = no")
            rendered = re.sub(r"(?m)^[ug]id = .*\n", "", rendered)
        return re.sub(
            r"(?m)^post-xfer exec = .*", f"post-xfer exec = touch {root}/kicked", rendered
        )

    etc = root / "etc"
    (etc / "rsyncd.d").mkdir(parents=True)
    (root / "locks").mkdir()
    for directory in (f"inbox/{HOST}", "receipts/redis", "store/redis"):
        (root / "data" / directory).mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(root / "data" / directory, account)
    (root / "data" / "receipts" / "redis" / f"{UPLOAD}.json").write_text("{}")
    (root / "data" / "store" / "redis" / "catalogue.jsonl").write_text("history\n")
    etc.joinpath("rsyncd.conf").write_text(text("rsyncd.conf.j2", "backup-1"))
    etc.joinpath("rsyncd.d", "inbox-redis-1.conf").write_text(text("inbox.conf.j2", HOST))
    etc.joinpath("rsyncd.d", "receipts-redis.conf").write_text(text("receipts.conf.j2", HOST))
    # A second host, allowed from another address only.
    etc.joinpath("rsyncd.d", "inbox-redis-2.conf").write_text(
        text("inbox.conf.j2", "redis-2", redis_backup_server_uploader_hosts_allow=["192.0.2.2"])
    )
    secrets = etc / "rsyncd.secrets"
    secrets.write_text(
        "".join(
            text("secret.j2", host, redis_backup_server_uploader_secret=f"secret-of-{host}")
            for host in (HOST, "redis-2", "drill-1")
        )
    )
    secrets.chmod(0o600)


@pytest.fixture
def server(daemon: Server) -> Server:
    """The daemon with an empty inbox."""
    for path in daemon.inbox.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    daemon.kicked.unlink(missing_ok=True)
    return daemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[Server]:
    # Not below pytest's own directory: the account of the module must be able to enter it.
    root = Path(tempfile.mkdtemp(prefix="redis-backup-rsyncd-"))
    root.chmod(0o755)
    port = _free_port()
    _render(root)
    process = subprocess.Popen(
        [
            "rsync",
            "--daemon",
            "--no-detach",
            "--address=127.0.0.1",
            f"--port={port}",
            f"--config={root}/etc/rsyncd.conf",
            f"--log-file={root}/log",
        ]
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (root / "log").read_text()
                time.sleep(0.02)
        yield Server(root, port)
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(root)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    """A directory with an upload in it, and with things that must not get through."""
    directory = tmp_path / UPLOAD
    directory.mkdir()
    (directory / "dump.rdb.zst").write_bytes(b"payload")
    (directory / "manifest.json").write_text("{}")
    return tmp_path


def test_the_tool_uploads_and_accepting_is_asked_for(server: Server, upload: Path) -> None:
    names = ["dump.rdb.zst", "manifest.json"]
    rsync.upload(server.transport(), upload, UPLOAD, names)
    arrived = server.inbox / UPLOAD
    assert sorted(path.name for path in arrived.iterdir()) == names
    assert (arrived / "dump.rdb.zst").read_bytes() == b"payload"
    # Whatever the sender's modes are, nobody else can read it. The group of a directory is root's,
    # who runs the daemon without the capability to enter what is closed to it.
    assert (arrived.stat().st_mode & 0o777, (arrived / names[0]).stat().st_mode & 0o777) == (
        0o750,
        0o600,
    )
    deadline = time.monotonic() + 60
    while not server.kicked.exists():
        assert time.monotonic() < deadline, "the end of a transfer started nothing"
        time.sleep(0.02)


def test_the_tool_reads_its_receipts(server: Server, tmp_path: Path) -> None:
    assert rsync.fetch_receipt(server.transport(), UPLOAD, tmp_path) == b"{}"
    assert rsync.fetch_receipts(server.transport(), tmp_path) == {UPLOAD: b"{}"}


def test_nothing_can_be_listed_or_read_back(server: Server, upload: Path) -> None:
    names = ["dump.rdb.zst"]
    rsync.upload(server.transport(), upload, UPLOAD, names)
    modules = run_rsync(f"rsync://127.0.0.1:{server.port}/", cwd=upload)
    assert modules.stdout == ""
    for path in ("", f"{UPLOAD}/", f"{UPLOAD}/dump.rdb.zst"):
        listing = run_rsync(server.url(f"inbox-{HOST}", path), cwd=upload)
        reading = run_rsync("-r", server.url(f"inbox-{HOST}", path), "got/", cwd=upload)
        for done in (listing, reading):
            assert done.returncode != 0
            assert "write only" in done.stderr
    assert not (upload / "got").exists()


# What would let a sender choose more than the content of new files.
REFUSED = shlex.split(
    "--delete --delete-after --delete-excluded --force --remove-source-files"
    " --inplace --append --append-verify --partial --partial-dir=.part --delay-updates"
    " --backup --backup-dir=old --suffix=x --temp-dir=/"
    " --link-dest=/ --copy-dest=/ --compare-dest=/ --fuzzy --checksum"
    " --links --safe-links --hard-links --keep-dirlinks --devices --specials -D --write-devices"
    " --perms --executability --owner --group --acls --xattrs --super --numeric-ids"
    " --sparse --preallocate --update --existing --ignore-existing --mkpath --compress"
    " --remote-option=--log-file=/x --archive"
)


def test_options_are_refused(server: Server, upload: Path) -> None:
    def attempt(option: str) -> str:
        url = server.url(f"inbox-{HOST}", "x/")
        done = run_rsync("--recursive", option, f"{UPLOAD}/", url, cwd=upload)
        return "" if done.returncode and "refuse" in done.stderr else f"{option}: {done.stderr}"

    # A refused client takes half a second to end.
    with ThreadPoolExecutor(8) as pool:
        accepted = [said for said in pool.map(attempt, REFUSED) if said]
    assert accepted == []
    assert list(server.inbox.iterdir()) == []


def test_links_and_devices_do_not_get_through(server: Server, upload: Path) -> None:
    (upload / UPLOAD / "link").symlink_to("/etc/passwd")
    os.mkfifo(upload / UPLOAD / "fifo")
    done = run_rsync("--recursive", UPLOAD, server.url(f"inbox-{HOST}"), cwd=upload)
    assert done.returncode == 0, done.stderr
    arrived = sorted(path.name for path in (server.inbox / UPLOAD).iterdir())
    assert arrived == ["dump.rdb.zst", "manifest.json"]


def test_no_way_out_of_the_inbox(server: Server, upload: Path) -> None:
    for path in ("../../../escaped", "../redis-2/escaped", "/../../escaped"):
        run_rsync(f"{UPLOAD}/manifest.json", server.url(f"inbox-{HOST}", path), cwd=upload)
    outside = [
        path for path in server.root.rglob("escaped") if not path.is_relative_to(server.inbox)
    ]
    assert outside == []


def test_receipts_cannot_be_written(server: Server, upload: Path) -> None:
    done = run_rsync(f"{UPLOAD}/manifest.json", server.url("receipts-redis"), cwd=upload)
    assert done.returncode != 0
    assert "read only" in done.stderr


def test_the_store_is_the_drill_hosts_to_read(server: Server, upload: Path) -> None:
    refused = run_rsync(server.url("store"), cwd=upload)
    assert "auth failed" in refused.stderr
    drill = {"cwd": upload, "secret": "secret-of-drill-1"}
    done = run_rsync("-r", server.url("store", "", "drill-1"), "got/", **drill)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    assert (upload / "got" / "redis" / "catalogue.jsonl").read_text() == "history\n"
    done = run_rsync(f"{UPLOAD}/manifest.json", server.url("store", "", "drill-1"), **drill)  # type: ignore[arg-type]
    assert "read only" in done.stderr


@pytest.mark.parametrize(
    ("module", "user", "secret", "said"),
    [
        ("inbox-redis-1", HOST, "wrong", "auth failed"),
        ("inbox-redis-1", "redis-2", "secret-of-redis-2", "auth failed"),
        ("inbox-redis-1", "nobody", SECRET, "auth failed"),
        ("receipts-redis", "redis-2", "secret-of-redis-2", "auth failed"),
        # hosts allow: the module is not even there for a stranger.
        ("inbox-redis-2", "redis-2", "secret-of-redis-2", "Unknown module"),
    ],
)
def test_strangers_are_refused(
    server: Server, upload: Path, module: str, user: str, secret: str, said: str
) -> None:
    url = server.url(module, "", user)
    done = run_rsync(f"{UPLOAD}/manifest.json", url, cwd=upload, secret=secret)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr


def test_secrets_that_others_can_read_let_nobody_in(server: Server, upload: Path) -> None:
    secrets = server.root / "etc" / "rsyncd.secrets"
    secrets.chmod(0o644)
    try:
        done = run_rsync(f"{UPLOAD}/manifest.json", server.url(f"inbox-{HOST}"), cwd=upload)
    finally:
        secrets.chmod(0o600)
    assert "auth failed" in done.stderr
