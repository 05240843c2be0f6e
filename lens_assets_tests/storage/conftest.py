"""An S3 server in this process that counts requests and can be told to fail, and a store of each kind."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest

from lens_assets.science.storage import Store
from lens_assets.science.storage.remote import RemoteStore

BUCKET = "lenses"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class Server:
    """moto behind a door that writes down what comes in and, when told to, answers for it."""

    url: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    fault: Callable[[str, str], tuple[str, bytes] | None] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to speak to it."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": self.url}

    def application(self, inner: Callable) -> Callable:
        """``inner`` with the door in front."""

        def door(environ: dict, start: Callable) -> list[bytes]:
            method, what = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            if not what.startswith("/moto-api"):
                query = environ.get("QUERY_STRING", "")
                self.seen.append((method, f"{what}?{query}" if query else what))
                if method in ("PUT", "POST"):
                    self.sent += int(environ.get("CONTENT_LENGTH") or 0)
                answer = self.fault(method, self.seen[-1][1]) if self.fault else None
                if answer:
                    start(answer[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(answer[1])))])
                    return [answer[1]]
            return inner(environ, start)

        return door

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[str]]:
        """The requests made inside, as ``METHOD kind``; kind is manifest, file or list."""
        first, found = len(self.seen), []
        yield found
        for method, what in self.seen[first:]:
            listing = "list-type" in what or "uploads" in what
            found.append(f"{method} {'list' if listing else 'manifest' if 'manifest.json' in what else 'file'}")


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    """One server for all tests of this folder."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    server = Server()
    made = make_server("127.0.0.1", 0, server.application(DomainDispatcherApplication(create_backend_app)), True)
    server.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "LENS_ASSETS_CACHE"):
            patch.delenv(name, raising=False)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield server
    made.shutdown()
    thread.join()
    made.server_close()


@dataclass
class Backend:
    """A kind of store, how to open it anew (as another machine would), and how to reach under it."""

    kind: str
    root: str
    home: Path
    server: Server | None = None

    def open(self, name: str = "here") -> Store:
        """The store, seen from the machine ``name``: its own cache."""
        return Store(self.root, cache=self.home / f"cache-{name}")

    def names(self, below: str = "") -> list[str]:
        """Everything that lies under the root, relative to it."""
        if self.kind == "folder":
            root = Path(self.root)
            found = (str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != ".lock")
            return sorted(name for name in found if name.startswith(below))
        return sorted(found.key for found in RemoteStore(self.root).objects.listing(below))

    def read(self, name: str) -> bytes:
        """The bytes of one thing under the root."""
        if self.kind == "folder":
            return (Path(self.root) / name).read_bytes()
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        return boto3.client("s3").get_object(Bucket=bucket, Key=f"{prefix}/{name}")["Body"].read()

    def write(self, name: str, data: bytes) -> None:
        """Replace the bytes of one thing under the root, past the store."""
        if self.kind == "folder":
            (Path(self.root) / name).write_bytes(data)
            return
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=data)


def _prefix(tmp_path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9/-]", "-", f"{tmp_path.parent.name}/{tmp_path.name}")


@pytest.fixture(params=["folder", "s3"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A store of either kind."""
    if request.param == "folder":
        yield Backend("folder", str(tmp_path / "store"), tmp_path)
    else:
        yield request.getfixturevalue("bucket")


@pytest.fixture
def bucket(s3: Server, tmp_path: Path) -> Iterator[Backend]:
    """A store in a bucket."""
    yield Backend("s3", f"s3://{BUCKET}/{_prefix(tmp_path)}", tmp_path, s3)
    s3.fault = None
