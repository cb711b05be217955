"""What is imported by which name: the public ones, short and long; with torch alone, and no sooner than needed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_prune

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "lightning_prune": "PruningCallback Pruner LearnedMasks DynamicGates PruningRounds Report Targets",
    "lightning_prune.schedule": "Schedule Polynomial Geometric Iterative OneShot",
    "lightning_prune.pattern": "Pattern Channel NofM Element Block",
    "lightning_prune.criterion": "Criterion Magnitude",
    "lightning_prune.shrink": "shrink save_shrunk load_shrunk",
    "lightning_prune.rounds": "PruningRounds",
    "lightning_prune.callbacks": "PruningCallback SparseModelCheckpoint SparseEarlyStopping Rewind",
    "lightning_prune.learned": "LearnedMasks",
    "lightning_prune.dynamic": "DynamicGates put_gates Counting",
    "lightning_prune.pruning": "Pruner",
    "lightning_prune.cost": "count latency compare",
    "lightning_prune.export": "to_onnx to_int8 to_exported_program to_semi_structured to_csr save_compact load_compact",
    # the long forms that configs use
    "lightning_prune.schedule.polynomial": "Polynomial",
    "lightning_prune.criterion.magnitude": "Magnitude",
    "lightning_prune.pattern.channel": "Channel",
    "lightning_prune.scope.erk": "ERK",
    "lightning_prune.selection.exact": "Exact",
    "lightning_prune.targets": "Targets",
    "lightning_prune.hparams": "parse",
    "lightning_prune.report": "Report",
}


def run(code: str) -> str:
    """Run code in a new process, in the checkout."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module: str) -> None:
    for name in PUBLIC[module].split():
        assert getattr(importlib.import_module(module), name)


def test_the_package_lists_its_names_and_knows_no_other() -> None:
    assert set(lightning_prune.__all__) == set(PUBLIC["lightning_prune"].split())
    assert set(lightning_prune.__all__) <= set(dir(lightning_prune))
    with pytest.raises(AttributeError, match="no attribute 'PruningCalback'"):
        lightning_prune.PruningCalback  # noqa: B018  # pyright: ignore


def test_importing_the_package_imports_nothing_else() -> None:
    heavy = "{'torch', 'numpy', 'pytorch_lightning', 'lightning', 'hydra', 'wandb', 'matplotlib', 'sklearn'}"
    assert run(f"import sys, lightning_prune; print({heavy} & set(sys.modules))") == "set()"


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
EXTRAS = (
    *(
        "pytorch_lightning",
        "lightning",
        "lightning_fabric",
        "torchmetrics",
        "hydra",
        "omegaconf",
        "wandb",
        "matplotlib",
    ),
    *("sklearn", "scipy", "safetensors", "torch_pruning", "onnx", "onnxruntime", "onnxscript", "torchao"),
)


def test_below_the_callbacks_everything_imports_and_prunes_with_torch_alone() -> None:
    done = run(
        WITHOUT.format(missing=set(EXTRAS))
        + """
import importlib, pkgutil, lightning_prune
for module in pkgutil.walk_packages(lightning_prune.__path__, "lightning_prune."):
    wing = module.name.split(".")[1]
    if wing in ("callbacks", "rounds", "cli", "tasks", "conf", "recipes", "__main__"):
        continue
    importlib.import_module(module.name)
import torch
from lightning_prune import LearnedMasks, Pruner
from lightning_prune.schedule import OneShot
model = torch.nn.Linear(10, 10)
pruner = Pruner(OneShot(0.5, 1))
pruner.attach(model)
pruner.after_step(1)
print(int((model.weight == 0).sum()), pruner.strip().sparsity)
"""
    )
    assert done == "50 0.5"


@pytest.mark.parametrize("name", ["PruningCallback", "PruningRounds"])
def test_without_lightning_a_name_that_needs_it_says_how_to_install_it(name: str) -> None:
    done = run(
        WITHOUT.format(missing={"pytorch_lightning", "lightning"})
        + f"""
try:
    from lightning_prune import {name}
except ImportError as error:
    print(error)
"""
    )
    assert done == f"{name} needs pytorch_lightning: pip install 'lightning-prune[lightning]'"


def test_without_numpy_a_pruner_prunes() -> None:
    code = """
import sys
sys.modules["numpy"] = None
import importlib.util as util
found = util.find_spec
util.find_spec = lambda name, *rest: None if name == "numpy" else found(name, *rest)
import warnings
warnings.simplefilter("ignore")
import torch
from lightning_prune import Pruner
from lightning_prune.schedule import OneShot
net = torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.Linear(30, 20))
pruner = Pruner(OneShot(0.9, 0))
pruner.attach(net)
pruner.update(0)
report = pruner.strip()
print(sum(int((p == 0).sum()) for p in net.parameters() if p.dim() > 1), report.sparsity)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["1620", "0.9"], done.stderr
