"""Dask: calls with chunked arrays stay recipes, cut along loops and as authors say."""
