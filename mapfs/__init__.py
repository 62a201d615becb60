"""mapfs: a Linux filesystem in one memory-mapped store file, with its page slack counted."""

__version__ = "0.1.0"
