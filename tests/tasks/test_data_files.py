"""Files of a data set: found, verified, fetched from a web site on this machine."""

import gzip
import hashlib
from pathlib import Path

import pytest

from lightning_prune.tasks.data.files import DataCorrupt, DataFile, DataNotFound, paths, prepare

CONTENT = b"The quick brown fox. " * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Site = tuple[str, Path]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_what_is_missing_goes_where_and_how_to_get_it_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(CONTENT)
    files = [DataFile(name, url=f"http://127.0.0.1:1/{name}") for name in ("there", "one", "two")]
    with pytest.raises(DataNotFound) as caught:
        prepare(tmp_path, files, download=False)
    message = str(caught.value)
    assert message == (f"not found in {tmp_path}: one, two; put them there or set data.download=true to fetch them")
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("download", [False, True])
def test_a_file_without_an_address_is_for_the_user_to_get(tmp_path: Path, download: bool) -> None:
    with pytest.raises(DataNotFound, match=r"put it there; no address to fetch it \(any text\)$"):
        prepare(tmp_path, [DataFile("text", note="any text")], download)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_is_there_is_verified_plain_or_compressed(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / ("fox.gz" if compressed else "fox")
    path.write_bytes(gzip.compress(CONTENT) if compressed else CONTENT)
    prepare(tmp_path, [DataFile("fox", SHA256)], download=False)
    assert paths(tmp_path, [DataFile("fox", SHA256)]) == [path]


@pytest.mark.parametrize("download", [False, True])
def test_a_wrong_file_is_refused_and_never_overwritten(tmp_path: Path, site: Site, download: bool) -> None:
    address, published = site
    (published / "fox").write_bytes(CONTENT)
    (tmp_path / "fox").write_bytes(b"mine")
    with pytest.raises(DataCorrupt, match=f"fox: sha256 is [0-9a-f]{{64}}, not the published {SHA256}"):
        prepare(tmp_path, [DataFile("fox", SHA256, f"{address}/fox")], download)
    assert (tmp_path / "fox").read_bytes() == b"mine"


def test_a_broken_gzip_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "fox.gz").write_bytes(gzip.compress(CONTENT)[:-9])
    with pytest.raises(DataCorrupt, match=r"fox\.gz: broken gzip file"):
        prepare(tmp_path, [DataFile("fox", SHA256)], download=False)


@pytest.mark.parametrize("sha256", [SHA256, None])
@pytest.mark.parametrize("address", ["fox", "fox.gz"])
def test_a_download_arrives_whole_and_plain(tmp_path: Path, site: Site, address: str, sha256: str | None) -> None:
    base, published = site
    (published / "fox").write_bytes(CONTENT)
    (published / "fox.gz").write_bytes(gzip.compress(CONTENT))
    folder = tmp_path / "new" / "raw"
    prepare(folder, [DataFile("fox", sha256, f"{base}/{address}")], download=True)
    assert names(folder) == {"fox"}
    assert (folder / "fox").read_bytes() == CONTENT


def test_a_download_with_another_content_leaves_nothing(tmp_path: Path, site: Site) -> None:
    base, published = site
    (published / "fox").write_bytes(CONTENT + b"!")
    folder = tmp_path / "raw"
    with pytest.raises(DataCorrupt, match=f"{base}/fox: sha256 is .*, not the published {SHA256}; nothing kept"):
        prepare(folder, [DataFile("fox", SHA256, f"{base}/fox")], download=True)
    assert names(folder) == set()


@pytest.mark.parametrize("name", ["fox", "fox.gz"])
def test_a_download_that_breaks_off_leaves_nothing(tmp_path: Path, site: Site, name: str) -> None:
    base, published = site
    (published / name).write_bytes(gzip.compress(CONTENT) if name.endswith(".gz") else CONTENT)
    folder = tmp_path / "raw"
    # No sha256: the break itself must be noticed.
    with pytest.raises(DataNotFound, match=f"could not fetch {base}/half/{name} .*; try again, or put fox into "):
        prepare(folder, [DataFile("fox", None, f"{base}/half/{name}")], download=True)
    assert names(folder) == set()


def test_an_address_without_the_file_is_named(tmp_path: Path, site: Site) -> None:
    base, _ = site
    with pytest.raises(DataNotFound, match=f"could not fetch {base}/fox .*404"):
        prepare(tmp_path / "raw", [DataFile("fox", SHA256, f"{base}/fox")], download=True)


def test_a_site_that_sends_no_gzip_is_named(tmp_path: Path, site: Site) -> None:
    base, published = site
    (published / "fox.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataNotFound, match=r"could not fetch .*fox\.gz .*gzip"):
        prepare(tmp_path / "raw", [DataFile("fox", SHA256, f"{base}/fox.gz")], download=True)


def test_only_what_is_missing_is_fetched(tmp_path: Path, site: Site) -> None:
    base, published = site
    (tmp_path / "one").write_bytes(CONTENT)
    (published / "two").write_bytes(CONTENT)
    prepare(tmp_path, [DataFile(name, SHA256, f"{base}/{name}") for name in ("one", "two")], download=True)
    assert names(tmp_path) == {"one", "two", "site"}
