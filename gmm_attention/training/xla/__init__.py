"""The training step as an XLA program, and the runner that trains with it under JAX."""
