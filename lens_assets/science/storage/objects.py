"""The few requests to S3 that a store needs, with errors that name the bucket and the key.

boto3 does the talking: its default chain finds credentials and region (nothing of either is read, kept or logged here),
its adaptive mode repeats throttled and failed requests, ``AWS_ENDPOINT_URL_S3`` names another server. Imported when the
first request is made, for processes (Spark's workers) that only carry this module.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from lens_assets.science.errors import BadInput

PART = 64 << 20
"""Bytes above which a file travels in parts (several at once, each with its own checksum and repeats)."""
ATTEMPTS = 8
"""Times that boto3 makes a request which fails or is throttled, before the failure is ours."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION")
_ABSENT = ("NoSuchKey", "404", "NotFound")
_DENIED = ("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "401")
_CLIENTS: dict[tuple[str, ...], Any] = {}
_LOCK = threading.Lock()
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What S3 says of an object."""

    key: str
    bytes: int
    modified: datetime
    sha256: str | None = None


@dataclass(frozen=True)
class Content:
    """A small object as it was read."""

    data: bytes
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Objects:
    """The objects below ``s3://bucket/prefix``; keys are relative to it."""

    bucket: str
    prefix: str = ""

    @classmethod
    def at(cls, uri: str) -> Objects:
        """From ``s3://bucket/prefix``; :class:`BadInput` when it is not one."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        prefix = prefix.strip("/")
        parts = prefix.split("/") if prefix else []
        if not uri.startswith("s3://") or not _BUCKET.fullmatch(bucket) or {"", ".", ".."} & set(parts):
            raise BadInput(f"not of the form s3://bucket/prefix: {uri!r}")
        return cls(bucket, prefix)

    def uri(self, key: str = "") -> str:
        """Address of an object, or of them all."""
        return "/".join(p for p in (f"s3://{self.bucket}", self.prefix, key) if p)

    def read(self, key: str) -> Content | None:
        """A small object; ``None`` when there is none."""

        def get() -> Content | None:
            with self._explained(key):
                try:
                    answer = client().get_object(**self._name(key))
                except client().exceptions.NoSuchKey:
                    return None
                return Content(answer["Body"].read(), str(answer["ETag"]), answer["LastModified"])

        return self._again(get, key)

    def head(self, key: str) -> Found | None:
        """An object's size, age and digest (S3's own of the whole object, else the one the writer stated)."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        with self._explained(key):
            try:
                answer = client().head_object(**self._name(key), ChecksumMode="ENABLED")
            except ClientError as fault:
                if _code(fault) in _ABSENT:
                    return None
                raise
        own, whole = answer.get("ChecksumSHA256", ""), "-" not in str(answer["ETag"])  # in parts: a digest of digests
        sha = base64.b64decode(own).hex() if own and whole else answer.get("Metadata", {}).get("sha256")
        return Found(key, int(answer["ContentLength"]), answer["LastModified"], sha)

    def upload(self, path: Path, key: str, sha256: str) -> None:
        """Send a file; it is there when this returns, whole, and not before. S3 checks the digest on arrival."""
        with self._explained(key):
            if path.stat().st_size <= PART:
                with open(path, "rb") as stream:
                    client().put_object(
                        **self._name(key),
                        Body=stream,
                        ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
                        Metadata={"sha256": sha256},
                    )
            else:
                extra = {"Metadata": {"sha256": sha256}, "ChecksumAlgorithm": "SHA256"}
                client().upload_file(
                    str(path), self.bucket, self._name(key)["Key"], ExtraArgs=extra, Config=_in_parts()
                )

    def download(self, key: str, path: Path, size: int) -> None:
        """Fetch an object into a file; :class:`BadInput` when there is none. ``size``: what is expected."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        def get() -> None:
            with self._explained(key):
                try:
                    if size > PART:
                        client().download_file(self.bucket, self._name(key)["Key"], str(path), Config=_in_parts())
                        return
                    answer = client().get_object(**self._name(key))
                    with open(path, "wb") as stream:
                        for piece in answer["Body"].iter_chunks(1 << 20):
                            stream.write(piece)
                except ClientError as fault:
                    if _code(fault) in _ABSENT:
                        raise BadInput("is gone; materialise it again", file=self.uri(key)) from fault
                    raise

        self._again(get, key)

    def stream(self, key: str) -> Iterator[bytes]:
        """An object's bytes, piece by piece; nothing when there is none."""
        with self._explained(key):
            try:
                answer = client().get_object(**self._name(key))
            except client().exceptions.NoSuchKey:
                return
            yield from answer["Body"].iter_chunks(1 << 20)

    def put(self, key: str, data: bytes, replaces: str | None) -> bool:
        """Write a small object if the one there still has the ETag ``replaces`` (``None``: if there is none); whether
        it was written. A server without conditional writes writes always: then the last writer wins unasked."""
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        condition = {"IfMatch": replaces} if replaces else {"IfNoneMatch": "*"}
        with self._explained(key):
            try:
                client().put_object(**self._name(key), Body=data, ContentType="application/json", **condition)
            except ClientError as fault:
                code = _code(fault)
                if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409", *_ABSENT):
                    return False
                if code not in ("NotImplemented", "501"):
                    raise
                client().put_object(**self._name(key), Body=data, ContentType="application/json")
        return True

    def listing(self, below: str = "") -> Iterator[Found]:
        """All objects whose key starts with ``below``: one request per thousand."""
        start = len(self.prefix) + 1 if self.prefix else 0
        for page in self._pages("list_objects_v2", below):
            for item in page.get("Contents", ()):
                yield Found(item["Key"][start:], int(item["Size"]), item["LastModified"])

    def folders(self) -> list[str]:
        """Names of the folders right below the prefix."""
        found = []
        for page in self._pages("list_objects_v2", "", Delimiter="/"):
            found += [item["Prefix"].rstrip("/").rsplit("/", 1)[-1] for item in page.get("CommonPrefixes", ())]
        return sorted(found)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, present or not."""
        for start in range(0, len(keys), 1000):
            batch = keys[start : start + 1000]
            with self._explained(batch[0]):
                names = [{"Key": self._name(key)["Key"]} for key in batch]
                answer = client().delete_objects(Bucket=self.bucket, Delete={"Objects": names, "Quiet": True})
            for fault in answer.get("Errors", ()):
                raise OSError(f"s3://{self.bucket}/{fault['Key']}: not removed ({fault.get('Code')})")

    def unfinished(self) -> Iterator[tuple[str, str, datetime]]:
        """(key, upload id, start) of uploads in parts that were begun and neither ended nor given up."""
        start = len(self.prefix) + 1 if self.prefix else 0
        for page in self._pages("list_multipart_uploads", ""):
            for item in page.get("Uploads", ()):
                yield item["Key"][start:], item["UploadId"], item["Initiated"]

    def abort(self, key: str, upload: str) -> None:
        """Give up an unfinished upload: its parts are removed."""
        with self._explained(key):
            client().abort_multipart_upload(**self._name(key), UploadId=upload)

    def _name(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}" if self.prefix else key}

    def _pages(self, operation: str, below: str, **options: str) -> Iterator[dict[str, Any]]:
        prefix = f"{self.prefix}/{below}" if self.prefix else below
        with self._explained(below):
            yield from client().get_paginator(operation).paginate(Bucket=self.bucket, Prefix=prefix, **options)

    def _again(self, get: Callable[[], T], key: str, times: int = 4) -> T:
        """Repeat a download that broke off in the middle (boto3 repeats requests, not bodies)."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError  # type: ignore[import-untyped]

        for attempt in range(times):
            try:
                return get()
            except OSError as fault:
                if attempt + 1 == times or not isinstance(fault.__cause__, (HTTPClientError, IncompleteReadError)):
                    raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError(key)

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Errors of boto3 as ours: what the user must put right is :class:`BadInput`, a server that fails ``OSError``."""
        from boto3.exceptions import Boto3Error  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError  # type: ignore[import-untyped]

        uri = self.uri(key)
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as fault:
            raise BadInput(
                f"no credentials in boto3's chain (environment, profile, role): {fault}", file=uri
            ) from fault
        except ClientError as fault:
            code = _code(fault)
            if code == "NoSuchBucket":
                raise BadInput(f"there is no bucket {self.bucket!r}", file=uri) from fault
            if code in _DENIED:
                raise BadInput(
                    f"bucket {self.bucket!r} refuses this ({code}, {fault.operation_name}); without leave to list, "
                    "S3 also says so of what is not there",
                    file=uri,
                ) from fault
            raise OSError(f"{uri}: {fault}") from fault
        except (BotoCoreError, Boto3Error) as fault:
            raise OSError(f"{uri}: {fault}") from fault


def client() -> Any:
    """This process's client for the server that the environment names."""
    key = (str(os.getpid()), *(os.environ.get(name, "") for name in _ENDPOINT))
    with _LOCK:
        if key not in _CLIENTS:
            import boto3  # type: ignore[import-untyped]
            from botocore.config import Config  # type: ignore[import-untyped]

            config = Config(
                retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=32,
                tcp_keepalive=True,
            )
            _CLIENTS[key] = boto3.session.Session().client("s3", config=config)
        return _CLIENTS[key]


def _in_parts() -> Any:
    from boto3.s3.transfer import TransferConfig  # type: ignore[import-untyped]

    return TransferConfig(multipart_threshold=PART, multipart_chunksize=PART // 4, max_concurrency=8)


def _code(fault: Any) -> str:
    """S3's word for the error; of a HEAD, which has none, the number."""
    answer = fault.response
    code = str(answer.get("Error", {}).get("Code", ""))
    return code or str(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
