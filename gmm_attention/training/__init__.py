"""Photographs to trained weights."""
