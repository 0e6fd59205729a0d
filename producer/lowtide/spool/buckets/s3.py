"""A bucket of Amazon S3, or of a server that speaks its protocol, by boto3.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lowtide.spool.buckets.errors import absent, changed, failure, not_installed
from lowtide.spool.objects import Block, Upload
from lowtide.spool.storage import Entry

_ATTEMPTS = 5
_CONNECT_SECONDS, _READ_SECONDS = 5, 60
_CONNECTIONS = 32
_BATCH = 1000
"""Most deletes in one call."""
_ADVICE = {
    401: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; renew a session token that has expired",
    403: "the account needs GetObject, PutObject, DeleteObject, AbortMultipartUpload and ListBucket, and no lock may "
    "hold its objects",
    404: "make the bucket, or set LOWTIDE_SPOOL_URL to one that exists",
    301: "set AWS_REGION to the bucket's region",
}
_CODES = {
    "ExpiredToken": 401,
    "InvalidAccessKeyId": 401,
    "InvalidToken": 401,
    "SignatureDoesNotMatch": 401,
    "TokenRefreshRequired": 401,
    "AuthorizationHeaderMalformed": 301,
    "IllegalLocationConstraintException": 301,
}
"""The status whose advice fits a code better than its own: S3 calls these 400 or 403."""


class S3Bucket:
    """The calls of one bucket. Credentials, region and AWS_ENDPOINT_URL come from where all of AWS's programs look."""

    def __init__(self, name: str) -> None:
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError
        except ImportError as error:
            raise not_installed("s3", "s3") from error
        self._place = f"s3://{name}"
        self._name = name
        self._client_error: type[Any] = ClientError
        self._broken = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
        self._exists = False
        config = Config(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            max_pool_connections=_CONNECTIONS,
        )
        with self._errors():
            # A session of its own: the default one is not safe to share between threads.
            self._client = boto3.session.Session().client("s3", config=config)

    def put(self, key: str, data: bytes) -> None:
        """Writes an object in one call."""
        with self._errors():
            self._client.put_object(Bucket=self._name, Key=key, Body=data)

    def put_new(self, key: str, data: bytes) -> bool:
        """Writes an object unless there is one of this key; returns whether it did."""
        with self._errors():
            try:
                self._client.put_object(Bucket=self._name, Key=key, Body=data, IfNoneMatch="*")
            except self._client_error as error:
                # 409: another process is writing it at this moment.
                if _status(error) in (409, 412):
                    return False
                raise
        return True

    def begin(self, key: str) -> Upload:
        """Begins an upload in parts."""
        with self._errors():
            upload = self._client.create_multipart_upload(Bucket=self._name, Key=key)["UploadId"]
        return _Upload(self, {"Bucket": self._name, "Key": key, "UploadId": upload})

    def get(self, key: str, start: int, end: int | None, version: str | None) -> Block:
        """Returns a range of an object."""
        if end is not None and start >= end:
            return Block(b"", version)
        wanted = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        if version is not None:
            wanted["IfMatch"] = version
        with self._errors():
            try:
                return self._whole_answer(key, wanted)
            except self._client_error as error:
                match _status(error):
                    case 404 if _code(error) != "NoSuchBucket":
                        raise absent(self._place, key) from error
                    case 412:
                        raise changed(self._place, key) from error
                    case 416:
                        # Either this is the end, or a shorter object has taken its place.
                        now = self._client.head_object(Bucket=self._name, Key=key)["ETag"]
                        if version is not None and now != version:
                            raise changed(self._place, key) from error
                        return Block(b"", version)
                raise

    def _whole_answer(self, key: str, wanted: dict[str, str]) -> Block:
        """Returns a range. The library repeats a call, but not one whose answer breaks off in its body."""
        attempt = 1
        while True:
            answer = self._client.get_object(Bucket=self._name, Key=key, **wanted)
            try:
                return Block(answer["Body"].read(), answer["ETag"])
            except self._broken:
                if attempt == _ATTEMPTS:
                    raise
                attempt += 1
                # Attempts that follow are of the same version.
                wanted["IfMatch"] = answer["ETag"]

    def head(self, key: str) -> Entry | None:
        """Returns the entry of one object; None where there is none."""
        with self._errors():
            try:
                found = self._client.head_object(Bucket=self._name, Key=key)
            except self._client_error as error:
                if _status(error) != 404:
                    raise
                # The answer is the same for a missing bucket.
                if not self._exists:
                    self._client.head_bucket(Bucket=self._name)
                    self._exists = True
                return None
        self._exists = True
        return Entry(key, found["ContentLength"], found["LastModified"].timestamp())

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects whose keys begin with a prefix."""
        for page in self._pages(Prefix=prefix):
            for found in page.get("Contents", ()):
                yield Entry(found["Key"], found["Size"], found["LastModified"].timestamp())

    def prefixes(self, prefix: str) -> Iterator[str]:
        """Yields the prefixes up to the next slash of the keys that begin with a prefix."""
        for page in self._pages(Prefix=prefix, Delimiter="/"):
            for found in page.get("CommonPrefixes", ()):
                yield found["Prefix"]

    def _pages(self, **wanted: str) -> Iterator[Any]:
        with self._errors():
            yield from self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, **wanted)

    def delete(self, keys: list[str]) -> None:
        """Removes objects, many of them in one call."""
        if len(keys) == 1:
            with self._errors():
                self._client.delete_object(Bucket=self._name, Key=keys[0])
            return
        for first in range(0, len(keys), _BATCH):
            objects = [{"Key": key} for key in keys[first : first + _BATCH]]
            with self._errors():
                answer = self._client.delete_objects(Bucket=self._name, Delete={"Objects": objects, "Quiet": True})
            for one in answer.get("Errors", ()):
                status = 403 if one.get("Code") == "AccessDenied" else None
                raise failure(self._place, f"{one.get('Key')}: {one.get('Message')}", status, _ADVICE)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, MemoryError):
            raise
        except self._client_error as error:
            raise failure(self._place, error, _CODES.get(_code(error), _status(error)), _ADVICE) from error
        except Exception as error:
            status = 401 if "Credential" in type(error).__name__ else None
            raise failure(self._place, error, status, _ADVICE) from error


class _Upload:
    """A multipart upload."""

    def __init__(self, bucket: S3Bucket, place: dict[str, str]) -> None:
        self._client, self._errors = bucket._client, bucket._errors  # noqa: SLF001 - one unit
        self._place = place
        self._parts: list[dict[str, Any]] = []

    def add(self, part: bytes) -> None:
        """Uploads the next part."""
        number = len(self._parts) + 1
        with self._errors():
            answer = self._client.upload_part(PartNumber=number, Body=part, **self._place)
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})

    def complete(self, last: bytes) -> None:
        """Uploads the last part, and shows the object."""
        self.add(last)
        with self._errors():
            self._client.complete_multipart_upload(MultipartUpload={"Parts": self._parts}, **self._place)

    def abandon(self) -> None:
        """Gives the upload up, and removes its parts."""
        with self._errors():
            self._client.abort_multipart_upload(**self._place)


def _status(error: Any) -> int | None:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
