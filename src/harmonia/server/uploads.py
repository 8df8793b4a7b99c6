"""Media that clients send: base64, data URLs, multipart files. Sniffed, never believed."""

from __future__ import annotations

import base64
import binascii
import re

from harmonia.modalities import sniff
from harmonia.server.errors import ApiError

_DATA = re.compile(r"data:([\w.+/-]*)(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


def decoded(text: str, param: str) -> bytes:
    """The bytes of base64, as such or in a data URL; ApiError 400 for anything else."""
    head = _DATA.match(text)
    try:
        return base64.b64decode(text[head.end() :] if head else text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(
            400, f"{param} is no base64: send data:image/png;base64,... or plain base64", param=param
        ) from None


def checked(data: bytes, modality: str, param: str) -> bytes:
    """The bytes, if they begin as files of that modality do; ApiError 400 otherwise."""
    found = sniff(data[:512])
    if found != modality and (found, modality) != ("video", "audio"):
        raise ApiError(
            400, f"{param} is {'a file of ' + found if found else 'of no known format'}, not {modality}",
            param=param, code="unsupported_media",
        )  # fmt: skip
    return data
