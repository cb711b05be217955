"""Reads a run back from what wandb wrote to disk: `run-ID.wandb`, a LevelDB log of protobuf records."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768
FULL, FIRST, LAST = 1, 2, 4


def records(file: Path) -> Iterator[bytes]:
    """Yield the records: after 7 bytes of head, chunks of (crc, length, kind) and data; none lies across two blocks."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        chunk = data[at + 7 : at + 7 + length]
        if len(chunk) < length:
            return
        at += 7 + length
        whole = chunk if kind in (FULL, FIRST) else whole + chunk
        if kind in (FULL, LAST):
            yield whole


@dataclass
class WandbRun:
    """One run: what was logged, row by row, the summary, and the artifacts.

    Attributes:
        folder: the run's folder.
        history: one dict a row; what wandb nests, such as the path of an image, is under `name/path`.
        summary: the latest value of everything, and what was put there by hand.
        artifacts: name -> {name of a file in it: where it lies on disk}.
        metadata: name of an artifact -> its metadata.
        finished: whether the end of the run is on disk.
        config: its hyper-parameters; what was changed later counts.
        about: id, name, group, job type and tags.
    """

    folder: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Path]] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def series(self, name: str) -> list[tuple[int, Any]]:
        """Return (step, value) of every row that has that name."""
        return [(row["trainer/global_step"], row[name]) for row in self.history if name in row]

    def media(self, name: str) -> list[Path]:
        """Return the files that were logged under that name."""
        return [self.folder / "files" / row[f"{name}/path"] for row in self.history if f"{name}/path" in row]


def read(folder: Path, timeout: float = 30.0, newest: bool = False) -> WandbRun:
    """Read the one finished run, or the newest part of one, in a folder that was given to wandb as its `dir`."""
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))  # by the time that they began
    assert newest or len(files) == 1
    file = files[-1]
    end = time.monotonic() + timeout
    while True:  # wandb.finish() returns before wandb's own process has written all
        run = _read(file)
        if run.finished:
            return run
        assert time.monotonic() < end, f"wandb did not finish {file} in {timeout} s"
        time.sleep(0.05)


def _read(file: Path) -> WandbRun:
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    run = WandbRun(file.parent)
    for data in records(file):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            run.summary |= _items(record.summary.update)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            _artifact(run, record.request.log_artifact.artifact)
        elif kind == "artifact":
            _artifact(run, record.artifact)
        elif kind == "run":
            one = record.run
            run.about = {"id": one.run_id, "name": one.display_name, "group": one.run_group}
            run.about |= {"job_type": one.job_type, "tags": list(one.tags)}
            run.config |= _items(one.config.update)
        elif kind == "config":
            run.config |= _items(record.config.update)
        elif kind == "exit":
            run.finished = True
    return run


def _items(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _artifact(run: WandbRun, artifact: Any) -> None:
    run.artifacts[artifact.name] = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    run.metadata[artifact.name] = json.loads(artifact.metadata or "{}")
