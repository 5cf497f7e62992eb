"""Tensors: payloads of array libraries, with keys, versions and views."""
