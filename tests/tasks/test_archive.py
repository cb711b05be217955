"""Files out of a tar file on a web site on this machine."""

import hashlib
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from lightning_prune.tasks.data.archive import fetch_members
from lightning_prune.tasks.data.files import DataCorrupt, DataFile, DataNotFound

CONTENT = {"one": b"The quick brown fox. " * 1000, "two": b"jumps over the lazy dog"}
FILES = [DataFile(name, hashlib.sha256(content).hexdigest()) for name, content in CONTENT.items()]
Site = tuple[str, Path]


def pack(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, kind in (("set/two", tarfile.DIRTYPE), ("one", tarfile.SYMTYPE)):  # of the right name, but no files
            other = tarfile.TarInfo(name)
            other.type, other.linkname = kind, "/etc/passwd"
            archive.addfile(other)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("archive", ["set.tar", "set.tar.gz"])
def test_the_files_asked_for_come_out_and_nothing_else(tmp_path: Path, site: Site, archive: str) -> None:
    address, published = site
    pack(published / archive, {"set/readme": b"hello", "set/deep/one": CONTENT["one"], "two": CONTENT["two"]})
    fetch_members(f"{address}/{archive}", tmp_path / "new" / "raw", FILES)
    assert {path.name: path.read_bytes() for path in (tmp_path / "new" / "raw").iterdir()} == CONTENT
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("name", ["../../one", "/one", "a/../../one"])
def test_a_name_that_points_elsewhere_does_not_lead_there(tmp_path: Path, site: Site, name: str) -> None:
    address, published = site
    pack(published / "set.tar", {name: CONTENT["one"]})
    fetch_members(f"{address}/set.tar", tmp_path / "a" / "b", FILES[:1])
    assert names(tmp_path / "a") == {"b"}
    assert names(tmp_path / "a" / "b") == {"one"}


def test_a_file_with_another_content_is_refused(tmp_path: Path, site: Site) -> None:
    address, published = site
    pack(published / "set.tar", {"set/one": CONTENT["one"], "set/two": b"wrong"})
    with pytest.raises(DataCorrupt, match=r"set\.tar, set/two: sha256 is .*, not the published"):
        fetch_members(f"{address}/set.tar", tmp_path / "raw", FILES)
    assert names(tmp_path / "raw") == {"one"}


def test_an_archive_without_the_file_is_named(tmp_path: Path, site: Site) -> None:
    address, published = site
    pack(published / "set.tar", {"set/one": CONTENT["one"]})
    with pytest.raises(DataNotFound, match=rf"{address}/set\.tar ends without two; get that elsewhere .*raw"):
        fetch_members(f"{address}/set.tar", tmp_path / "raw", FILES)


@pytest.mark.parametrize("path", ["half/set.tar", "half/set.tar.gz", "gone.tar", "page.tar.gz"])
def test_an_address_that_sends_no_whole_archive_is_named(tmp_path: Path, site: Site, path: str) -> None:
    address, published = site
    for name in ("set.tar", "set.tar.gz"):
        pack(published / name, {"set/one": CONTENT["one"], "set/two": CONTENT["two"]})
    (published / "page.tar.gz").write_text("<html>not found</html>", encoding="utf-8")
    with pytest.raises(DataNotFound, match=rf"could not fetch {address}/{path} \(.+\); try again, or put one, two "):
        fetch_members(f"{address}/{path}", tmp_path / "raw", FILES)
    assert names(tmp_path / "raw") <= {"one"}
