#!/usr/bin/python
"""Ansible module: the directories and small files of a role, in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_files
short_description: Make the directories and small files of a role, in one round trip
description:
  - Does for a list what M(ansible.builtin.file) and M(ansible.builtin.template) do for one each,
    which costs up to two round trips for each of them, on every run.
  - A file is written whole or not at all, and has its mode and owner before it has its name.
  - Nothing is changed where any of the accounts is unknown, any path is of another kind, or a file
    does not pass its validation.
  - Missing parents of a directory are made as root's, open to read.
  - An existing directory is not taken from others. One of the system, such as V(/srv), is left as
    it is, and so is one that would get another owner or group and has files of others in it.
options:
  directories:
    description: Directories, made in this order, and before the files.
    type: list
    elements: dict
    default: []
    suboptions:
      holds:
        description: >-
          Patterns of the names that the owner keeps in the directory, as a shell has them. They
          are no files of others, whoever owns them now.
        type: list
        elements: str
        default: []
      variable:
        description: Name of the variable that says the path, for the message.
        type: str
      path: &path
        description: >-
          Absolute path. A link to a directory is followed if it is root's; a link in the place of
          a file is an error.
        type: str
        required: true
      owner: &owner
        description: Name of the account that owns it.
        type: str
        default: root
      group: &group
        description: Name of its group.
        type: str
        default: root
      mode: &mode
        description: Mode as octal digits, such as V("0750").
        type: str
        required: true
  files:
    description: Files, written in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      path: *path
      owner: *owner
      group: *group
      mode: *mode
      content:
        description: All that is in it. Without it, it is in O(secrets).
        type: str
      ignore_comments:
        description: >-
          Whether a file that differs in nothing but blank lines and comments, from V(#) or V(;) on,
          is right as it is.
        type: bool
        default: false
      validate:
        description: Command that has to end with 0 before the file is put in place; V(%s) is it.
        type: str
  secrets:
    description: >-
      All that is in files whose content is not to be shown or logged, by their path. In a list
      they could not be: the log of what was invoked has a list as one text, with its line ends
      escaped, and secrets are not recognised in it.
    type: dict
    default: {}
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Configure the tool
  proven.redis.managed_files:
    directories:
      - path: /etc/tool
        mode: "0755"
    files:
      - path: /etc/tool/tool.conf
        content: "{{ lookup('ansible.builtin.template', 'tool.conf.j2') }}"
        mode: "0644"
"""

RETURN = r"""
paths:
  description: Paths of what was changed, or would be in check mode.
  type: list
  elements: str
  returned: always
created:
  description: Those of them that were not there.
  type: list
  elements: str
  returned: always
modified:
  description: When each file was last written, in seconds since 1970; not those that are absent.
  type: dict
  returned: always
"""

import contextlib
import grp
import os
import pwd
import shlex
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils.directories import forgets, objection
from ansible_collections.proven.redis.plugins.module_utils.whole_file import (
    read_bytes,
    write_beside,
    write_bytes,
)

HIDDEN = "(not shown)\n"


class RefusedError(Exception):
    """Something cannot be made as asked; the text says why."""


def without_comments(content: bytes) -> list[bytes]:
    """The lines of a file that say something to systemd."""
    lines = (line.strip() for line in content.splitlines())
    return [line for line in lines if line and not line.startswith((b"#", b";"))]


class Entry:
    """One directory or file: what is there, and what is wanted.

    Raises:
        RefusedError: what is there is of another kind, or an account is unknown.
    """

    def __init__(
        self, wanted: dict[str, Any], is_file: bool, secret: str | None, check_mode: bool
    ) -> None:
        self.path = str(wanted["path"])
        if not os.path.isabs(self.path) or any(ord(letter) < 32 for letter in self.path):
            raise RefusedError(f"{self.path!r} is no absolute path without control characters.")
        self.is_file = is_file
        self.owner, self.group = str(wanted["owner"]), str(wanted["group"])
        self.mode = self._octal(str(wanted["mode"]))
        # A dry run on a new host: the account comes with a package, or an earlier task.
        self.uid = self._number(self.owner, "account", check_mode)
        self.gid = self._number(self.group, "group", check_mode)
        self.validate = wanted.get("validate")
        self.is_secret = secret is not None
        if is_file and self.is_secret == (wanted["content"] is not None):
            raise RefusedError(f"{self.path} has to be given either a content or a secret.")
        text = secret if self.is_secret else wanted.get("content")
        self.content = str(text).encode() if is_file else None
        self.found = self._look()
        if not is_file:
            problem = objection(self.path, self.uid, self.gid, self.mode, wanted["holds"])
            if wanted["variable"]:  # somebody's choice of where things are to last
                problem = forgets(self.path) or problem
            if problem:
                correct = f" Correct {wanted['variable']}." if wanted["variable"] else ""
                raise RefusedError(problem + correct)
        self.found_content = read_bytes(self.path) if is_file and self.found else None
        if (
            wanted.get("ignore_comments")
            and self.content is not None
            and self.found_content is not None
            and without_comments(self.content) == without_comments(self.found_content)
        ):
            self.content = self.found_content

    def _octal(self, text: str) -> int:
        try:
            mode = int(text, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o7777:
            raise RefusedError(f"{self.path}: the mode {text!r} is no octal number such as 0640.")
        return mode

    def _number(self, name: str, kind: str, check_mode: bool) -> int | None:
        try:
            return pwd.getpwnam(name).pw_uid if kind == "account" else grp.getgrnam(name).gr_gid
        except KeyError:
            if check_mode:
                return None
            raise RefusedError(f"{self.path}: this host knows no {kind} {name!r}.") from None

    def _look(self) -> os.stat_result | None:
        """What is there; None where nothing is."""
        self.is_link = False
        try:
            found = os.lstat(self.path)
            if not self.is_file and stat.S_ISLNK(found.st_mode) and found.st_uid == 0:
                self.is_link = True
                found = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        right = stat.S_ISREG if self.is_file else stat.S_ISDIR
        if not right(found.st_mode):
            kind = "plain file" if self.is_file else "directory (or root's link to one)"
            raise RefusedError(f"{self.path} has to be a {kind}, and is something else.")
        return found

    @property
    def other_attributes(self) -> bool:
        """Whether mode, owner or group are others than wanted."""
        return self.found is not None and (
            stat.S_IMODE(self.found.st_mode),
            self.found.st_uid,
            self.found.st_gid,
        ) != (self.mode, self.uid, self.gid)

    @property
    def other_content(self) -> bool:
        return self.found_content != self.content

    @property
    def differs(self) -> bool:
        return self.found is None or self.other_attributes or self.other_content

    def make(self) -> None:
        """Make it what is wanted. The accounts are known by now."""
        uid, gid = self.uid, self.gid
        assert uid is not None and gid is not None  # noqa: PT018  # for the types
        if self.content is not None:
            write_bytes(self.path, self.content, self.mode, uid, gid)
            return
        if self.found is None:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            os.mkdir(self.path, mode=0o700)
        # What was looked at is what is changed: somebody else may own the directory above.
        follow = 0 if self.is_link else os.O_NOFOLLOW
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow)
        try:
            if self.found is not None and not os.path.samestat(os.fstat(handle), self.found):
                raise RefusedError(f"{self.path} was replaced by another directory meanwhile.")
            os.fchown(handle, uid, gid)
            os.fchmod(handle, self.mode)
        finally:
            os.close(handle)

    def attributes(self) -> str:
        """Owner, group and mode of what is there, as a line."""
        if self.found is None:
            return ""
        owner: str | int = self.found.st_uid
        group: str | int = self.found.st_gid
        # Where it has no name, its number has to do.
        with contextlib.suppress(KeyError):
            owner = pwd.getpwuid(self.found.st_uid).pw_name
        with contextlib.suppress(KeyError):
            group = grp.getgrgid(self.found.st_gid).gr_name
        return f"{owner}:{group} {stat.S_IMODE(self.found.st_mode):04o}\n"

    def diffs(self) -> list[dict[str, str]]:
        """What `--diff` shows of it."""
        header = {"before_header": self.path, "after_header": self.path}
        shown = []
        if self.found is None or self.other_attributes:
            wanted = f"{self.owner}:{self.group} {self.mode:04o}\n"
            shown.append({**header, "before": self.attributes(), "after": wanted})
        if self.content is not None and self.other_content:
            before, after = (self.found_content or b"").decode(errors="replace"), HIDDEN
            if self.is_secret:
                before = "(another one, not shown)\n" if before else ""
            else:
                after = self.content.decode()
            shown.append({**header, "before": before, "after": after})
        return shown


def check(module: AnsibleModule, entry: Entry) -> None:
    """Run the validation of a file on what is to be written.

    Raises:
        RefusedError: it does not pass.
    """
    if not entry.validate or entry.content is None or not entry.other_content:
        return
    temporary = write_beside(entry.path, entry.content, 0o600, os.getuid(), os.getgid())
    try:
        command = [word.replace("%s", temporary) for word in shlex.split(entry.validate)]
        status, output, errors = module.run_command(command)
    finally:
        os.unlink(temporary)
    if status != 0:
        raise RefusedError(
            f"{entry.path}: `{entry.validate}` refuses what was to be written, with status "
            f"{status}: {(errors or output).strip()}"
        )


def main() -> None:
    attributes = {
        "path": {"type": "str", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "str", "required": True},
    }
    contents = {
        "content": {"type": "str"},
        "ignore_comments": {"type": "bool", "default": False},
        "validate": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **attributes,
                    "holds": {"type": "list", "elements": "str", "default": []},
                    "variable": {"type": "str"},
                },
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**attributes, **contents},
            },
            "secrets": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    # Parents that have to be made are for everybody to pass, whatever root's own habit is.
    os.umask(0o022)
    secrets = module.params["secrets"]
    wanted = [(item, False) for item in module.params["directories"]]
    wanted += [(item, True) for item in module.params["files"]]
    made: list[str] = []
    try:
        entries = [
            Entry(item, is_file, secrets.get(item["path"]), module.check_mode)
            for item, is_file in wanted
        ]
        changes = [entry for entry in entries if entry.differs]
        paths = [entry.path for entry in changes]
        if not module.check_mode:
            for entry in changes:
                check(module, entry)
            for entry in changes:
                entry.make()
                made.append(entry.path)
    except (RefusedError, OSError) as error:
        known = f"{', '.join(made)} was changed already." if made else "Nothing was changed."
        where = f" On the way to {paths[len(made)]}:" if made else ""
        module.fail_json(msg=f"{known}{where} {error}")
    module.exit_json(
        changed=bool(paths),
        paths=paths,
        created=[entry.path for entry in changes if entry.found is None],
        modified={
            entry.path: os.stat(entry.path).st_mtime
            for entry in entries
            if entry.is_file and os.path.exists(entry.path)
        },
        diff=[diff for entry in changes for diff in entry.diffs()],
    )


if __name__ == "__main__":
    main()
