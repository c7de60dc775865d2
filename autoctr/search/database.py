"""The database that studies lie in: opened without showing its password, and changed by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from autoctr.atomic import replacing
from autoctr.errors import UserError

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

BUSY_TIMEOUT_SECONDS = 60
LEGAL = "sqlite:///FILE and postgresql://USER:PASSWORD@HOST/DATABASE"
#: How soon the server gives up a client that has lost its power or its network, and with it the lock that it held.
KEEPALIVE = {"tcp_keepalives_idle": 15, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's tables in a database, made where there are none.

    Raises:
        UserError: if it is of another kind than SQLite and PostgreSQL, or cannot be opened.
    """
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments = {"timeout": BUSY_TIMEOUT_SECONDS} if is_sqlite(url) else {}
    try:
        if is_sqlite(url) and (to_read := _read_only(sqlite_file(url))):
            return optuna.storages.RDBStorage(
                to_read, engine_kwargs={"connect_args": arguments}, skip_table_creation=True
            )
        with contextlib.nullcontext() if is_sqlite(url) else one_at_a_time(url, "tables"):
            return optuna.storages.RDBStorage(
                _with_driver(url), engine_kwargs={"connect_args": arguments, "pool_pre_ping": not is_sqlite(url)}
            )
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError, RuntimeError) as error:
        raise _unreachable(url, error) from error


def close_storage(storage: optuna.storages.RDBStorage) -> None:
    """Give back its connections, of which a server has few."""
    storage.remove_session()
    storage.engine.dispose()


def is_sqlite(url: str) -> bool:
    """Whether the database is a file of this machine.

    Raises:
        UserError: if studies cannot lie in databases of this kind.
    """
    if not re.match(r"sqlite:///.|postgresql(\+\w+)?://.", url):
        raise UserError(f"cannot open the study's database {without_password(url)}; legal are {LEGAL}")
    return url.startswith("sqlite")


def sqlite_file(url: str) -> Path:
    """Where an SQLite database lies."""
    return Path(url.removeprefix("sqlite:///"))


def _read_only(path: Path) -> str | None:
    """The address of an SQLite database that may only be read, such as one on a disk mounted so; None of others.

    A log of changes beside it tells that somebody may be writing; without one nothing needs to be locked.
    """
    if not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return None
    is_open = path.with_name(f"{path.name}-wal").exists()
    return f"sqlite:///file:{quote(str(path))}?mode=ro&uri=true" + ("" if is_open else "&immutable=1")


def without_password(url: str) -> str:
    """A database address that may be shown."""
    return re.sub(r"(://[^/@:]*):[^/]*@", r"\1:***@", url)


def make_sqlite(path: Path) -> None:
    """Create a database with Optuna's tables, unless there is one, in write-ahead mode, which stays with the file.

    Nobody ever sees it without its tables, which two who open it at once would both try to make.
    """
    if path.exists():
        return
    with replacing(path) as temporary:
        connection = sqlite3.connect(temporary, timeout=BUSY_TIMEOUT_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
        close_storage(open_storage(f"sqlite:///{temporary}"))


def clock_time(url: str) -> float:
    """Seconds since 1970 by the clock that all who use the database share: its server's, or this machine's."""
    if is_sqlite(url):
        return time.time()
    import sqlalchemy

    with _connection(url) as connection:
        return float(connection.execute(sqlalchemy.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


@contextlib.contextmanager
def one_at_a_time(url: str, name: str) -> Iterator[None]:
    """Wait until nobody else is inside with the same database and ``name``; a process that dies goes out.

    PostgreSQL holds the lock itself; beside an SQLite file lies another, ``turn``, for all names.
    """
    if is_sqlite(url):
        with open(sqlite_file(url).with_name("turn"), "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    import sqlalchemy

    key = int.from_bytes(hashlib.blake2b(f"autoctr {name}".encode(), digest_size=8).digest(), "big", signed=True)
    with _connection(url) as connection:
        for setting, value in KEEPALIVE.items():
            connection.execute(sqlalchemy.text(f"SET {setting} = {value}"))
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        yield  # the lock goes with the connection


@contextlib.contextmanager
def _connection(url: str) -> Iterator[sqlalchemy.Connection]:
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(
            _with_driver(url), poolclass=sqlalchemy.pool.NullPool, isolation_level="AUTOCOMMIT"
        )
        connection = engine.connect()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise _unreachable(url, error) from error
    with connection:
        yield connection


def _with_driver(url: str) -> str:
    """The address with psycopg as its driver, unless it names another."""
    return re.sub(r"^postgresql://", "postgresql+psycopg://", url)


def _unreachable(url: str, error: Exception) -> UserError:
    reason = " ".join(str(error.__cause__ or error).splitlines()[:1])
    for shown in (url, _with_driver(url)):
        reason = reason.replace(shown, without_password(shown))
    todo = ""
    if isinstance(error, ImportError):
        todo = "; install what it needs with: pip install 'autoctr[postgresql]'"
    elif is_sqlite(url) and "not a database" in reason:
        todo = "; put a copy of the study's folder in its place"
    elif is_sqlite(url) and "unable to open" in reason:
        todo = "; copy the study's folder to where you may write"
    elif is_sqlite(url) and ("disk I/O" in reason or "is full" in reason):
        todo = "; if the disk is full, make room on it, then give the command again"
    elif not is_sqlite(url):
        todo = "; see that the server runs and lets you in, or give another address with --storage"
    return UserError(f"cannot open the study's database {without_password(url)} ({reason}){todo}")
