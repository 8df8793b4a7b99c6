"""Namespaces: records that belong to some keys of a server, apart from all others.

Equal content in two namespaces is two records, so that neither shows, changes or forgets what the other has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harmonia.store.filters import Comparison, Filter
from harmonia.store.values import column_name

NAMESPACE = "namespace"
"""The metadata key that names the namespace of a record; a record without it belongs to none."""


def condition_of(namespace: str | None) -> Filter | None:
    """The condition that a record belongs to a namespace; None, which holds for every record, for none."""
    return None if namespace is None else Comparison(NAMESPACE, "=", namespace)


def owned(metadata: Mapping[str, Any], namespace: str | None) -> dict[str, Any]:
    """Metadata of a record of a namespace, whatever they say about it themselves; unchanged for none."""
    if namespace is None:
        return dict(metadata)
    return {NAMESPACE: namespace} | {k: v for k, v in metadata.items() if column_name(k) != NAMESPACE}
