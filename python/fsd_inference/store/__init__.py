"""Object stores: the `Store` interface, and its implementations in memory, in a directory and in S3."""

from fsd_inference.store.base import ObjectInfo, Store, StoredObject
from fsd_inference.store.open import open_store

__all__ = ["ObjectInfo", "Store", "StoredObject", "open_store"]
