"""The attribute caches of `polyop.ops`, which forget a packet that is removed."""

from __future__ import annotations

from typing import Any

from polyop.dispatch.operator import OpOverloadPacket


class _Namespaces:
    """The attribute caches that must forget a removed name; filled by `namespaces.py`."""

    def __init__(self) -> None:
        self._caches: dict[OpOverloadPacket, list[dict[str, Any]]] = {}

    def keep(self, packet: OpOverloadPacket, cache: dict[str, Any]) -> None:
        """Remember that a cache holds a packet."""
        self._caches.setdefault(packet, []).append(cache)

    def forget(self, packet: OpOverloadPacket) -> None:
        """Forget a packet."""
        for cache in self._caches.get(packet, ()):
            if cache.get(packet.__name__) is packet:
                del cache[packet.__name__]
        self._caches.pop(packet, None)


NAMESPACES = _Namespaces()
