"""vmap: functions of one sample, run once for a whole batch."""

from polyop.layers.vmap import layer as layer
from polyop.layers.vmap.api import vmap
from polyop.layers.vmap.batch import Batch, VmapInfo, VmapLevel

__all__ = ["Batch", "VmapInfo", "VmapLevel", "vmap"]
