"""The identities that the server may use: the one that was chosen, and no other."""

from collections.abc import Mapping
from pathlib import Path

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.credentials_async import AsyncTokenCredential
from azure.identity.aio import (
    AzureCliCredential,
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from secure_cache.model.errors import Misconfigured
from secure_cache.storage.azure_blob.endpoint import Endpoint
from secure_cache.storage.azure_blob.options import AzureOptions, Credential

AnyCredential = AsyncTokenCredential | AzureNamedKeyCredential | AzureSasCredential


def check_credential(options: AzureOptions) -> None:
    """What can be said of the choice without I/O.

    Raises: Misconfigured.
    """
    if options.token_credential is not None:
        return
    if options.credential not in set(Credential):
        raise Misconfigured(
            f"storage.credential {options.credential[:40]!r}: choose one of {', '.join(Credential)}"
        )
    for name in _NEEDED.get(options.credential, ()):
        _setting(options.environment, name, options.credential)
    if options.credential == Credential.SERVICE_PRINCIPAL and not (
        options.environment.get("AZURE_CLIENT_SECRET")
        or options.environment.get("AZURE_CLIENT_CERTIFICATE_PATH")
    ):
        raise Misconfigured(
            "storage.credential = 'service-principal' needs AZURE_CLIENT_SECRET or"
            " AZURE_CLIENT_CERTIFICATE_PATH in the environment"
        )


def make_credential(options: AzureOptions, endpoint: Endpoint) -> AnyCredential:
    """Touches nothing yet; token credentials fetch at the first request.

    Raises: Misconfigured.
    """
    if options.token_credential is not None:
        return options.token_credential
    if endpoint.account_key:
        return AzureNamedKeyCredential(endpoint.account_name, endpoint.account_key)
    if endpoint.sas:
        return AzureSasCredential(endpoint.sas)
    return _token_credential(options)


_NEEDED: Mapping[str, tuple[str, ...]] = {
    Credential.SERVICE_PRINCIPAL: ("AZURE_TENANT_ID", "AZURE_CLIENT_ID"),
    Credential.WORKLOAD_IDENTITY: (
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
    ),
}


def _token_credential(options: AzureOptions) -> AsyncTokenCredential:
    environment = options.environment
    connection = {} if options.ca_file is None else {"connection_verify": str(options.ca_file)}
    authority = environment.get("AZURE_AUTHORITY_HOST")
    if authority:
        connection["authority"] = authority
    match options.credential:
        case Credential.MANAGED_IDENTITY:
            return ManagedIdentityCredential(client_id=environment.get("AZURE_CLIENT_ID"))
        case Credential.AZURE_CLI:
            return AzureCliCredential()
    tenant, client = environment["AZURE_TENANT_ID"], environment["AZURE_CLIENT_ID"]
    if options.credential == Credential.WORKLOAD_IDENTITY:
        return WorkloadIdentityCredential(
            tenant_id=tenant,
            client_id=client,
            token_file_path=environment["AZURE_FEDERATED_TOKEN_FILE"],
            **connection,
        )
    secret = environment.get("AZURE_CLIENT_SECRET")
    if secret:
        return ClientSecretCredential(tenant, client, secret, **connection)
    certificate = Path(environment["AZURE_CLIENT_CERTIFICATE_PATH"])
    try:
        return CertificateCredential(tenant, client, str(certificate), **connection)
    except (OSError, ValueError) as error:
        raise Misconfigured(
            f"AZURE_CLIENT_CERTIFICATE_PATH {certificate}: {type(error).__name__}"
        ) from None


def _setting(environment: Mapping[str, str], name: str, credential: str) -> str:
    value = environment.get(name)
    if not value:
        raise Misconfigured(f"storage.credential = {credential!r} needs {name} in the environment")
    return value
