"""What each command prints with `--json`."""
