"""Symbols and exact integer tables to bytes and back; imports no TensorFlow."""
