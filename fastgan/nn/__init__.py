"""Modules over `fastgan.ops`."""
