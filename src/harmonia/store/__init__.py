"""Records, their parts and codes, filters on their metadata, and content-addressed media."""

from harmonia.store.engine import create, exists, open, status
from harmonia.store.filter_parser import as_filter, parse
from harmonia.store.filters import Filter
from harmonia.store.media import digest_file, garbage, media_path, put_media
from harmonia.store.protocol import Codes, CodeTable, EncoderInfo, FileState, Store, Where

__all__ = [
    "CodeTable",
    "Codes",
    "EncoderInfo",
    "FileState",
    "Filter",
    "Store",
    "Where",
    "as_filter",
    "create",
    "digest_file",
    "exists",
    "garbage",
    "media_path",
    "open",
    "parse",
    "put_media",
    "status",
]
