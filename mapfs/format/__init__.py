"""The on-disk format: arithmetic and codecs, no input or output. `docs/format.md` specifies it."""
