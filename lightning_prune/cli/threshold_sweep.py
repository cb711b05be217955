"""`lightning-prune threshold-sweep`: other thresholds on learned probabilities, without training again."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from lightning_prune.cli import trusted
from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.errors import UserError
from lightning_prune.cli.quiet import quiet

THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)

_SECTIONS = ("task", "data", "prune", "pruner", "rounds", "first", "pruning_hparams", "trainer")


@dataclass(frozen=True)
class Point:
    """The smaller model at one threshold: zeros before it was shrunk, parameters, MACs, units kept, metrics."""

    threshold: float
    zeros: int
    parameters: int
    macs: int
    units: int
    metrics: dict[str, float]


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "lightning-prune threshold-sweep",
        description="Take the units with a learned probability of at most T out of the model of a run, for several T, "
        "and see what is left: accuracy, size and MACs. Nothing is trained. RUN gets threshold_sweep.json and .png. "
        "Task, data and trainer that RUN/config.yaml names are built if their classes are ours, PyTorch's or trusted "
        "(and Lightning's Trainer); no other code is run, and nothing is downloaded.",
        epilog="Choose T by the metrics of validation, where there are some: those of the test are to be read once.",
    )
    parser.add_argument("run", type=Path, help="a run's folder with learned.pt: pruner=learned, without a schedule")
    parser.add_argument("--thresholds", type=_thresholds, default=THRESHOLDS, help="such as 0.1,0.5,0.9")
    parser.add_argument("--extract", type=float, metavar="T", help="write the smaller model at this threshold as well")
    parser.add_argument("--out", type=Path, help="where that goes: model.safetensors and shrunk.json; RUN/extracted")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    trusted.add_option(parser)
    options = parser.parse_args(argv)
    trust = trusted.given(options)
    run: Path = options.run
    for name in ("config.yaml", "learned.pt"):
        if not (run / name).is_file():
            raise UserError(f"{run / name} is missing: train with pruner=learned and pruner/schedule=none")
    wanted = [options.extract] if options.extract is not None else []
    if any(not 0.0 <= t < 1.0 for t in wanted):
        raise UserError(f"--extract={options.extract}: a threshold lies in [0, 1)")
    with quiet():
        points = list(
            sweep(run, [*options.thresholds, *wanted], options.extract, options.out or run / "extracted", trust)
        )

    from lightning_prune.cli.threshold_picture import save_picture

    shown = sorted({point.threshold: point for point in points}.values(), key=lambda point: point.threshold)
    (run / "threshold_sweep.json").write_text(
        json.dumps([asdict(point) for point in shown], indent=1) + "\n", encoding="utf-8"
    )
    save_picture(shown, run / "threshold_sweep.png", f"{run.name}: units with p > T")
    if options.json:
        print(as_json([asdict(point) for point in shown]))
        return 0
    print(f"{table(shown)}\n\n{run / 'threshold_sweep.png'}")
    if options.extract is not None:
        print(f"{options.out or run / 'extracted'} holds the model at T = {options.extract:g}")
    return 0


def sweep(
    run: Path, thresholds: Sequence[float], extract: float | None, out: Path, trust: trusted.Trust
) -> Iterator[Point]:
    """Iterate over the models at these thresholds; the one at `extract` is written to `out`."""
    config = trusted.config_of(run, _SECTIONS, trust)

    from lightning_prune import cost
    from lightning_prune.cli import build, checkpoints
    from lightning_prune.learned import LearnedMasks
    from lightning_prune.rounds.trainer import evaluate
    from lightning_prune.shrink import save_shrunk, shrink

    saved = checkpoints.load(run / "learned.pt")
    if not (isinstance(saved, dict) and isinstance(saved.get("model"), dict) and isinstance(saved.get("state"), dict)):
        raise UserError(f"{run / 'learned.pt'} was not left by a run: it needs the keys model and state")
    if "download" in (config.data or {}):
        config.data.download = False
    parts = build.parts(config)
    masks: Any = parts.prune.pruner
    if not isinstance(masks, LearnedMasks):
        raise UserError(f"{run}/config.yaml: the pruner is no LearnedMasks, which alone learns probabilities")
    trainer = build.plain_trainer(config, parts.task)
    example = getattr(masks.pattern, "example_inputs", None)
    parts.task.load_state_dict(saved["model"])
    for threshold in thresholds:
        masks.threshold = threshold
        model = copy.deepcopy(parts.task)
        masks.load_state_dict(saved["state"])
        masks.attach(model, trial=True)
        zeros = masks.strip().zeros
        shrunk = shrink(model.eval(), example)
        if threshold == extract:
            save_shrunk(shrunk, out)
        size = cost.count(shrunk.model, example)
        model = cast(Any, shrunk.model)
        metrics = evaluate(trainer, model, parts.data, ("validate", "test"))
        units = sum(group.after for group in shrunk.report.groups)
        yield Point(threshold, zeros, size.parameters, size.macs, units, metrics)


def table(points: Sequence[Point]) -> str:
    """Return a table for people."""
    from lightning_prune.report import columns

    names = list(dict.fromkeys(name for point in points for name in point.metrics))
    rows: list[tuple[str, ...]] = [("threshold", "zeros", "units", "parameters", "MACs", *names)]
    for point in points:
        metrics = (f"{point.metrics[name]:.4f}" if name in point.metrics else "" for name in names)
        sizes = [f"{number:,}" for number in (point.zeros, point.units, point.parameters, point.macs)]
        rows.append((f"{point.threshold:g}", *sizes, *metrics))
    return columns(rows, rules={1})


def _thresholds(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    if not all(0.0 <= value < 1.0 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: thresholds lie in [0, 1)")
    return values
