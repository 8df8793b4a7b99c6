"""Records and their parts (LanceDB, one row per part and encoder) and content-addressed media."""

from harmonia.store.lance.store import LanceStore
from harmonia.store.media import digest_file, garbage, media_path, put_media
from harmonia.store.protocol import Codes, CodeTable, EncoderInfo, FileState, Store

__all__ = [
    "CodeTable",
    "Codes",
    "EncoderInfo",
    "FileState",
    "LanceStore",
    "Store",
    "digest_file",
    "garbage",
    "media_path",
    "put_media",
]
