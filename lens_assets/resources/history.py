"""Dagster's history (runs, events, schedules) on SQLite, without the second that a run costs there.

The same files in the same places as Dagster's own storage (``DagsterSqliteStorage``), readable by it and by ``dagster`` of any
process, so the class can be named in ``dagster.yaml`` and taken out again on an existing home. Four things are cheaper:

- a run's database is a copy of an empty one; Dagster makes each with some fifty statements and a migration tool (half a second);
- connections stay open (the last few run databases, the index): SQLite writes its log back into the database, with two flushes of
  the disk, whenever the last connection closes, which with Dagster's own is after every event;
- ``synchronous=NORMAL``: SQLite's advice for its write-ahead log. Nothing can be torn; after a *power cut* the last events of a run
  may be missing. What counts is in the artefact store, which flushes, and is recognised when the run is repeated;
- the keys of an axis are read again only when the database changed: a tick of the automation asks some three thousand times.

Nothing else is changed: who may write when is still SQLite's business, with the same patience (30 s).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as db
from dagster import __version__
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, _event_logs_directory, _runs_directory
from sqlalchemy.pool import NullPool, QueuePool

OPEN_RUNS = 8
"""Run databases whose connection is kept open."""


def _engine(address: str) -> db.Engine:
    engine = db.create_engine(
        address,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=-1,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )

    @db.event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


class EventLog(SqliteEventLogStorage):
    """Events, one database a run and an index, as Dagster keeps them."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._engines: OrderedDict[str, db.Engine] = OrderedDict()
        self._keys: dict[str, tuple[tuple[int, int], list[str]]] = {}
        super().__init__(base_dir, inst_data)

    @contextlib.contextmanager
    def _connect(self, shard: str) -> Iterator[db.Connection]:
        with self._db_lock:
            if shard not in self._initialized_dbs:
                if shard != INDEX_SHARD_NAME and not os.path.exists(self.path_for_shard(shard)):
                    self._copy_empty(Path(self.path_for_shard(shard)))
                if _revision(self.path_for_shard(shard)) != _revision(str(self._empty())):
                    self._initdb(db.create_engine(self.conn_string_for_shard(shard), poolclass=NullPool))
                self._initialized_dbs.add(shard)
            if shard not in self._engines:
                self._engines[shard] = _engine(self.conn_string_for_shard(shard))
            self._engines.move_to_end(shard)
            old = next((name for name in self._engines if name not in (shard, INDEX_SHARD_NAME)), None)
            if old and len(self._engines) > OPEN_RUNS:
                self._engines.pop(old).dispose()
            with self._engines[shard].connect() as connection, connection.begin():
                yield connection

    def get_dynamic_partitions(self, partitions_def_name: str) -> Sequence[str]:
        """The keys of an axis, in the order they were added."""
        with self.index_connection() as connection:
            # of one connection, this number changes when any other one, of any process, has committed
            changes = connection.execute(db.text("PRAGMA data_version")).scalar_one()
            version = (id(connection.connection.dbapi_connection), int(changes))
        known = self._keys.get(partitions_def_name)
        if known is None or known[0] != version:
            known = self._keys[partitions_def_name] = (version, [*super().get_dynamic_partitions(partitions_def_name)])
        return [*known[1]]

    def add_dynamic_partitions(self, partitions_def_name: str, partition_keys: Sequence[str]) -> None:
        """Add keys to an axis."""
        super().add_dynamic_partitions(partitions_def_name, partition_keys)
        self._keys.pop(partitions_def_name, None)

    def delete_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> None:
        """Remove a key of an axis."""
        super().delete_dynamic_partition(partitions_def_name, partition_key)
        self._keys.pop(partitions_def_name, None)

    def _empty(self) -> Path:
        """An empty run database of this version of Dagster, made by Dagster; not called ``.db``, or it would be a run."""
        path = Path(self._base_dir) / f"empty-run-{__version__}"
        if not path.exists():
            scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
            engine = db.create_engine(f"sqlite:///{scratch}", poolclass=NullPool)
            self._initdb(engine)
            engine.dispose()
            os.replace(scratch, path)
        return path

    def _copy_empty(self, path: Path) -> None:
        scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
        shutil.copyfile(self._empty(), scratch)
        with contextlib.suppress(FileExistsError):  # another process was first
            os.link(scratch, path)
        scratch.unlink()

    def dispose(self) -> None:
        """Close what is open."""
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()
        super().dispose()


def _revision(path: str) -> str | None:
    """The schema a database was made for; ``None`` when it says none."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as made,
    ):
        found = made.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(found[0]) if found else None
    return None


class Runs(SqliteRunStorage):
    """Runs, as Dagster keeps them."""

    def __init__(self, conn_string: str, inst_data: Any = None) -> None:
        self._open = _engine(conn_string)
        super().__init__(conn_string, inst_data)

    @contextlib.contextmanager
    def connect(self) -> Iterator[db.Connection]:
        """A connection in a transaction."""
        with self._open.connect() as connection, connection.begin():
            yield connection

    def dispose(self) -> None:
        """Close what is open."""
        self._open.dispose()
        super().dispose()


class History(DagsterSqliteStorage):
    """All of an instance's history below ``base_dir`` (DAGSTER_HOME), as ``storage: custom:`` of ``dagster.yaml``."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        super().__init__(base_dir, inst_data)
        self._run_storage.dispose()
        self._event_log_storage.dispose()
        self._run_storage = Runs.from_local(_runs_directory(base_dir))
        self._event_log_storage = EventLog(_event_logs_directory(base_dir))

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> History:
        """Made by Dagster from ``dagster.yaml``."""
        return cls.from_local(inst_data=inst_data, **config_value)
