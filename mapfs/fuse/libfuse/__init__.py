"""FUSE through libfuse: a transport that serves with pyfuse3."""
