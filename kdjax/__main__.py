"""`python -m kdjax` is the `kdjax` command."""

from kdjax.cli.main import main

main()
