"""How this process keeps its memory. To be imported before polars and numpy take any.

Their allocators give large pieces back to the system as soon as they are free: each batch would take its memory anew,
and the kernel would clear it each time. Measured: half a CPU microsecond of the seven that an event costs.
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # as glibc's malloc.h has them
_KEPT_BYTES = 1 << 30
_HEAP_PIECE_BYTES_MAX = 32 << 20  # glibc takes no larger one from its heap

os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:30000,muzzy_decay_ms:30000")  # polars' jemalloc
_libc = ctypes.CDLL(None)
if hasattr(_libc, "mallopt"):  # glibc: numpy, and Python's larger objects
    _libc.mallopt(_M_MMAP_THRESHOLD, _HEAP_PIECE_BYTES_MAX)
    _libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    _libc.mallopt(_M_ARENA_MAX, 1)  # a thread's own heap ends at 64 MiB
