"""The `kdjax` command: a file for each of its commands, and `main`, which runs them."""
