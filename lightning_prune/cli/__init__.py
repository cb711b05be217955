"""The command line: `lightning-prune COMMAND`. One command a file; Hydra is known here alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from lightning_prune.cli import here
from lightning_prune.cli.errors import explain

HELP = """\
usage: lightning-prune COMMAND ...

  train -cn RECIPE [key=value ...]    train and prune; writes a folder with config, metrics, report, page, model
  compress CHECKPOINT -cn RECIPE ...  a trained model made smaller to a target: speedup=2, macs=0.5 or parameters=0.4
  plan -cn RECIPE [key=value ...]     what would be pruned, and when, without training; --json
  eval RUN|FILE [--run-once]          metrics on the run's test data; follows a run that is going on
  inspect FILE|RUN ... [--json]       sparsity by layer of checkpoints, this library's or any other
  sensitivity RUN                     what pruning each layer alone costs; a plan of sparsities by layer, for train
  report RUN ...                      one HTML page about a run, or several side by side; train writes it, too
  compare FOLDER ...                  accuracy and loss against sparsity, of any set of runs: table, picture, wandb
  diff A B                            two checkpoints or runs: sparsity, overlap of masks, what moved, by layer
  strip FILE                          a checkpoint from the midst of a run as plain weights, masks folded in
  bench RUN                           a run's model beside the dense one: latency by batch and threads, size, MACs
  export RUN --format compact|onnx    a run's model in another format: small file, ONNX, 8 bits, torch.export, 2:4, CSR
  shrink RUN                          a run's model without its dead units, smaller and dense
  threshold-sweep RUN                 learned masks: accuracy and size for other thresholds, without training
  completion bash|zsh|fish            what a shell needs to complete all this on Tab
  COMMAND --help                      more about one of them, and the recipes

examples:
  lightning-prune train -cn digits_cnn
  lightning-prune train -cn mnist_lenet300 pruner/schedule=geometric pruner.schedule.final_sparsity=0.98
  lightning-prune inspect runs/digits_cnn/*/model.pt
  lightning-prune compare runs/digits_cnn runs/digits_mlp

An error is one line; HYDRA_FULL_ERROR=1 shows where it came from.
"""

COMMANDS = (
    "train",
    "compress",
    "plan",
    "eval",
    "inspect",
    "compare",
    "diff",
    "strip",
    "bench",
    "export",
    "shrink",
    "threshold-sweep",
    "sensitivity",
    "report",
    "completion",
)
"""Each is a module here, with a `main`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 when all went well.

    Args:
        argv: the command and its arguments; None takes those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if arguments else 1
    with here.searched(arguments):
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        return _command(arguments[0])(arguments[1:])
    except BrokenPipeError:  # piped into head, say, which has read enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the interpreter's last flush
        return 1
    except KeyboardInterrupt:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print("lightning-prune: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        line = explain(error)
        if line is None:
            raise
        print(f"lightning-prune: {line}", file=sys.stderr)
        return 1


def _command(name: str) -> Callable[[list[str]], int]:
    """Return what runs a command. Its module alone is imported: others may take seconds."""
    if name in COMMANDS:
        return import_module(f"lightning_prune.cli.{name.replace('-', '_')}").main
    if name == "--version":
        return _version
    raise ValueError(
        f"unknown command {name!r}: there are {', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}; see lightning-prune --help"
    )


def _version(_: list[str]) -> int:
    import lightning_prune

    print(f"lightning-prune {lightning_prune.__version__}")
    return 0
