#!/usr/bin/python
"""Ansible module: crontab lines of a hand-made backup that would go on beside ours."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_crontabs
short_description: Find crontab lines of a hand-made backup of Redis
description:
  - Reads C(/etc/crontab), C(/etc/cron.d), the crontabs of all users and the scripts in
    C(/etc/cron.hourly) to C(/etc/cron.monthly), and the scripts that a line calls. Changes nothing.
  - Names the lines that have C(redis-cli) save, and those that name the data directory or the
    snapshot. Such a line of the time before this collection gets C(NOAUTH) from a server with a
    password, ends with 0, and copies an old snapshot as if it were a new one.
options:
  data:
    description: Directories that hold the data of Redis.
    type: list
    elements: path
    required: true
  ours:
    description: Crontabs of this collection, which are not looked at.
    type: list
    elements: path
    default: []
  warn:
    description: Whether each line that was found is a warning of the run.
    type: bool
    default: true
  root:
    description: Directory that stands for the root of the file system.
    type: path
    default: /
author:
  - The maintainers of this project
"""

EXAMPLES = r"""
- name: Look for backups that somebody else scheduled
  proven.redis.redis_crontabs:
    data: [/mnt/redis_data]
    ours: [/etc/cron.d/redis-backup-redis]
"""

RETURN = r"""
lines:
  description: What was found, a sentence each.
  type: list
  elements: str
  returned: always
  sample:
    - >-
      /var/spool/cron/crontabs/root line 1 runs /opt/sh/redis_bkup.sh, which runs redis-cli save
      (line 2)
"""

import os
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.proven.redis.plugins.module_utils.crontabs import Job, jobs, script_jobs

SYSTEM = ("etc/crontab", "etc/anacrontab")
DIRECTORIES = ("etc/cron.d",)
SPOOLS = ("var/spool/cron/crontabs", "var/spool/cron")
SCRIPTS = ("etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly")
# A script that somebody wrote is short; a program is not a script.
LONGEST = 256 * 1024

ADVICE = (
    "It was made for the time before this collection: with a password that save is refused, ends"
    " with 0, and an old snapshot is copied as if it were new. redis-backup makes the backups now:"
    " remove the line (docs/runbooks/taking-over-by-hand.md)"
)


def text_of(path: str) -> str | None:
    """The text of a plain file of moderate size; None for anything else."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LONGEST:
            return None
        with open(path, "rb") as file:
            content = file.read(LONGEST)
    except OSError:
        return None
    return None if b"\0" in content else content.decode("utf-8", "replace")


def files_in(directory: str) -> list[str]:
    try:
        return sorted(os.path.join(directory, name) for name in os.listdir(directory))
    except OSError:
        return []


def sentence(job: Job) -> str:
    """One finding in words."""
    if job.where:
        script, _, line = job.where.partition(" line ")
        return f"{job.file} line {job.line} runs {script}, which {job.why} (line {line})"
    return f"{job.file} line {job.line} {job.why}"


def search(root: str, data: list[str], ours: list[str]) -> list[Job]:
    """All jobs on this host that touch Redis or its data."""

    def at(path: str) -> str:
        return os.path.join(root, path.lstrip("/"))

    def shown(path: str) -> str:
        return "/" + os.path.relpath(path, root)

    def read(path: str) -> str | None:
        return text_of(at(path))

    found: list[Job] = []
    system = [at(path) for path in SYSTEM] + [
        path for directory in DIRECTORIES for path in files_in(at(directory))
    ]
    users = [path for directory in SPOOLS for path in files_in(at(directory))]
    for path, names_an_account in [(p, True) for p in system] + [(p, False) for p in users]:
        text = text_of(path)
        if text is not None and shown(path) not in ours:
            found += jobs(shown(path), text, names_an_account, data, read)
    for directory in SCRIPTS:
        for path in files_in(at(directory)):
            text = text_of(path)
            if text is not None:
                found += script_jobs(shown(path), text, data)
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data": {"type": "list", "elements": "path", "required": True},
            "ours": {"type": "list", "elements": "path", "default": []},
            "warn": {"type": "bool", "default": True},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    data = [path.rstrip("/") for path in wanted["data"] if path.rstrip("/")]
    lines = [sentence(job) for job in search(wanted["root"], data, wanted["ours"])]
    if wanted["warn"]:
        for line in lines:
            module.warn(f"{line}. {ADVICE}.")
    module.exit_json(changed=False, lines=lines)


if __name__ == "__main__":
    main()
