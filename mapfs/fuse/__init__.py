"""Serving a `Filesystem` to the kernel over FUSE."""
