"""What a run prints: changes, refusals and what is to be shown, each once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.ansible_runs import ansible

INVENTORY = "[all:vars]\nansible_connection=local\n[all]\nfirst\nsecond\n"


def run(directory: Path, tasks: str, *words: str) -> tuple[int, str]:
    """Exit code and output of a playbook of these tasks, on two hosts that are this one."""
    (directory / "hosts").write_text(INVENTORY, encoding="utf-8")
    indented = "".join(f"    {line}\n" for line in tasks.strip().splitlines())
    text = f"- name: A play\n  hosts: all\n  gather_facts: false\n  tasks:\n{indented}"
    (directory / "play.yml").write_text(text, encoding="utf-8")
    words = ("-i", str(directory / "hosts"), str(directory / "play.yml"), *words)
    done = ansible("ansible-playbook", *words)
    return done.returncode, done.stdout + done.stderr


QUIET = """
- name: Find everything in order
  ansible.builtin.command: "true"
  changed_when: false
- name: Find each in order
  ansible.builtin.command: "true"
  changed_when: false
  loop: [1, 2]
- name: Do what is not needed
  ansible.builtin.command: "true"
  when: false
"""


def test_what_is_right_already_is_not_shown(tmp_path: Path) -> None:
    code, said = run(tmp_path, QUIET)
    assert code == 0
    assert "PLAY [A play]" in said
    assert "TASK" not in said
    assert len(said.splitlines()) < 9
    assert "first                      : ok=2    changed=0" in said


def test_all_of_it_is_shown_on_demand(tmp_path: Path) -> None:
    said = run(tmp_path, QUIET, "-v")[1]
    assert "TASK [Find everything in order]" in said
    assert "skipping: [second]" in said


def test_what_changes_and_what_is_meant_to_be_shown_is(tmp_path: Path) -> None:
    tasks = f"""
- name: Change something
  ansible.builtin.copy: {{content: "new\\n", dest: {tmp_path}/file, mode: "0600"}}
  run_once: true
- name: Change one of two
  ansible.builtin.command: "true"
  changed_when: item == 2
  loop: [1, 2]
- name: Show something
  ansible.builtin.debug: {{msg: "to be seen"}}
  run_once: true
"""
    said = run(tmp_path, tasks, "--diff")[1]
    assert "TASK [Change something]" in said
    assert "+new" in said
    assert "changed: [second] => (item=2)" in said
    assert "(item=1)" not in said
    assert "msg: to be seen" in said


def test_a_warning_is_shown_although_nothing_changed(tmp_path: Path) -> None:
    tasks = f"""
- name: Name the backups that somebody else scheduled
  proven.redis.redis_crontabs: {{data: [/mnt/redis_data], root: {tmp_path}}}
"""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "crontab").write_text("5 0 * * * root redis-cli save\n", encoding="utf-8")
    said = " ".join(run(tmp_path, tasks)[1].split())
    assert "/etc/crontab line 1 runs redis-cli save." in said
    assert "ok=1 changed=0" in said


REFUSAL = """
- name: Refuse
  ansible.builtin.assert: {that: false, fail_msg: Nothing was changed. It is late., quiet: true}
"""


@pytest.mark.parametrize("words", [[], ["--check"]])
def test_a_refusal_is_shown_once(tmp_path: Path, words: list[str]) -> None:
    code, said = run(tmp_path, REFUSAL, *words)
    assert code == 2
    assert said.count("Nothing was changed. It is late.") == 1
    # Whichever host is done first.
    assert re.search("fatal: .(first|second).: FAILED! => the same as (first|second)", said)


def test_refusals_that_differ_are_all_shown(tmp_path: Path) -> None:
    tasks = """
- name: Refuse
  ansible.builtin.fail: {msg: "{{ inventory_hostname }} is late"}
"""
    said = run(tmp_path, tasks)[1]
    assert said.count("first is late") == said.count("second is late") == 1


def test_what_went_wrong_by_itself_is_shown_as_ever(tmp_path: Path) -> None:
    tasks = """
- name: Break
  ansible.builtin.command: /no/such/program
- name: Ask for what is not there
  ansible.builtin.debug: {msg: "{{ no_such_variable }}"}
"""
    said = run(tmp_path, tasks)[1]
    assert "[ERROR]: Task failed" in said
    assert "FAILED! =>" in said
