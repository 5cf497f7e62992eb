"""Bridges: one operator becomes native in other frameworks, when their arrays come."""
