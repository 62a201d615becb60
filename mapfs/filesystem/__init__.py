"""POSIX semantics over a store, with no FUSE in sight. `Filesystem` is the door."""
