#!/usr/bin/python
"""Ansible module: the inbox of one host on a file system of its own, of a size that it cannot
exceed.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_backup_inbox
short_description: Keep what one host uploads on a file system of its own
description:
  - Makes the directory into which one host uploads and, with a size, mounts a file system of that
    size there, by a systemd mount unit. What fills one inbox reaches neither the others nor the
    store.
  - The directory below is root's, so that nothing is written where the file system is missing.
  - A file system of the same place that somebody else has mounted is used as it is.
  - An upload is never lost. A larger size is given to the mounted file system, a smaller one is
    refused where what lies in it would not fit. Anything else waits until the inbox is empty.
options:
  state:
    description: >-
      V(present) makes the inbox O(host). V(pruned) removes the file systems of all hosts that are
      not in O(hosts); what still holds an upload stays, with a warning.
    type: str
    choices: [present, pruned]
    default: present
  root:
    description: Directory of all inboxes.
    type: path
    required: true
  images:
    description: Directory of the files that hold the file systems of O(backing=loop).
    type: path
    required: true
  host:
    description: Name of the host, and of its inbox.
    type: str
  hosts:
    description: All hosts whose file systems stay.
    type: list
    elements: str
  user:
    description: Account that receives and accepts uploads, and its group.
    type: str
  size:
    description: >-
      Bytes that the inbox can hold, rounded up to MiB. 0 makes a directory, without a limit.
    type: int
    default: 0
  backing:
    description: >-
      V(loop) keeps the file system in a file whose room is taken at once; V(tmpfs) keeps it in
      memory.
    type: str
    choices: [loop, tmpfs]
    default: loop
  accept_unit:
    description: Unit that empties the inbox of complete uploads.
    type: str
    default: redis-backup-accept.service
  daemon:
    description: Unit that uploads come through.
    type: str
    default: redis-backup-rsyncd.service
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Give redis-1 an inbox of 4 GiB
  redis_backup_inbox:
    root: /var/lib/redis-backup/inbox
    images: /var/lib/redis-backup/images
    host: redis-1
    user: redis-backup
    size: 4294967296
"""

RETURN = r"""
does:
  description: What was done, or would be done in check mode.
  type: list
  elements: str
  returned: success
"""

import os
import pwd
import re
import stat
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils.whole_file import write_bytes

MIB = 1024 * 1024
# ext4 with its journal has no room for an upload in less.
SMALLEST = 16 * MIB
# One inode for so many bytes: a flood of empty files ends there, and costs tmpfs no memory.
BYTES_PER_INODE = 65536
MODE = 0o750
UNITS = "/etc/systemd/system"
LOOP = "/dev/loop-control"
HEADER = "# Made by the role redis_backup_server. Changes are lost."


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo."""

    device: str
    where: str
    kind: str
    source: str


def unit_name(path: str) -> str:
    """The name of the mount unit of a path, as systemd-escape(1) makes it."""
    parts = []
    for index, character in enumerate(path.strip("/")):
        if character == "/":
            parts.append("-")
        elif re.match(r"[A-Za-z0-9_:]", character) or (character == "." and index > 0):
            parts.append(character)
        else:
            parts.append("".join(f"\\x{byte:02x}" for byte in character.encode()))
    return "".join(parts) + ".mount"


def whole_mib(size: int) -> int:
    """The size of a file system that holds so many bytes: whole MiB."""
    return -(-size // MIB) * MIB


def inodes(size: int) -> int:
    """How many files and directories an inbox of this size may hold."""
    return max(size // BYTES_PER_INODE, 1024)


def mounts(text: str) -> dict[str, Mount]:
    """What is mounted where, the topmost of each place, from the text of /proc/self/mountinfo."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        device, _, place = before.split()[2:5]
        where = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place)
        kind, source = after.split()[:2]
        found[where] = Mount(device, where, kind, source)
    return found


def unit_text(host: str, where: str, image: str | None, size: int, uid: int) -> str:
    """The mount unit of an inbox: of an image, or of memory when there is none."""
    common = "nodev,nosuid,noexec"
    if image is None:
        options = f"size={size},nr_inodes={inodes(size)},mode=0750,uid={uid},gid=0,{common}"
        mount = f"What=tmpfs\nWhere={where}\nType=tmpfs\nOptions={options}"
    else:
        options = f"loop,noatime,noinit_itable,errors=remount-ro,{common}"
        mount = f"What={image}\nWhere={where}\nType=ext4\nOptions={options}"
    return (
        f"{HEADER}\n[Unit]\nDescription=Inbox of {host} for backups of Redis,"
        f" {size // MIB} MiB\nBefore=redis-backup-rsyncd.service\n\n"
        f"[Mount]\n{mount}\n\n[Install]\nWantedBy=multi-user.target\n"
    )


def read(path: str) -> str | None:
    """The text of a file, None when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def is_ours(unit: str) -> bool:
    """Whether this module has written a mount unit."""
    return (read(f"{UNITS}/{unit}") or "").startswith(HEADER)


class Inbox:
    """The inbox of one host: its directory, unit and image."""

    def __init__(self, module: AnsibleModule, host: str, does: list[str]) -> None:
        self.module = module
        self.wanted: dict[str, Any] = module.params
        self.host = host
        self.does = does
        # systemd takes no mount point that a symbolic link leads to.
        self.where = os.path.join(os.path.realpath(self.wanted["root"]), host)
        self.image = os.path.join(os.path.realpath(self.wanted["images"]), f"{host}.img")
        self.unit = unit_name(self.where)
        self.unit_path = f"{UNITS}/{self.unit}"

    # --- what is there ---

    def mounted(self, process: str = "self") -> Mount | None:
        with open(f"/proc/{process}/mountinfo", encoding="utf-8") as file:
            return mounts(file.read()).get(self.where)

    def show_daemon(self) -> None:
        """See that the rsync daemon, whose view of the file systems is its own, has the same here.
        Where mounts do not spread (in containers) it has to be started anew.
        """
        show = ["systemctl", "show", "--property", "MainPID", "--value", self.wanted["daemon"]]
        process = self.module.run_command(show)[1].strip()
        if process in ("", "0") or self.mounted(process) == self.mounted():
            return
        self.does.append(f"restarts {self.wanted['daemon']}, which saw another file system there")
        if not self.module.check_mode:
            self.run("systemctl", "restart", self.wanted["daemon"])

    def entries(self) -> list[str]:
        try:
            return sorted(set(os.listdir(self.where)) - {"lost+found"})
        except FileNotFoundError:
            return []

    # --- doing ---

    def run(self, *words: str, codes: tuple[int, ...] = (0,), meaning: str = "") -> str:
        code, output, error = self.module.run_command(list(words))
        if code not in codes:
            said = (error or output).strip()
            self.module.fail_json(
                msg=f"{self.host}: `{' '.join(words)}` failed: {said}. {meaning}".strip()
            )
        return str(output)

    def refuse(self, text: str) -> None:
        self.module.fail_json(msg=f"The inbox of {self.host} was left as it was: {text}")

    def own(self, uid: int, gid: int) -> bool:
        """Give the directory that is visible now its owner and mode; whether that was a change."""
        seen = os.stat(self.where)
        if (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)) == (uid, gid, MODE):
            return False
        if not self.module.check_mode:
            os.chown(self.where, uid, gid)
            os.chmod(self.where, MODE)
        return True

    def open_to(self, account: pwd.struct_passwd) -> bool:
        """For the account; the daemon enters it as root, of which it has kept the group alone."""
        return self.own(account.pw_uid, 0)

    def close_to(self, account: pwd.struct_passwd) -> bool:
        """For nobody to write into."""
        return self.own(0, account.pw_gid)

    def empty(self, account: pwd.struct_passwd, purpose: str) -> None:
        """Close the inbox to its host and see that nothing is in it; open it again otherwise."""
        if not os.path.isdir(self.where):
            return
        for attempt in range(2):
            # From here on nothing new can appear at its top, so that what is empty stays so.
            self.close_to(account)
            left = self.entries()
            if not left:
                return
            self.open_to(account)
            if attempt == 0:
                self.module.run_command(["systemctl", "start", self.wanted["accept_unit"]])
        self.refuse(
            f"{purpose} needs it to be empty, and {len(left)} uploads are in it that were not"
            f" accepted ({', '.join(left[:3])}). `journalctl -u {self.wanted['accept_unit']}` says"
            " why. Unfinished ones are removed after redis_backup_server_inbox_max_age. Run this"
            " again then."
        )

    def unmount(self) -> None:
        self.run(
            "systemctl", "stop", self.unit, meaning="Is a transfer under way? Run this again later."
        )
        if self.mounted():
            self.refuse(f"{self.where} is still mounted after `systemctl stop {self.unit}`.")

    def write_unit(self, text: str) -> None:
        if read(self.unit_path) != text:
            write_bytes(self.unit_path, text.encode(), 0o644, 0, 0)
        # Always: a run that was killed here has told systemd nothing.
        self.run("systemctl", "daemon-reload")

    def remove(self, image: bool = True) -> None:
        """Take the file system away; the directory stays."""
        if self.mounted():
            self.unmount()
        self.run("systemctl", "disable", self.unit, codes=(0, 1))
        os.unlink(self.unit_path)
        if image and os.path.exists(self.image):
            os.unlink(self.image)
        self.run("systemctl", "daemon-reload")

    # --- an inbox without a limit ---

    def as_directory(self, account: pwd.struct_passwd) -> None:
        if is_ours(self.unit):
            self.does.append("removes the limit")
            if not self.module.check_mode:
                self.empty(account, "taking its limit away")
                self.remove()
        if not os.path.isdir(self.where):
            self.does.append("makes the directory")
            if self.module.check_mode:
                return
            os.mkdir(self.where, MODE)
        if self.open_to(account) and not self.does:
            self.does.append("sets owner and mode")

    # --- an inbox of a limited size ---

    def as_file_system(self, account: pwd.struct_passwd, size: int) -> None:
        loop = self.wanted["backing"] == "loop"
        text = unit_text(
            self.host,
            self.where,
            self.image if loop else None,
            size,
            account.pw_uid,
        )
        mount = self.mounted()
        ours = is_ours(self.unit)
        if mount and not ours:
            # Somebody's own volume is a limit too.
            if self.open_to(account):
                self.does.append("sets owner and mode of what is mounted there")
            return
        if mount and read(self.unit_path) == text and self.fits(size, loop):
            if self.open_to(account):
                self.does.append("sets owner and mode")
            return
        kind = "ext4" if loop else "tmpfs"
        self.does.append(
            f"makes it {size // MIB} MiB"
            if mount and mount.kind == kind
            else f"mounts {size // MIB} MiB ({self.wanted['backing']})"
        )
        if self.module.check_mode:
            return
        same = mount if mount and mount.kind == kind else None
        # First what may be refused, with the inbox open as it was.
        if loop:
            self.make_image(account, size, same)
        if mount and not same:
            self.empty(account, "another backing")
            self.remove(image=not loop)
        if not same:
            self.empty(account, "mounting a file system there")
            os.makedirs(self.where, MODE, exist_ok=True)
            # Where the file system is missing, nothing may be written in its place.
            self.close_to(account)
        elif not loop:
            self.run(
                "mount",
                "-o",
                f"remount,size={size},nr_inodes={inodes(size)}",
                self.where,
                meaning="What lies in the inbox does not fit: run this again when it is accepted.",
            )
        self.write_unit(text)
        self.run("systemctl", "enable", "--quiet", self.unit)
        self.run("systemctl", "start", self.unit)
        if not self.mounted():
            self.refuse(f"`systemctl start {self.unit}` succeeded, but nothing is mounted there.")
        if os.path.isdir(f"{self.where}/lost+found"):
            os.rmdir(f"{self.where}/lost+found")
        self.open_to(account)

    def fits(self, size: int, loop: bool) -> bool:
        """Whether the mounted file system has the size; of ext4 the file tells."""
        if loop:
            return os.path.exists(self.image) and os.stat(self.image).st_size == size
        status = os.statvfs(self.where)
        return status.f_blocks * status.f_frsize == size

    def make_image(self, account: pwd.struct_passwd, size: int, mount: Mount | None) -> None:
        """Make the image, or make it larger (mounted or not) or smaller (not mounted)."""
        for program in ("losetup", "mkfs.ext4", "e2fsck", "resize2fs"):
            self.module.get_bin_path(program, required=True)
        os.makedirs(os.path.dirname(self.image), 0o700, exist_ok=True)
        if not os.path.exists(self.image):
            self.make_new_image(account, size)
            return
        now = os.stat(self.image).st_size
        if now > size:
            if mount:
                self.unmount()
            self.run("e2fsck", "-fp", self.image, codes=(0, 1))
            code, _, error = self.module.run_command(["resize2fs", self.image, f"{size // MIB}M"])
            if code != 0:
                if mount:
                    self.run("systemctl", "start", self.unit)
                self.refuse(
                    f"what lies in it does not fit into {size // MIB} MiB ({error.strip()}). Run"
                    " this again when it is accepted."
                )
            os.truncate(self.image, size)
            return
        self.take_room(self.image, now, size)
        if mount:
            self.run("losetup", "--set-capacity", mount.source)
            if self.module.run_command(["resize2fs", mount.source])[0] == 0:
                return
            # The kernel lets only some make a mounted one larger (containers have not the right).
            self.unmount()
        self.run("e2fsck", "-fp", self.image, codes=(0, 1))
        self.run("resize2fs", self.image)

    def make_new_image(self, account: pwd.struct_passwd, size: int) -> None:
        if not os.path.exists(LOOP) and self.module.get_bin_path("modprobe"):
            self.module.run_command(["modprobe", "loop"])
        if not os.path.exists(LOOP):
            self.refuse(
                "this machine has no loop devices (is it a container?). Set"
                " redis_backup_server_inbox_backing to tmpfs, which needs memory, mount a volume"
                f" at {self.where} yourself, or set the size of the inbox to 0."
            )
        temporary = f"{self.image}.new"
        if os.path.exists(temporary):
            os.unlink(temporary)
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        self.take_room(temporary, 0, size)
        self.run(
            "mkfs.ext4",
            "-q",
            "-m",
            "0",
            "-i",
            str(BYTES_PER_INODE),
            "-E",
            f"root_owner={account.pw_uid}:0,nodiscard,lazy_itable_init=0",
            temporary,
        )
        # Where zeros were written, there are holes now.
        self.take_room(temporary, size, size)
        os.replace(temporary, self.image)

    def take_room(self, path: str, now: int, size: int) -> None:
        """Make a file larger. Its room is taken at once, so that a host that fills its inbox
        takes nothing from the store."""
        status = os.statvfs(os.path.dirname(path))
        free = status.f_bavail * status.f_frsize
        if free < size - now:
            if now == 0:
                os.unlink(path)
            self.refuse(
                f"{os.path.dirname(path)} has {free // MIB} MiB free,"
                f" {(size - now) // MIB} are needed. Make room, or set a smaller"
                " redis_backup_inbox_size."
            )
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)


def account_of(module: AnsibleModule) -> pwd.struct_passwd | None:
    """The account, None when it will be made by what check mode only pretends to do."""
    try:
        return pwd.getpwnam(module.params["user"])
    except KeyError:
        if module.check_mode:
            return None
        module.fail_json(msg=f"There is no account {module.params['user']}.")
        raise


def present(module: AnsibleModule, does: list[str]) -> None:
    size = whole_mib(module.params["size"])
    if 0 < size < SMALLEST or module.params["size"] < 0:
        module.fail_json(
            msg=f"An inbox of {module.params['size']} bytes is too small: 0 for no limit, or"
            f" {SMALLEST} and more."
        )
    account = account_of(module)
    if account is None:
        does.append("makes the inbox")
        return
    inbox = Inbox(module, module.params["host"], does)
    if size == 0:
        inbox.as_directory(account)
    else:
        inbox.as_file_system(account, size)
    inbox.show_daemon()


def pruned(module: AnsibleModule, does: list[str]) -> None:
    root = os.path.realpath(module.params["root"])
    if not os.path.isdir(root):
        return
    for host in sorted(set(os.listdir(root)) - set(module.params["hosts"])):
        inbox = Inbox(module, host, does)
        if not is_ours(inbox.unit):
            continue
        left = inbox.entries()
        if left:
            module.warn(
                f"{host} left the inventory, but {len(left)} uploads that were never accepted are"
                f" in {inbox.where}: remove them there, and the next run removes its file system."
            )
            continue
        does.append(f"removes the inbox of {host}")
        if not module.check_mode:
            inbox.remove()
            inbox.show_daemon()
            os.rmdir(inbox.where)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "pruned"], "default": "present"},
            "root": {"type": "path", "required": True},
            "images": {"type": "path", "required": True},
            "host": {"type": "str"},
            "hosts": {"type": "list", "elements": "str"},
            "user": {"type": "str"},
            "size": {"type": "int", "default": 0},
            "backing": {"type": "str", "choices": ["loop", "tmpfs"], "default": "loop"},
            "daemon": {"type": "str", "default": "redis-backup-rsyncd.service"},
            "accept_unit": {"type": "str", "default": "redis-backup-accept.service"},
        },
        required_if=[("state", "present", ("host", "user")), ("state", "pruned", ("hosts",))],
        supports_check_mode=True,
    )
    does: list[str] = []
    if module.params["state"] == "present":
        present(module, does)
    else:
        pruned(module, does)
    module.exit_json(changed=bool(does), does=does)


if __name__ == "__main__":
    main()
