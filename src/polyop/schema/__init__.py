"""Schemas: text and annotations to a frozen signature."""
