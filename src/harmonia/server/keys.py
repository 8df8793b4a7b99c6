"""API keys and their scopes. The key file has SHA-256 digests, never the keys themselves."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmonia.collection.namespaces import condition_of
from harmonia.store.atomic import write_atomically
from harmonia.store.filters import Filter
from harmonia.types import HarmoniaError, Record

SCOPES = ("read", "write", "admin")
"""The scopes of keys; each includes the ones before it."""
PREFIX = "hm-"
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its name for the log, its digest in hexadecimal, and its scope.

    With a ``namespace``, it sees and changes nothing but what belongs to that namespace.
    """

    name: str
    digest: str
    scope: str
    namespace: str | None = None

    def may(self, scope: str) -> bool:
        """Whether the key's scope includes another."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)

    @property
    def records(self) -> Filter | None:
        """The condition on the records that the key may see; None for all."""
        return condition_of(self.namespace)

    def sees(self, record: Record) -> bool:
        """Whether the key may see a record."""
        condition = self.records
        return condition is None or condition.matches(record.metadata, id=record.id)

    def owns(self, namespace: str | None) -> bool:
        """Whether what belongs to a namespace, or to none, belongs to this key too."""
        return self.namespace in (None, namespace)


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
            Key(str(row["name"]), str(row["sha256"]), str(row["scope"]), row.get("namespace"))
            for row in json.loads(file.read_text(encoding="utf-8"))["keys"]
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise HarmoniaError(
            f"cannot read the keys in {file} ({error}): create them with --new-key"
        ) from error
    if not keys or any(key.scope not in SCOPES or len(key.digest) != 64 for key in keys):
        raise HarmoniaError(f"{file} has no keys, or invalid ones: create them with --new-key")
    for key in keys:
        check_namespace(key.namespace, key.scope)
    return keys


def check_namespace(namespace: Any, scope: str) -> None:
    """HarmoniaError for what is no name of a namespace, or a scope that a key of one cannot have."""
    if namespace is None:
        return
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise HarmoniaError(
            f"invalid namespace {namespace!r}: use up to 64 letters, digits, '-', '_' and '.', "
            "and begin with a letter or digit"
        )
    if scope == "admin":
        raise HarmoniaError(
            "a key of a namespace takes scope read or write: admin sees the files of the whole machine"
        )


def new_key(file: Path, name: str, scope: str, namespace: str | None = None) -> str:
    """Add a key to a file, created if missing; returns the secret, which is stored nowhere.

    With a ``namespace``, the key is bound to it.
    """
    if scope not in SCOPES:
        raise HarmoniaError(f"the scope of a key must be one of {', '.join(SCOPES)}, not {scope!r}")
    check_namespace(namespace, scope)
    keys = read_keys(file) if file.exists() else ()
    if any(key.name == name for key in keys):
        raise HarmoniaError(f"{file} already has a key named {name!r}: give another name")
    secret = PREFIX + secrets.token_urlsafe(32)
    rows = [_row(key) for key in (*keys, Key(name, digest_of(secret), scope, namespace))]
    write_atomically(file, json.dumps({"keys": rows}, indent=1) + "\n")
    file.chmod(0o600)
    return secret


def _row(key: Key) -> dict[str, str]:
    bound = {} if key.namespace is None else {"namespace": key.namespace}
    return {"name": key.name, "sha256": key.digest, "scope": key.scope, **bound}
