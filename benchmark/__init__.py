"""Measures mapfs beside other file systems; `scripts/bench` is the command."""
