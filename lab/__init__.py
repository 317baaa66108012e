"""Test hosts on this machine: systemd containers that Ansible reaches by real ssh.

Standard library only, so that `python3 -m lab` runs before anything is installed.
"""
