"""Named objects in memory, in a directory or in S3; see `base.Store`."""

from fsd_inference.store.base import ObjectInfo, Store, StoredObject
from fsd_inference.store.open import open_store

__all__ = ["ObjectInfo", "Store", "StoredObject", "open_store"]
