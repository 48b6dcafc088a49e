"""The store in Azure Blob Storage (or Azurite), through Microsoft's SDK.

Nobody imports this package at the top of a module: the SDK costs half a second and is an extra
(`pip install 'secure-cache[azure]'`). The composition root imports it where a store of this kind
is opened.
"""

from secure_cache.storage.azure_blob.account import AzureAccount
from secure_cache.storage.azure_blob.options import AzureOptions, Credential, Patience
from secure_cache.storage.azure_blob.retry import StorageCall, Tell
from secure_cache.storage.azure_blob.store import AzureStore

__all__ = [
    "AzureAccount",
    "AzureOptions",
    "AzureStore",
    "Credential",
    "Patience",
    "StorageCall",
    "Tell",
]
