"""Folders as runs leave them, made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_prune.page import Recorder

NAMES = ("net.0.weight", "net.2.weight")


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Module()
        made.net = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5))
    return made


def write(folder: Path, layers: Mapping[str, str] | None = None, **facts: Any) -> Path:
    """Write a finished run of two layers, half of whose weights are zero.

    Args:
        folder: the run's.
        layers: other names for its layers.
        facts: other entries of `report.json`; None leaves one out.
    """
    folder.mkdir(parents=True)
    names = [(layers or {}).get(name, name) for name in NAMES]
    folder.joinpath("config.yaml").write_text(
        "defaults:\n- run_folder\n- _self_\nrecipe: made_up\nseed: 0\npruner:\n  final_sparsity: 0.5\n",
        encoding="utf-8",
    )
    rows = ["step,pruning/sparsity,pruning/target_sparsity,val/accuracy,train/loss," + ",".join(logged(names))]
    rows += [
        f"{10 * i},{0.05 * i},{0.05 * i},{0.9 + 0.005 * i},{1 / (i + 1)},{0.05 * i},{0.05 * i},.1,.2" for i in range(11)
    ]
    folder.joinpath("metrics.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    made, seen = model(), Recorder(folder)
    seen.before(made)
    weights: list[dict[str, Any]] = []
    for name, given in zip(NAMES, names, strict=True):
        weight = made.get_parameter(name)
        with torch.no_grad():
            weight[::2] = 0
        zeros = int((weight == 0).sum())
        size, shape = weight.numel(), list(weight.shape)
        weights.append({"name": given, "shape": shape, "size": size, "zeros": zeros, "threshold": 0.125})
    seen.after(made)
    seen.costs({"macs": 340.0, "live_macs": 170.0, "file_bytes": 2345.0, "latency_ms": 0.25, "repeats": 10.0})
    seen.keep(list(NAMES))
    if layers:
        details = json.loads(folder.joinpath("details.json").read_text(encoding="utf-8"))
        details["weights"] = {layers.get(name, name): each for name, each in details["weights"].items()}
        folder.joinpath("details.json").write_text(json.dumps(details), encoding="utf-8")
    zeros, size = sum(each["zeros"] for each in weights), sum(each["size"] for each in weights)
    report = {
        "recipe": "made_up",
        "interrupted": False,
        "test": {"test/accuracy": 0.9375},
        "steps": 110,
        "sparsity": zeros / size,
        "final_sparsity": 0.5,
        "parameters": size + 25,
        "weights": weights,
        "skipped": {"net.0.bias": "bias", "net.2.bias": "bias"},
        "versions": {"torch": "2"},
    } | facts
    text = json.dumps({key: value for key, value in report.items() if value is not None})
    folder.joinpath("report.json").write_text(text, encoding="utf-8")
    return folder


def logged(names: list[str]) -> list[str]:
    return [f"pruning/{what}/{name}" for what in ("sparsity", "threshold") for name in names]
