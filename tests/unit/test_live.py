"""What the Molecule scenarios rely on, where no hosts are needed to show it."""

from __future__ import annotations

import subprocess

from tests.support import live, processes


def test_what_a_killed_play_began_ends_with_it() -> None:
    """Ansible's workers lead sessions of their own."""
    worker = "sleep 60 & echo begun; wait"
    play = subprocess.Popen(
        ["sh", "-c", 'setsid --wait sh -c "$1" & wait', "-", worker],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with play:
        assert play.stdout is not None
        assert play.stdout.readline() == b"begun\n"
        begun = {process.pid for process in processes.below(play.pid)}
        assert len(begun) > 1
        live.end(play.pid)
        assert not begun & {process.pid for process in processes.running()}
