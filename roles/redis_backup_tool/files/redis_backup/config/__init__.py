"""The configuration in /etc/redis-backup: its form, and reading it strictly.

Run on every host, by each command but `inspect`; the roles write the files.
"""
