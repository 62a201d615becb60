"""`python -m mapfs` is the `mapfs` command."""

from mapfs.cli import main

main()
