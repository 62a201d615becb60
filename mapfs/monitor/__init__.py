"""Watching mounts from outside, over their control sockets."""
