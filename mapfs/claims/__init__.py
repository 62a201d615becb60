"""What is said for and against mmap, one claim a module, measured on this machine."""
