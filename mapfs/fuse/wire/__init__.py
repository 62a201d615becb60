"""The wire transport: the kernel's FUSE protocol spoken on `/dev/fuse`, without libfuse."""
