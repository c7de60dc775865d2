"""A search of a table without a schema: the guessed one lies in the study's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from autoctr.atomic import write_text
from autoctr.data.guess import guess
from autoctr.errors import UserError
from autoctr.search.events import Watcher


@contextlib.contextmanager
def guessed_schema(table: Path, folder: Path, watcher: Watcher) -> Iterator[Path]:
    """A schema file for the table, written into a study's folder and told; if the block fails, it goes again.

    Raises:
        UserError: if the label or the domain is anybody's guess.
    """
    found = guess(table)
    if found.doubts:
        raise UserError(
            f"cannot tell {' and '.join(found.doubts)} in {table}; write a schema and correct it: "
            f"autoctr data schema {table} --out schema.yaml; then search with --schema schema.yaml"
        )
    path = folder / "schema.yaml"
    was_there = path.exists()
    if not was_there:
        try:
            write_text(path, found.text)
        except OSError as error:
            raise UserError(f"cannot write {folder} ({error}); choose a folder you may write") from error
        watcher.note(f"guessed from {table.name}: {found}")
        watcher.note(f"if that is wrong, stop, correct a copy of {path} and search with --schema COPY")
    try:
        yield path
    except BaseException:
        if not was_there:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
