"""Files of a data set: found, verified, and fetched when asked."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from io import BufferedIOBase
from pathlib import Path
from urllib.request import urlopen

CHUNK = 1 << 20
TIMEOUT_SECONDS = 60


class DataNotFound(FileNotFoundError):  # noqa: N818 - named like its base
    """Files of a data set are not there; the message says which belong where, and how to get them."""


class DataCorrupt(ValueError):  # noqa: N818 - goes with DataNotFound
    """A file's content is not the published one."""


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes:
        name: Its name in the data set's folder; ``name.gz`` is as good.
        sha256: Of the uncompressed content, in hex; None accepts any content.
        url: Where to fetch it; an address that ends in ``.gz`` is uncompressed on the way. None if there is none.
        note: What the message for a missing file says besides.
    """

    name: str
    sha256: str | None = None
    url: str | None = None
    note: str = ""


def prepare(folder: Path, files: Sequence[DataFile], download: bool) -> None:
    """Make sure that ``folder`` holds ``files`` with their published content; fetch missing ones if ``download``.

    Raises:
        DataNotFound: If a file is missing and may not or could not be fetched.
        DataCorrupt: If a file, there or fetched, has another sha256. A file that is there is never overwritten.
    """
    for file in files:
        if download and file.url and _locate(folder, file.name) is None:
            _fetch(file.url, folder / file.name, file.sha256)
    for file, path in zip(files, paths(folder, files), strict=True):
        if file.sha256 and (found := _sha256(path)) != file.sha256:
            raise DataCorrupt(
                f"{path}: sha256 is {found}, not the published {file.sha256}; move it away and get the published file, "
                "with data.download=true where it has an address"
            )


def paths(folder: Path, files: Sequence[DataFile]) -> list[Path]:
    """Where each of ``files`` lies in ``folder``, as ``name`` or ``name.gz``; content is not looked at.

    Raises:
        DataNotFound: If any is missing.
    """
    found = [_locate(folder, file.name) for file in files]
    missing = [file for file, path in zip(files, found, strict=True) if path is None]
    if missing:
        names = ", ".join(file.name for file in missing)
        fetch = " or set data.download=true to fetch" if all(file.url for file in missing) else "; no address to fetch"
        notes = "".join(f" ({file.note})" for file in missing if file.note)
        them = "it" if len(missing) == 1 else "them"
        raise DataNotFound(f"not found in {folder.absolute()}: {names}; put {them} there{fetch} {them}{notes}")
    return [path for path in found if path is not None]


def absent(folder: Path, files: Sequence[DataFile]) -> list[DataFile]:
    """Those of ``files`` that ``folder`` lacks."""
    return [file for file in files if _locate(folder, file.name) is None]


def open_plain(path: Path) -> BufferedIOBase:
    """Open ``path`` for reading, uncompressed where its name ends in ``.gz``."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def keep(content: Iterable[bytes], path: Path, sha256: str | None, source: str) -> None:
    """Write ``content``, which comes from ``source``, to ``path``; no half or wrong file is ever seen there.

    Raises:
        DataCorrupt: If it has another sha256.
    """
    # Named after the process, as two may share the folder; renamed when whole, so that no reader sees half a file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as target:
            for chunk in content:
                target.write(chunk)
        if sha256 and (found := _sha256(part)) != sha256:
            raise DataCorrupt(
                f"{source}: sha256 is {found}, not the published {sha256}; nothing kept, get {path} elsewhere"
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _locate(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _sha256(path: Path) -> str:
    try:
        with open_plain(path) as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
            return digest.hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataCorrupt(f"{path}: broken gzip file ({error}); move it away and get it again") from error


def _fetch(url: str, path: Path, sha256: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        keep(_stream(url), path, sha256, url)
    except (OSError, EOFError, HTTPException, zlib.error) as error:
        reason = str(error) or type(error).__name__
        raise DataNotFound(
            f"could not fetch {url} ({reason}); try again, or put {path.name} into {path.parent}"
        ) from error


def _stream(url: str) -> Iterator[bytes]:
    with urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        content = gzip.GzipFile(fileobj=response) if url.endswith(".gz") else response
        while chunk := content.read(CHUNK):
            yield chunk
        # http.client ends a body that breaks off like a whole one; gzip notices by itself.
        if response.length:
            raise EOFError(f"broke off {response.length} bytes before the end")
