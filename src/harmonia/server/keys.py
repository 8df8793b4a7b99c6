"""API keys and their scopes. The key file has SHA-256 digests, never the keys themselves."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harmonia.store.atomic import write_atomically
from harmonia.types import HarmoniaError

SCOPES = ("read", "write", "admin")
"""The scopes of keys; each includes the ones before it."""
PREFIX = "hm-"


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its name for the log, its digest in hexadecimal, and its scope."""

    name: str
    digest: str
    scope: str

    def may(self, scope: str) -> bool:
        """Whether the key's scope includes another."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


OWNER = Key("owner", "", "admin")
"""The caller with the token in the memory's address file: a program of the memory's owner."""
LOCAL = Key("local", "", "admin")
"""The caller of a server without keys, which only this machine can reach."""


def digest_of(secret: str) -> str:
    """SHA-256 of a key; unsalted, because a key has 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def find_key(keys: Sequence[Key], secret: str) -> Key | None:
    """The key of a secret, compared with every key in constant time; None if unknown."""
    digest, found = digest_of(secret), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def read_keys(file: Path) -> tuple[Key, ...]:
    """Read a key file; HarmoniaError if it cannot be read or has no keys."""
    try:
        keys = tuple(
            Key(str(row["name"]), str(row["sha256"]), str(row["scope"]))
            for row in json.loads(file.read_text(encoding="utf-8"))["keys"]
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise HarmoniaError(
            f"cannot read the keys in {file} ({error}): create them with --new-key"
        ) from error
    if not keys or any(key.scope not in SCOPES or len(key.digest) != 64 for key in keys):
        raise HarmoniaError(f"{file} has no keys, or invalid ones: create them with --new-key")
    return keys


def new_key(file: Path, name: str, scope: str) -> str:
    """Add a key to a file, created if missing; returns the secret, which is stored nowhere."""
    if scope not in SCOPES:
        raise HarmoniaError(f"the scope of a key must be one of {', '.join(SCOPES)}, not {scope!r}")
    keys = read_keys(file) if file.exists() else ()
    if any(key.name == name for key in keys):
        raise HarmoniaError(f"{file} already has a key named {name!r}: give another name")
    secret = PREFIX + secrets.token_urlsafe(32)
    rows = [{"name": k.name, "sha256": k.digest, "scope": k.scope} for k in keys]
    rows.append({"name": name, "sha256": digest_of(secret), "scope": scope})
    write_atomically(file, json.dumps({"keys": rows}, indent=1) + "\n")
    file.chmod(0o600)
    return secret
