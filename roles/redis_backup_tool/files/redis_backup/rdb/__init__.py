"""The RDB format: a strict walk of a file, its values, checksums and compression.

Run on every host, by whatever makes, takes or restores a backup. Standard library alone.
"""
