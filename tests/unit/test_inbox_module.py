"""What the module redis_backup_inbox writes and reads; Molecule sees what it does."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.proven.redis.plugins.modules import redis_backup_inbox as inbox

MIB = 1024 * 1024


PATHS = ["/var/lib/redis-backup/inbox/redis-1", "/a/.b/c.d_e", "/srv/two words", "/ü/x:y"]


@pytest.mark.parametrize("path", PATHS)
def test_units_are_named_as_systemd_names_them(path: str) -> None:
    expected = {
        PATHS[0]: r"var-lib-redis\x2dbackup-inbox-redis\x2d1.mount",
        PATHS[1]: "a-.b-c.d_e.mount",
        PATHS[2]: r"srv-two\x20words.mount",
        PATHS[3]: r"\xc3\xbc-x:y.mount",
    }
    assert inbox.unit_name(path) == expected[path]
    if shutil.which("systemd-escape"):
        command = ["systemd-escape", "--path", "--suffix=mount", path]
        assert subprocess.check_output(command, text=True).strip() == expected[path]


def test_the_topmost_mount_of_each_place_counts() -> None:
    text = (
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        r"90 22 0:55 / /srv/two\040words rw,nosuid - tmpfs tmpfs rw,size=1024k" + "\n"
        r"91 90 7:0 / /srv/two\040words rw shared:5 master:6 - ext4 /dev/loop0 rw" + "\n"
    )
    found = inbox.mounts(text)
    assert set(found) == {"/", "/srv/two words"}
    assert found["/srv/two words"] == ("7:0", "/srv/two words", "ext4", "/dev/loop0")


def test_sizes_are_whole_and_hold_what_was_asked_for() -> None:
    assert [inbox.whole_mib(size) for size in (0, 1, MIB, MIB + 1)] == [0, MIB, MIB, 2 * MIB]
    assert inbox.inodes(16 * MIB) == 1024
    assert inbox.inodes(4096 * MIB) == 65536


def test_what_an_inbox_holds_is_never_run_or_taken_for_a_device() -> None:
    for image in (None, "/var/lib/redis-backup/images/redis-1.img"):
        text = inbox.unit_text("redis-1", PATHS[0], image, 64 * MIB, 110)
        assert text.startswith(inbox.HEADER)
        [options] = [line for line in text.splitlines() if line.startswith("Options=")]
        assert {"nodev", "nosuid", "noexec"} <= set(options[len("Options=") :].split(","))
        assert "WantedBy=multi-user.target" in text
        # A machine that cannot mount an inbox still starts.
        assert "local-fs" not in text
