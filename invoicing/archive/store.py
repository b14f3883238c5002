"""An archive's folder: files that come and never change, and its manifests.

A shell. New files are written aside and come to their places at the end, before the manifest that names them: a run
that is killed leaves nothing that counts. No file is ever written over; the manifests before the newest one stay too.
"""

import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import polars as pl

from invoicing.archive.manifest import ArchivedFile, Manifest, TableName, manifest_of
from schemas.journal import GENESIS

NEWEST = "manifest.json"
_ASIDE = ".partial"
_CHUNK_BYTES = 1 << 22


@dataclass
class Writing:
    """The files of a run, which are not in their places yet."""

    folder: Path
    files: list[ArchivedFile] = field(default_factory=list)

    def add(self, frame: pl.DataFrame, tenant: str, month: str, table: TableName, part: str) -> None:
        """Write a frame aside."""
        path = f"tenant={quote(tenant, safe='')}/month={quote(month, safe='')}/{table}-{part}.parquet"
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", compression_level=1, statistics=False)
        content = buffer.getbuffer()
        _write(self.folder / _ASIDE / path, content)
        chained = table == "journal_entries"
        sequences = frame["sequence"] if "sequence" in frame.columns else None
        self.files.append(
            ArchivedFile(
                path=path, table=table, tenant=tenant, month=month, rows=frame.height, bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                first_sequence=None if sequences is None else sequences.item(0),
                last_sequence=None if sequences is None else sequences.item(-1),
                last_hash=frame["hash"].item(-1) if chained else None,
            )
        )  # fmt: skip

    def finish(self, manifest: Manifest, before: Manifest | None) -> None:
        """Bring the files to their places, and then the manifest. Raises ValueError where another file is in one.

        The manifest before it stays under its number. The new one comes last, at once: it is what counts.
        """
        for each in self.files:
            place = self.folder / each.path
            if place.exists() and _sha256(place) != each.sha256:
                raise ValueError(f"{place} is there with other content; nothing was archived")
        for each in self.files:
            (self.folder / each.path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / _ASIDE / each.path).replace(self.folder / each.path)
        for directory in {(self.folder / each.path).parent for each in self.files}:
            _sync(directory)
        for one, name in ((before, _numbered(manifest.number - 1)), (manifest, NEWEST)):
            if one:
                _write(self.folder / _ASIDE / name, one.text())
                (self.folder / _ASIDE / name).replace(self.folder / name)
        _sync(self.folder)
        shutil.rmtree(self.folder / _ASIDE)


@contextmanager
def writing(folder: Path) -> Iterator[Writing]:
    """A run that adds to an archive. Raises ValueError while another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process writes to {folder}; try again when it is done") from None
        shutil.rmtree(folder / _ASIDE, ignore_errors=True)  # of a run that was killed
        try:
            yield Writing(folder)
        finally:
            shutil.rmtree(folder / _ASIDE, ignore_errors=True)
    finally:
        os.close(descriptor)


def newest(folder: Path) -> Manifest | None:
    """The newest manifest, or None of a folder without one. Raises ValueError where it is not as it was written."""
    place = folder / NEWEST
    if not place.exists():
        return None
    try:
        return manifest_of(place.read_bytes())
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def faults_of_folder(folder: Path, manifest: Manifest) -> list[str]:
    """What is not as the manifests say: these themselves, each file's presence, size and hash, and what is too much."""
    too_much = [f"{path} is in no manifest" for path in strays(folder, manifest)]
    return [*_faults_of_manifests(folder, manifest), *_faults_of_files(folder, manifest), *too_much]


def _faults_of_manifests(folder: Path, newest: Manifest) -> Iterator[str]:
    """From the newest one to the first: each must be the one that the next one names, and its files still be there."""
    known, expected = {each.path for each in newest.files}, newest.previous_sha256
    left = folder / _numbered(newest.number)  # by a run that was killed between its two manifests
    if left.exists() and left.read_bytes() != newest.text():
        yield f"{left.name} is not {NEWEST}"
    for number in range(newest.number - 1, 0, -1):
        place = folder / _numbered(number)
        try:
            manifest = manifest_of(place.read_bytes())
        except (ValueError, OSError) as error:
            yield f"{place.name}: {error}"
            return
        if manifest.sha256 != expected:
            yield f"{place.name} is not the manifest that the one after it names"
            return
        if lost := {each.path for each in manifest.files} - known:
            yield f"{min(lost)} is in {place.name} and in no later manifest"
        expected = manifest.previous_sha256
    if expected != GENESIS:
        yield "the first manifest names one before it"


def _faults_of_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    for each in manifest.files:
        place = folder / each.path
        if not place.is_file():
            yield f"{each.path} is missing"
        elif place.stat().st_size != each.bytes:
            yield f"{each.path} has {place.stat().st_size:,} bytes; it had {each.bytes:,}"
        elif _sha256(place) != each.sha256:
            yield f"{each.path} is not what was written: its SHA-256 differs"


def strays(folder: Path, manifest: Manifest | None) -> list[str]:
    """Files in the folder that no manifest names."""
    files = manifest.files if manifest else []
    manifests = {_numbered(number) for number in range(1, manifest.number + 1)} if manifest else set()
    known = {NEWEST, *manifests, *(each.path for each in files)}
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in found if path not in known and not path.startswith(f"{_ASIDE}/"))


def read(folder: Path, files: list[ArchivedFile], columns: list[str] | None = None) -> pl.DataFrame:
    """The rows of some files of a table, in their order."""
    frames = [pl.read_parquet(folder / each.path, columns=columns) for each in files]
    return pl.concat(frames, how="diagonal")


def _numbered(number: int) -> str:
    return f"manifest-{number:04d}.json"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _write(path: Path, content: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
