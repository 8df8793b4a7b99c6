"""API keys: who may do what. A file holds their SHA-256 digests, never the keys themselves."""

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
"""What a key may do; each includes those before it."""
PREFIX = "hm-"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the server knows it: a name for the log, the digest in hexadecimal, what it may do."""

    name: str
    digest: str
    scope: str

    def may(self, scope: str) -> bool:
        """Whether the key's scope includes another."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


OWNER = Key("owner", "", "admin")
"""Who holds the token that the server keeps inside of the memory's folder: programs of the memory's owner."""
LOCAL = Key("local", "", "admin")
"""Who calls a server without keys, which only this machine can reach."""


def digest_of(secret: str) -> str:
    """A key has 256 random bits, so that a plain hash of it cannot be searched."""
    return hashlib.sha256(secret.encode()).hexdigest()


def find_key(keys: Sequence[Key], secret: str) -> Key | None:
    """The key of a secret, compared in constant time with every one."""
    digest, found = digest_of(secret), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def read_keys(file: Path) -> tuple[Key, ...]:
    """The keys in a file; HarmoniaError if it cannot be read or has none."""
    try:
        keys = tuple(
            Key(str(row["name"]), str(row["sha256"]), str(row["scope"]))
            for row in json.loads(file.read_text(encoding="utf-8"))["keys"]
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise HarmoniaError(f"cannot read the keys in {file} ({error}): make them with --new-key") from error
    if not keys or any(key.scope not in SCOPES or len(key.digest) != 64 for key in keys):
        raise HarmoniaError(f"{file} holds no keys, or damaged ones: make them with --new-key")
    return keys


def new_key(file: Path, name: str, scope: str) -> str:
    """Add a key to a file, made if need be; returns the secret, which is shown once and kept nowhere."""
    if scope not in SCOPES:
        raise HarmoniaError(f"a key's scope is one of {', '.join(SCOPES)}, not {scope!r}")
    keys = read_keys(file) if file.exists() else ()
    if any(key.name == name for key in keys):
        raise HarmoniaError(f"{file} has a key called {name!r} already: give another name")
    secret = PREFIX + secrets.token_urlsafe(32)
    rows = [{"name": k.name, "sha256": k.digest, "scope": k.scope} for k in keys]
    rows.append({"name": name, "sha256": digest_of(secret), "scope": scope})
    write_atomically(file, json.dumps({"keys": rows}, indent=1) + "\n")
    file.chmod(0o600)
    return secret
