"""Many images through one codec, several at a time: in processes here, or on a cluster."""
