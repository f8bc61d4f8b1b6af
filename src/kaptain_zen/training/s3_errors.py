"""What an S3-speaking storage or botocore says, in this package's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from kaptain_zen.exceptions import ObjectNotFoundError, PreconditionFailedError, StorageError

_MISSING = {"NoSuchKey", "404", "NotFound"}
_READS = {"GetObject", "HeadObject"}
_CHANGED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}

_KEYS = (
    "Check the keys of Config.storage_config_provider, or of AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."
)
_ADDRESS = (
    "Check that it runs and can be reached from here, and the endpoint of "
    "Config.storage_config_provider or AWS_ENDPOINT_URL_S3."
)
_REFUSED = "{endpoint} does not accept the credentials ({code}). " + _KEYS
_FORBIDDEN = (
    "{endpoint} does not allow it ({code}). " + _KEYS + " If they are right, ask for the "
    "permission to read, write, list and delete there."
)
_REGION = (
    "the bucket is in another region than the one that was asked ({code}). Set region_name of "
    "Config.storage_config_provider, or AWS_REGION, to the bucket's."
)
_UNKNOWN = (
    "{endpoint} does not know this kind of request ({operation}). Use a storage that speaks S3 "
    "with conditional writes, such as AWS S3 or MinIO."
)
# What is said about the code of an answer.
_ANSWERS = {
    "NoSuchBucket": (
        "there is no bucket {bucket!r} at {endpoint}. Create it, or correct the URI or endpoint."
    ),
    "InvalidAccessKeyId": _REFUSED,
    "InvalidClientTokenId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "AuthFailure": _REFUSED,
    "InvalidToken": _REFUSED,
    "ExpiredToken": _REFUSED,
    "AccessDenied": _FORBIDDEN,
    "AllAccessDisabled": _FORBIDDEN,
    "403": _FORBIDDEN,
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "301": _REGION,
    "307": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "RequestTimeTooSkewed": (
        "this machine's clock differs too much from the one of {endpoint}. Set the clock."
    ),
    "404": (
        "{endpoint} answered 404 to {operation}, as a server does that does not speak S3. Correct "
        "the endpoint of Config.storage_config_provider or AWS_ENDPOINT_URL_S3."
    ),
    "NotImplemented": _UNKNOWN,
    "501": _UNKNOWN,
}
_OTHER_ANSWER = (
    "{endpoint} answered {code} to {operation}. Try again; if it stays so, the server's own log "
    "says why."
)
_UNREACHABLE = "{endpoint} did not answer as it should ({kind}). " + _ADDRESS
_NO_KEYS = (
    "no complete credentials for {endpoint} were found. Give Config.storage_config_provider, or "
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
)
# What is said about the kind of a failure, the most particular kind first.
_FAILURES = {
    "NoCredentialsError": _NO_KEYS,
    "PartialCredentialsError": _NO_KEYS,
    "UnknownSignatureVersionError": (
        "the signature version is not known. Leave out s3_signature_version and "
        "KAPTAIN_S3_SIGNATURE_VERSION, or set them to s3v4."
    ),
    "SSLError": (
        "the certificate of {endpoint} is not trusted, or it does not speak TLS. Correct the "
        "endpoint, or set AWS_CA_BUNDLE to the certificate of its authority."
    ),
    "ConnectionError": _UNREACHABLE,
    "HTTPClientError": _UNREACHABLE,
    "IncompleteReadError": _UNREACHABLE,
    "RetriesExceededError": _UNREACHABLE,
}
_OTHER_FAILURE = "{kind} while talking to {endpoint}. " + _ADDRESS


@contextmanager
def explained(action: str, uri: str, client: Any) -> Iterator[None]:
    """Turn what S3, botocore or the transfer of files refuses into this package's errors.

    Args:
        action: What was to happen, as in `could not be <action>`.
        uri: To which object or folder.
        client: The boto3 client, for the address that it talks to.

    Raises:
        StorageError: Or one of its kinds; the cause is chained. No credentials are in its text.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _answer(error, action, uri, address(client)) from error
    except (BotoCoreError, Boto3Error) as error:
        raise _failure(error, action, uri, address(client)) from error
    except OSError as error:
        raise StorageError(
            f"{uri} could not be {action}: {error.strerror or type(error).__name__} "
            f"({error.filename or 'no file'})."
        ) from error
    except Exception as error:
        # These have no base of their own.
        if type(error).__module__ != "s3transfer.exceptions":
            raise
        raise _failure(error, action, uri, address(client)) from error


def address(client: Any) -> str:
    """The endpoint of a client, without a user name and password that may stand in it."""
    parts = urlsplit(str(client.meta.endpoint_url))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def code_of(error: Any) -> str:
    """The code of a refused request; its status where there is none."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return str(error.response.get("Error", {}).get("Code") or status)


def changed(error: Any) -> bool:
    """Whether a refused request was a conditional one, and its condition does not hold."""
    return code_of(error) in _CHANGED


def _answer(error: Any, action: str, uri: str, endpoint: str) -> StorageError:
    code = code_of(error)
    if code in _MISSING and error.operation_name in _READS:
        return ObjectNotFoundError(f"There is no object {uri} at {endpoint}.")
    # An object that was to be replaced is missing when somebody has removed it.
    if changed(error) or code == "NoSuchKey":
        return PreconditionFailedError(
            f"{uri} could not be {action}: somebody else wrote or removed it in the meantime. Read "
            f"it again and decide again."
        )
    reason = _ANSWERS.get(code, _OTHER_ANSWER).format(
        endpoint=endpoint,
        code=code,
        operation=error.operation_name,
        bucket=uri.removeprefix("s3://").partition("/")[0],
    )
    return StorageError(f"{uri} could not be {action}: {reason}")


def _failure(error: Exception, action: str, uri: str, endpoint: str) -> StorageError:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    said = next((text for name, text in _FAILURES.items() if name in kinds), _OTHER_FAILURE)
    reason = said.format(endpoint=endpoint, kind=kinds[0])
    return StorageError(f"{uri} could not be {action}: {reason}")
