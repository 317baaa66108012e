"""What every wing needs: errors with their exit codes, strict JSON, files, output.

Run on every host. Standard library alone.
"""
