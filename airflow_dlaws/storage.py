"""S3 through an injected client: locations, reading, writing, and the conditional writes that state needs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

from botocore.exceptions import ClientError

from airflow_dlaws.errors import DlawsError, ServiceRefused, ServiceUnavailable, SpecificationError

#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

#: S3's codes that mean "later" and come with a status below 500, or as a bare status (HEAD has no body).
#: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_PASSING = frozenset({"SlowDown", "RequestTimeout", "429"})

#: A few megabytes: large enough that a download is not slowed by Python, small enough not to matter in memory.
_PIECE = 4 * 1024 * 1024


@dataclass(frozen=True)
class S3Uri:
    """A location in S3: an object, a prefix, or (with an empty key) a bucket."""

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> S3Uri:
        """Read `s3://bucket/key`.

        :raises SpecificationError: the text is not such a location.
        """
        bucket, _, key = text.removeprefix("s3://").partition("/")
        if not text.startswith("s3://") or not _BUCKET.fullmatch(bucket):
            raise SpecificationError(f"{text!r} is no S3 location: write s3://bucket/key with a valid bucket name")
        return cls(bucket, key)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def __truediv__(self, part: str) -> S3Uri:
        return S3Uri(self.bucket, f"{self.key.rstrip('/')}/{part}" if self.key else part)

    @property
    def parent(self) -> S3Uri:
        """The prefix this object lies under."""
        return S3Uri(self.bucket, self.key.rstrip("/").rpartition("/")[0])


@dataclass(frozen=True)
class StoredObject:
    """One row of a listing."""

    uri: S3Uri
    size: int
    etag: str
    last_modified: datetime


@dataclass(frozen=True, kw_only=True)
class ObjectVersion:
    """Which bytes were read: enough to read the same ones again, or to see that they changed. Plain JSON."""

    uri: str
    etag: str
    size: int
    #: None where the bucket keeps no versions.
    version_id: str | None = None


class ObjectStore:
    """What this package does with S3. `client` is a boto3 S3 client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(self, uri: S3Uri) -> bytes:
        """Return the object's bytes.

        :raises ServiceRefused: the object or its bucket does not exist, or may not be read.
        """
        return self.read_versioned(uri)[0]

    def read_versioned(self, uri: S3Uri) -> tuple[bytes, str]:
        """Return the object's bytes and its entity tag, for :meth:`replace`."""
        answer = self._ask(self._client.get_object, uri)
        return answer["Body"].read(), answer["ETag"]

    def stat(self, uri: S3Uri) -> ObjectVersion:
        """Return which version of the object is there now; of all objects together under a prefix that ends with "/".

        :raises ServiceRefused: the object or its bucket does not exist, or may not be read.
        """
        if uri.key.endswith("/"):
            return self._stat_prefix(uri)
        answer = self._ask(self._client.head_object, uri)
        return _version(uri, answer)

    def _stat_prefix(self, prefix: S3Uri) -> ObjectVersion:
        rows = list(self.list(prefix))
        if not rows:
            raise ServiceRefused(f"cannot read {prefix}: there is no object under it")
        names = "\n".join(f"{row.uri} {row.etag}" for row in rows)
        digest = hashlib.sha256(names.encode()).hexdigest()[:32]
        return ObjectVersion(uri=str(prefix), etag=digest, size=sum(row.size for row in rows))

    def row(self, uri: S3Uri) -> StoredObject:
        """Return what a listing would say of one object.

        :raises ServiceRefused: the object or its bucket does not exist, or may not be read.
        """
        answer = self._ask(self._client.head_object, uri)
        return StoredObject(uri, answer["ContentLength"], answer["ETag"], answer["LastModified"])

    def lines(self, uri: S3Uri) -> Iterator[bytes]:
        """Yield the object's lines, split at newlines and without them, in constant memory.

        :raises ServiceRefused: the object or its bucket does not exist, or may not be read.
        """
        rest = b""
        for piece in self.pieces(uri):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def pieces(self, uri: S3Uri) -> Iterator[bytes]:
        """Yield the object's bytes in pieces, in constant memory.

        :raises ServiceRefused: the object or its bucket does not exist, or may not be read.
        """
        yield from self._ask(self._client.get_object, uri)["Body"].iter_chunks(_PIECE)

    def download(self, uri: S3Uri, file: IO[bytes]) -> ObjectVersion:
        """Copy the object into an open file, piece by piece; return which version it was.

        :raises ServiceRefused: the object or its bucket does not exist, or may not be read.
        """
        answer = self._ask(self._client.get_object, uri)
        for piece in answer["Body"].iter_chunks(_PIECE):
            file.write(piece)
        return _version(uri, answer)

    def download_version(self, version: ObjectVersion, file: IO[bytes]) -> bool:
        """Copy the very bytes that were noted into an open file; tell whether they could still be had.

        By version id where there is one; else the object must still have the entity tag.

        :raises ServiceRefused: the object or its bucket does not exist, or may not be read.
        """
        uri = S3Uri.parse(version.uri)
        if version.version_id:
            answer = self._ask(self._client.get_object, uri, VersionId=version.version_id)
        else:
            try:
                answer = self._client.get_object(Bucket=uri.bucket, Key=uri.key, IfMatch=f'"{version.etag}"')
            except ClientError as error:
                if _code(error) in {"PreconditionFailed", "412"}:
                    return False
                raise _translated(f"read {uri}", error) from error
        for piece in answer["Body"].iter_chunks(_PIECE):
            file.write(piece)
        return True

    def read_json(self, uri: S3Uri) -> Any:
        """Return the JSON document stored at `uri`."""
        return json.loads(self.read(uri))

    def write(self, uri: S3Uri, body: bytes, *, content_type: str = "application/octet-stream") -> str:
        """Store an object, replacing what is there; return its entity tag."""
        answer = self._client.put_object(Bucket=uri.bucket, Key=uri.key, Body=body, ContentType=content_type)
        return str(answer["ETag"])

    def write_json(self, uri: S3Uri, document: Any) -> str:
        """Store a JSON document; return its entity tag."""
        body = json.dumps(document, indent=1, sort_keys=True).encode()
        return self.write(uri, body, content_type="application/json")

    def create(self, uri: S3Uri, body: bytes) -> bool:
        """Store an object only if none is there; return whether it was stored (S3 `If-None-Match: *`)."""
        return self._conditional_put(uri, body, IfNoneMatch="*")

    def replace(self, uri: S3Uri, body: bytes, *, etag: str) -> bool:
        """Replace an object only if it still has `etag`; return whether it was replaced (S3 `If-Match`)."""
        return self._conditional_put(uri, body, IfMatch=etag)

    def _ask(self, operation: Callable[..., Any], uri: S3Uri, **members: str) -> dict[str, Any]:
        try:
            return dict(operation(Bucket=uri.bucket, Key=uri.key, **members))
        except ClientError as error:
            raise _translated(f"read {uri}", error) from error

    def _conditional_put(self, uri: S3Uri, body: bytes, **condition: str) -> bool:
        try:
            self._client.put_object(Bucket=uri.bucket, Key=uri.key, Body=body, **condition)
        except ClientError as error:
            if _code(error) in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey"}:
                return False
            raise
        return True

    def exists(self, uri: S3Uri) -> bool:
        """Tell whether the object is there."""
        try:
            self._client.head_object(Bucket=uri.bucket, Key=uri.key)
        except ClientError as error:
            if _code(error) in {"404", "NoSuchKey", "NotFound", "NoSuchBucket"}:
                return False
            raise
        return True

    def delete(self, uri: S3Uri) -> None:
        """Remove the object; one that is not there is no error."""
        self._client.delete_object(Bucket=uri.bucket, Key=uri.key)

    def list(self, prefix: S3Uri, *, start_after: str = "") -> Iterator[StoredObject]:
        """Yield the objects under `prefix` in key order, from behind the key `start_after`.

        :raises ServiceRefused: the bucket does not exist, or may not be listed.
        """
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=prefix.bucket, Prefix=prefix.key, StartAfter=start_after
        )
        try:
            for page in pages:
                for row in page.get("Contents", []):
                    uri = S3Uri(prefix.bucket, row["Key"])
                    yield StoredObject(uri, row["Size"], row["ETag"], row["LastModified"])
        except ClientError as error:
            raise _translated(f"list {prefix}", error) from error

    def folders(self, prefix: S3Uri) -> Iterator[S3Uri]:
        """Yield the folders right under `prefix` (which ends in a slash), each with its slash, in key order.

        :raises ServiceRefused: the bucket does not exist, or may not be listed.
        """
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=prefix.bucket, Prefix=prefix.key, Delimiter="/"
        )
        try:
            for page in pages:
                yield from (S3Uri(prefix.bucket, row["Prefix"]) for row in page.get("CommonPrefixes", []))
        except ClientError as error:
            raise _translated(f"list {prefix}", error) from error

    def histories(self, prefix: S3Uri) -> dict[str, tuple[ObjectVersion, ...]]:
        """Return the versions of each object under `prefix`, the newest first; deleted objects are left out.

        Needs s3:ListBucketVersions. In a bucket without versioning, each object has the one version, with no id.

        :raises ServiceRefused: the bucket does not exist, or its versions may not be listed.
        """
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=prefix.bucket, Prefix=prefix.key)
        found: dict[str, list[ObjectVersion]] = {}
        deleted: set[str] = set()
        try:
            for page in pages:
                for row in page.get("Versions", []):
                    version = _version(S3Uri(prefix.bucket, row["Key"]), {**row, "ContentLength": row["Size"]})
                    # S3 lists the versions of a key in this order, but for those that were stored in the same moment.
                    versions = found.setdefault(version.uri, [])
                    versions.insert(0 if row["IsLatest"] else len(versions), version)
                markers = [row["Key"] for row in page.get("DeleteMarkers", []) if row["IsLatest"]]
                deleted.update(str(S3Uri(prefix.bucket, key)) for key in markers)
        except ClientError as error:
            raise _translated(f"list the versions under {prefix}", error) from error
        return {uri: tuple(versions) for uri, versions in found.items() if uri not in deleted}


def _version(uri: S3Uri, answer: dict[str, Any]) -> ObjectVersion:
    version = answer.get("VersionId")
    # A bucket whose versioning is suspended answers "null", which names no fixed bytes.
    kept = version if version not in (None, "null") else None
    return ObjectVersion(uri=str(uri), etag=answer["ETag"].strip('"'), size=answer["ContentLength"], version_id=kept)


def _translated(action: str, error: ClientError) -> DlawsError:
    """Return this package's error: S3 that is overloaded, or has a fault of its own, may serve the next time."""
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or code in _PASSING:
        return ServiceUnavailable(f"cannot {action} now: {code}")
    refused = ServiceRefused(f"cannot {action}: {code}")
    refused.permanent = code not in ("ExpiredToken", "RequestTimeTooSkewed")  # a new process has new credentials
    return refused


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "Unknown"))
