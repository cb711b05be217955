"""What the tests of tasks share."""

import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

MakeTrainer = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small gain nothing from threads, and wait for them for seconds where other processes run beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data_root() -> Path:
    """The folder of the real data sets; skips the test where there is none."""
    root = os.environ.get("LIGHTNING_PRUNE_DATA")
    if root is None:
        pytest.skip(
            "set LIGHTNING_PRUNE_DATA to the folder that holds mnist/raw, fashion_mnist/raw, cifar10 and shakespeare"
        )
    return Path(root)


@pytest.fixture
def make_trainer() -> MakeTrainer:
    """A trainer on the CPU that writes nothing but what it is told to."""

    def make(**options: Any) -> Trainer:
        quiet: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        return Trainer(**{**quiet, **options})

    return make


@pytest.fixture
def idx_bytes() -> Callable[[int, tuple[int, ...], bytes], bytes]:
    """Writes an IDX file: type, shape, the numbers' bytes."""

    def write(code: int, shape: tuple[int, ...], numbers: bytes) -> bytes:
        return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape) + numbers

    return write


class _Site(SimpleHTTPRequestHandler):
    """Serves a folder; of a path that starts with ``half/``, it announces the whole file and sends half of it."""

    def do_GET(self) -> None:
        if not self.path.startswith("/half/"):
            super().do_GET()
            return
        content = Path(self.directory, self.path.removeprefix("/half/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web site on this machine: its address without a slash at the end, and the folder it serves."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Site, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()
