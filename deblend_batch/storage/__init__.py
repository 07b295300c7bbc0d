"""Files of this machine and of a few remote stores: the only package that opens, writes and lists them.

A URL is a local path or ``scheme://...``. Writes are whole or absent: a local file is written beside its
place and renamed, an object is one put.
"""

from __future__ import annotations

from deblend_batch.storage.content import identity, stamp
from deblend_batch.storage.failures import translate
from deblend_batch.storage.filesystems import check_regular, check_writable, filesystem
from deblend_batch.storage.listing import (
    StoredFile,
    exists,
    expand,
    list_names,
    list_newest,
    list_tree,
)
from deblend_batch.storage.options import Options, options_of, sections_of
from deblend_batch.storage.places import check_apart
from deblend_batch.storage.reading import (
    MAX_BYTES,
    open_read,
    read_bytes,
    read_many,
    read_start,
    without_readahead,
)
from deblend_batch.storage.retrying import repeat_async
from deblend_batch.storage.unpacking import unpacked, without_packing
from deblend_batch.storage.urls import (
    is_local,
    join,
    local_path,
    member,
    name_of,
    parent,
    scheme_of,
)
from deblend_batch.storage.writing import (
    TEMPORARY_PREFIX,
    create_bytes,
    remove,
    remove_tree,
    write_bytes,
)

__all__ = [
    "MAX_BYTES",
    "TEMPORARY_PREFIX",
    "Options",
    "StoredFile",
    "check_apart",
    "check_regular",
    "check_writable",
    "create_bytes",
    "exists",
    "expand",
    "filesystem",
    "identity",
    "is_local",
    "join",
    "list_names",
    "list_newest",
    "list_tree",
    "local_path",
    "member",
    "name_of",
    "open_read",
    "options_of",
    "parent",
    "read_bytes",
    "read_many",
    "read_start",
    "remove",
    "remove_tree",
    "repeat_async",
    "scheme_of",
    "sections_of",
    "stamp",
    "translate",
    "unpacked",
    "without_packing",
    "without_readahead",
    "write_bytes",
]
