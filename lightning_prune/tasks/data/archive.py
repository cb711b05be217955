"""Files of a data set that is published as one tar file."""

import tarfile
import zlib
from collections.abc import Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.request import urlopen

from lightning_prune.tasks.data.files import CHUNK, TIMEOUT_SECONDS, DataFile, DataNotFound, keep


def fetch_members(url: str, folder: Path, files: Sequence[DataFile]) -> None:
    """Fetch the tar file at ``url`` and put ``files`` of it into ``folder``, wherever in it they lie, nothing else.

    It is read as it arrives, up to the last of ``files``. Each one appears in ``folder`` once it is whole and verified.

    Raises:
        DataNotFound: If the address does not answer, breaks off, sends no tar file, or one without some of ``files``.
        DataCorrupt: If a file has another sha256 than the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ", ".join(file.name for file in files)
    wanted = {file.name: file for file in files}
    try:
        with urlopen(url, timeout=TIMEOUT_SECONDS) as response, tarfile.open(fileobj=response, mode="r|*") as archive:
            while wanted and (member := archive.next()) is not None:
                # The name alone: what an archive says about folders is not to decide where files go.
                name = PurePosixPath(member.name).name
                content = archive.extractfile(member) if member.isfile() and name in wanted else None
                if content is not None:
                    file = wanted.pop(name)
                    keep(iter(partial(content.read, CHUNK), b""), folder / name, file.sha256, f"{url}, {member.name}")
            if wanted and response.length:
                raise EOFError(f"broke off {response.length} bytes before the end")
    except (OSError, EOFError, HTTPException, tarfile.TarError, zlib.error) as error:
        reason = str(error) or type(error).__name__
        raise DataNotFound(f"could not fetch {url} ({reason}); try again, or put {names} into {folder}") from error
    if wanted:
        raise DataNotFound(f"{url} ends without {', '.join(wanted)}; get that elsewhere and put it into {folder}")
