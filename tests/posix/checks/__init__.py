"""The checks: one module a topic; each function gets an empty directory of its own."""
