"""The store: bytes (backing), where they are (catalog), and the commit that ties the two."""
