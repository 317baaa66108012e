"""Owners and modes of an instance's files: compared with what they have to be, and mended.

The directories belong to the server's account, which nobody trusts: it may put links and names of
other files there. So no link is followed that lies elsewhere than in a directory of root, what was
looked at is what is changed, and a file that has a second name is not given away.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ansible_collections.proven.redis.plugins.module_utils.redis_disk import data_names
from ansible_collections.proven.redis.plugins.module_utils.redis_move import acting_as

_OTHERS = 0o007
_MAX_LINKS = 40  # as the kernel has it
_BENEATH = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class Files(NamedTuple):
    """Where the files of an instance are; an empty path is none."""

    config_file: str
    acl_file: str
    log_file: str
    dir: str
    dbfilename: str
    appenddirname: str
    appendfilename: str

    @classmethod
    def of(cls, instance: Mapping[str, str], values: Mapping[str, str]) -> Files:
        """Those of an instance with these settings."""
        return cls(
            config_file=instance["config_file"],
            acl_file=values.get("aclfile", ""),
            log_file=instance["log_file"],
            dir=values.get("dir", ""),
            **data_names(values),
        )


class Attributes(NamedTuple):
    """Owner and mode of a file."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, found: os.stat_result) -> Attributes:
        return cls(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))

    def __str__(self) -> str:
        user, group = str(self.uid), str(self.gid)
        # Where it has no name, its number has to do.
        with suppress(KeyError):
            user = pwd.getpwuid(self.uid).pw_name
        with suppress(KeyError):
            group = grp.getgrgid(self.gid).gr_name
        return f"{user}:{group} {self.mode:04o}"


class Deviation(NamedTuple):
    """A file that has another owner or mode than it has to have."""

    path: str
    found: Attributes
    wanted: Attributes
    names: int  # of the file, in the file system

    @property
    def objection(self) -> str:
        """Why it is not mended; empty where it is."""
        if self.names == 1 or self.found.uid == self.wanted.uid:
            return ""
        return (
            f"{self.path} belongs to {self.found} and has another name (a hard link) "
            "elsewhere: it may be somebody else's file. Replace it by a copy that belongs to "
            f"{self.wanted}."
        )


# --- what is right ---------------------------------------------------------------------------

# Owner and mode that a file has to have, from those that it has.
Rule = Callable[[Attributes, pwd.struct_passwd], Attributes]


def as_written(_found: Attributes, account: pwd.struct_passwd) -> Attributes:
    """What the role writes, secrets in it: exactly so."""
    return Attributes(account.pw_uid, account.pw_gid, 0o640)


def as_data(found: Attributes, account: pwd.struct_passwd) -> Attributes:
    """What the server writes: its own, and closed to others."""
    return Attributes(account.pw_uid, account.pw_gid, (found.mode | 0o600) & ~_OTHERS)


def as_data_directory(found: Attributes, account: pwd.struct_passwd) -> Attributes:
    return as_data(found._replace(mode=found.mode | 0o700), account)


def as_log(found: Attributes, account: pwd.struct_passwd) -> Attributes:
    """The server's own; who else reads it is the administrator's choice, root's group is none."""
    return Attributes(account.pw_uid, found.gid or account.pw_gid, found.mode | 0o600)


def as_directory_of_package(found: Attributes, account: pwd.struct_passwd) -> Attributes:
    """As the package made it, as long as the account can use it by owner or by group."""
    shift = 6 if found.uid == account.pw_uid else 3 if found.gid == account.pw_gid else None
    if shift is not None and found.mode >> shift & 0o7 == 0o7:
        return found
    return Attributes(account.pw_uid, found.gid or account.pw_gid, found.mode | 0o700)


_OF_DIRECTORIES = (as_data_directory, as_directory_of_package)

# --- looking and mending ---------------------------------------------------------------------


def deviations(files: Files, account: pwd.struct_passwd, mend: bool = False) -> list[Deviation]:
    """What is not as it has to be. Links and what is neither file nor directory are left out: they
    are nothing that this role made.

    Args:
        files: of the instance.
        account: of the server.
        mend: whether to mend them, but for those with an objection.

    Raises:
        OSError: a directory cannot be read, or one of them is swapped for a link meanwhile.
    """
    found = []
    for folder, names in _listed(files):
        with _directory(folder) as handle:
            if handle is None:
                continue
            for name, rule in names:
                found += _look(handle, folder, name, rule, account, mend)
            if folder == files.dir and files.dir:
                found += _append_only(handle, files, account, mend)
    return found


def _listed(files: Files) -> Iterator[tuple[str, list[tuple[str, Rule]]]]:
    """The files by their directories. The data directory itself is made by the role."""
    config = os.path.split(files.config_file)
    yield (
        config[0],
        [
            ("", as_directory_of_package),
            (config[1], as_written),
            (config[1] + ".previous", as_written),
        ],
    )
    if files.acl_file:
        folder, name = os.path.split(files.acl_file)
        yield folder, [(name, as_written)]
    folder, name = os.path.split(files.log_file)
    yield folder, [("", as_directory_of_package), (name, as_log)]
    if files.dir:
        yield files.dir, [(files.dbfilename, as_data), (files.appendfilename, as_data)]


def _append_only(
    folder: int, files: Files, account: pwd.struct_passwd, mend: bool
) -> list[Deviation]:
    """The directory of the append-only file, and its parts."""
    path = os.path.join(files.dir, files.appenddirname)
    found = _look(folder, files.dir, files.appenddirname, as_data_directory, account, mend)
    try:
        handle = os.open(files.appenddirname, _BENEATH | os.O_DIRECTORY, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return found
        raise
    try:
        for name in sorted(os.listdir(handle)):
            if name.startswith(files.appendfilename):
                found += _look(handle, path, name, as_data, account, mend)
    finally:
        os.close(handle)
    return found


@contextmanager
def _directory(path: str) -> Iterator[int | None]:
    """A directory, entered step by step; None where it is absent."""
    handle = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        steps, links = path.split("/")[::-1], 0
        while steps:
            step, before = steps.pop(), handle
            if step in ("", "."):
                continue
            try:
                handle = os.open(step, _BENEATH | os.O_DIRECTORY, dir_fd=before)
            except FileNotFoundError:
                yield None
                return
            except OSError as error:
                links += 1
                if not _is_trusted_link(step, before, links):
                    raise OSError(error.errno, error.strerror, path) from None
                target = os.readlink(step, dir_fd=before)
                steps += target.split("/")[::-1]
                if not target.startswith("/"):
                    continue
                handle = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.close(before)
        yield handle
    finally:
        os.close(handle)


def _is_trusted_link(name: str, folder: int, links: int) -> bool:
    """Whether it is a link that nobody but root can have made, or can exchange."""
    return (
        links <= _MAX_LINKS
        and os.fstat(folder).st_uid == 0
        and not os.fstat(folder).st_mode & 0o022
        and stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    )


def _look(
    folder: int, where: str, name: str, rule: Rule, account: pwd.struct_passwd, mend: bool
) -> list[Deviation]:
    """One file, or the directory itself when the name is empty."""
    try:
        handle = os.open(name or ".", _BENEATH, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return []
        raise
    try:
        status = os.fstat(handle)
        right_kind = stat.S_ISDIR if rule in _OF_DIRECTORIES else stat.S_ISREG
        if not right_kind(status.st_mode):
            return []
        found = Attributes.of(status)
        wanted = rule(found, account)
        if found == wanted:
            return []
        names = status.st_nlink if stat.S_ISREG(status.st_mode) else 1
        one = Deviation(os.path.join(where, name).rstrip("/"), found, wanted, names)
        if mend and not one.objection:
            os.fchown(handle, wanted.uid, wanted.gid)
            os.fchmod(handle, wanted.mode)
        return [one]
    finally:
        os.close(handle)


# --- what the server could do ----------------------------------------------------------------


def unusable(files: Files, account: pwd.struct_passwd) -> list[str]:
    """What keeps a server of this account from working with its files, as words about each."""
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    with acting_as(account.pw_uid, account.pw_gid, groups):
        problems = list(_problems(files))
    return [f"cannot {verb} {path}{_whose(path)}" for verb, path in problems]


def _problems(files: Files) -> Iterator[tuple[str, str]]:
    for path in (files.config_file, files.acl_file):
        if path and not _opens(path, os.O_RDONLY):
            yield "read", path
    if os.path.lexists(files.log_file):
        if not _opens(files.log_file, os.O_WRONLY | os.O_APPEND):
            yield "write to", files.log_file
    elif not _usable(os.path.dirname(files.log_file)):
        yield "write to", os.path.dirname(files.log_file)
    if not files.dir:
        return
    if not _usable(files.dir):
        yield "write to", files.dir
        return
    rdb = os.path.join(files.dir, files.dbfilename)
    if os.path.lexists(rdb) and not _opens(rdb, os.O_RDONLY):
        yield "read", rdb
    folder = os.path.join(files.dir, files.appenddirname)
    parts = [os.path.join(files.dir, files.appendfilename)]
    if os.path.isdir(folder):
        if not _usable(folder):
            yield "write to", folder
            return
        parts += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    for path in parts:
        name = os.path.basename(path)
        wanted = name.startswith(files.appendfilename) and os.path.lexists(path)
        if wanted and not _opens(path, os.O_RDWR):
            yield "write to", path


def _opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _usable(folder: str) -> bool:
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True)


def _whose(path: str) -> str:
    try:
        return f" ({Attributes.of(os.stat(path))})"
    except OSError:
        return ""
