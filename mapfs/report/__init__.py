"""Where the bytes of a tree go: read from a mount, a store or any directory, and shown."""
