"""Layers: what each key means."""
