"""`lightning-prune sensitivity`: what pruning each layer alone costs, and sparsities by layer made from that."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_prune.cli import trusted
from lightning_prune.cli.as_json import as_json
from lightning_prune.cli.errors import UserError
from lightning_prune.cli.quiet import quiet

if TYPE_CHECKING:
    from lightning_prune.cli.build import Parts
    from lightning_prune.cli.sensitivity_curves import Sensitivity
    from lightning_prune.pruning import Pruner

LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
_SECTIONS = ("task", "data", "prune", "pruner", "rounds", "first", "pruning_hparams", "trainer")
_BATCHES = 20
_SPARSITY = 0.9


@dataclass(frozen=True)
class Source:
    """What is measured: the config to build, the same as a run would leave it, and where the weights are."""

    config: Any
    text: str
    weights: Path


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = _parser()
    options = parser.parse_intermixed_args(argv)
    with _source(options) as source, quiet():
        from lightning_prune.cli import sensitivity_plan

        plan_of = sensitivity_plan.Template.read(source.text, source.weights)
        result = _measured(source, options, options.sparsity or plan_of.sparsity or _SPARSITY)
    out: Path = options.out or (options.run if options.run.is_dir() else source.weights.parent) / "sensitivity"
    out.mkdir(parents=True, exist_ok=True)
    result.save(out)
    plan = plan_of.save(out, result.shares, result.reached)

    from lightning_prune.cli.sensitivity_picture import save_picture

    picture = save_picture(result, out / "sensitivity.png", f"{source.weights}: each layer pruned alone")
    command = sensitivity_plan.command(plan)
    if options.json:
        print(as_json(result.facts() | {"plan_file": str(plan), "command": command}))
    else:
        print(f"{result.text()}\n\n{picture}\ntrain with these sparsities, from these weights:\n{command}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lightning-prune sensitivity",
        description="Prune each layer of a trained model alone, to several sparsities and all others left as they are, "
        "and see what that costs on batches of the validation. With a pattern of whole units (Channel) a layer is a "
        "group of coupled units. Then find the sparsities by layer that come to a wanted one in all with the least "
        "summed rise of the loss, and measure the model pruned to them. Nothing is trained, and no file of the run is "
        "changed. A run's folder is read as shrink reads one: of other packages nothing is called unless trusted.",
        epilog="How the sparsities are found: again and again the layer whose loss rises least for each weight that "
        "goes gives up as much as it does at its next level, the last one only what is missing. plan.yaml, beside the "
        "curves, is the run's config with them, and the command that is printed last trains by it.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder; or with -cn a checkpoint")
    parser.add_argument("words", nargs="*", default=[], metavar="key=value", help="with -cn: overrides, as for train")
    parser.add_argument("-cn", "--config-name", metavar="RECIPE", help="whose task and data a checkpoint is of")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="your own recipes, with -cn")
    parser.add_argument("--sparsity", type=float, help="the wanted one in all; by default the run's own, else 0.9")
    parser.add_argument("--levels", type=_levels, default=LEVELS, help=f"{','.join(f'{each:g}' for each in LEVELS)}")
    parser.add_argument("--criterion", metavar="NAME", help="measure by this one instead of the run's: magnitude, lamp")
    parser.add_argument("--batches", type=int, default=_BATCHES, help=f"of validation, for each point; {_BATCHES}")
    parser.add_argument("--loss", metavar="NAME", help="which metric of validation rises; the first that ends in loss")
    parser.add_argument("--weights", type=Path, help="other weights of a run's model, .pt, .ckpt or .safetensors")
    parser.add_argument("--out", type=Path, help="where table, picture and plan go; sensitivity/ beside the weights")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON instead")
    trusted.add_option(parser)
    return parser


def _levels(text: str) -> tuple[float, ...]:
    values = tuple(sorted({float(part) for part in text.split(",")}))
    if not all(0.0 < value < 1.0 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: levels lie between 0 and 1; 0 itself is always measured")
    return values


@contextmanager
def _source(options: argparse.Namespace) -> Generator[Source, None, None]:
    """Give what is measured. Raises UserError for what is missing or out of range."""
    run: Path = options.run
    if options.sparsity is not None and not 0.0 < options.sparsity < 1.0:
        raise UserError(f"--sparsity={options.sparsity:g} must lie between 0 and 1")
    if options.batches < 1:
        raise UserError(f"--batches={options.batches} must be 1 at least")
    if options.config_name is None:
        if options.words or options.config_dir:
            what = options.words[0] if options.words else f"--config-dir={options.config_dir}"
            raise UserError(f"{what} goes with a recipe: -cn RECIPE; a run's folder is measured as it was trained")
        if run.is_file():
            raise UserError(f"{run} is a file: name the recipe of its model, -cn RECIPE, or the folder of its run")
        config = trusted.config_of(run, _SECTIONS, trusted.given(options))
        if "download" in (config.data or {}):
            config.data.download = False
        yield Source(config, (run / "config.yaml").read_text(encoding="utf-8"), _weights(options.weights or run))
        return
    if options.weights is not None:
        raise UserError(f"--weights={options.weights}: with -cn, RUN names the weights")
    from lightning_prune.cli import compose, family, saved_config
    from lightning_prune.cli.arguments import in_quotes, read

    weights = _weights(run)
    own = ["--config-dir", options.config_dir] if options.config_dir else []
    words = [f"++weights={in_quotes(weights)}", "++ckpt_path=null"]
    with ExitStack() as stack:
        config = stack.enter_context(compose.composed(read(["-cn", options.config_name, *own, *options.words, *words])))
        family.begin(config)
        yield Source(config, saved_config.to_yaml(config), weights)


def _weights(path: Path) -> Path:
    from lightning_prune.cli import checkpoints

    file = checkpoints.file_of(path)
    if not file.is_file():
        raise UserError(f"{path}: there are no such weights")
    return file.absolute()


def _measured(source: Source, options: argparse.Namespace, sparsity: float) -> Sensitivity:
    from lightning_prune.cli import build, evaluation
    from lightning_prune.cli.sensitivity_curves import measure
    from lightning_prune.rounds.alone import Layers
    from lightning_prune.rounds.trainer import evaluate, seed_everything

    source.config.weights = str(source.weights)
    parts = build.parts(source.config)
    build.load_weights(source.config, parts.task)
    if not evaluation.has(parts, "validation"):
        raise UserError("there is no validation to measure on: the task needs a validation_step, the data a loader")
    trainer = _trainer(source.config, parts, options.batches)

    def metrics() -> dict[str, float]:
        seed_everything(source.config.seed)  # the same examples each time, should the loader draw some
        return evaluate(trainer, parts.task, parts.data, ("validate",))

    layers = Layers(parts.task, _pruner(parts, options.criterion))
    try:
        return measure(layers, options.levels, metrics, options.loss, sparsity)
    finally:
        layers.release()


def _trainer(config: Any, parts: Parts, batches: int) -> Any:
    from omegaconf import open_dict

    from lightning_prune.cli import build
    from lightning_prune.cli.compressed import on_one_device

    alone = on_one_device(config)
    with open_dict(alone):
        alone.trainer.limit_val_batches = batches
    return build.plain_trainer(alone, parts.task)


def _pruner(parts: Parts, criterion: str | None) -> Pruner:
    """Return the pruner whose ideas are measured. Raises UserError if there is no such criterion."""
    from lightning_prune.pruning import Pruner
    from lightning_prune.schedule import OneShot

    of = parts.prune.pruner
    assert isinstance(of, Pruner)  # the plan's template says so
    idea = of.criterion if criterion is None else _criterion(criterion)
    return Pruner(OneShot(0.5, 0), idea, of.pattern, selection=of.selection, targets=of.targets)


def _criterion(name: str) -> Any:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from lightning_prune.cli.arguments import folder

    options = {file.stem: file for file in sorted((folder("conf") / "pruner/criterion").glob("*.yaml"))}
    if name not in options:
        raise UserError(f"--criterion={name}: there are {', '.join(options)}")
    return instantiate(OmegaConf.load(options[name]), _convert_="all")
