"""Many images through one codec: transforms in this process, reading and coding in workers."""
