"""A tiny BERT classifier: fine-tuned and pruned, tested at its best checkpoint, made smaller, saved and loaded again.

python -m tests.clients.transformers_classifier FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification

from lightning_prune import Pruner, PruningCallback
from lightning_prune.callbacks import SparseModelCheckpoint
from lightning_prune.pattern import Channel
from lightning_prune.schedule import Polynomial
from lightning_prune.scope import Uniform
from lightning_prune.shrink import load_pretrained, save_pretrained
from lightning_prune.targets import Targets

VOCABULARY, LENGTH = 20, 6


class Classifier(pl.LightningModule):
    """Tells whether the first of some tokens is in the upper half of the vocabulary."""

    def __init__(self, lr: float = 5e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": LENGTH}
        sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 2}
        sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # its draws would not be resumed
        config = BertConfig(vocab_size=VOCABULARY, **sizes)
        self.net: Any = BertForSequenceClassification(config)
        self.lr = lr
        self.example_input_array = torch.zeros(1, LENGTH, dtype=torch.long)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.net(input_ids=input_ids).logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.net(input_ids=batch[0], labels=batch[1]).loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        output = self.net(input_ids=batch[0], labels=batch[1])
        self.log("val_loss", output.loss)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def batches(seed: int, number: int = 8) -> DataLoader[Any]:
    """Return batches of tokens with their labels."""
    tokens = torch.randint(0, VOCABULARY, (16 * number, LENGTH), generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(tokens, (tokens[:, 0] >= VOCABULARY // 2).long()), batch_size=16)


def trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """Return a quiet trainer."""
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, callbacks=[*callbacks], **quiet, **options)


def fine_tune(folder: Path, ckpt_path: Path | None = None, **options: Any) -> tuple[Classifier, PruningCallback, float]:
    """Prune four in five of the weights on the way; return the model, the callback and the best file's accuracy."""
    pl.seed_everything(0, verbose=False)
    model, prune = Classifier(), PruningCallback(Polynomial(0.8, 2, 16, 2))
    best = SparseModelCheckpoint(folder, monitor="val_loss", save_last=True)
    run = trainer(folder, prune, best, max_epochs=4, **options)
    run.fit(model, batches(1), batches(2, 2), ckpt_path=ckpt_path)
    (tested,) = run.test(model, batches(3, 4), ckpt_path="best", verbose=False)
    return model, prune, tested["test_accuracy"]


def make_smaller(folder: Path) -> tuple[Classifier, PruningCallback]:
    """Take half of the hidden units of each layer out, save, and load what from_pretrained reads."""
    pl.seed_everything(0, verbose=False)
    hidden = Targets(include=(r"intermediate\.dense\.weight",))
    pruner = Pruner(Polynomial(0.5, 2, 16, 2), pattern=Channel(), scope=Uniform(), targets=hidden)
    model, prune = Classifier(), PruningCallback(pruner, shrink=True)
    trainer(folder, prune, max_epochs=3, enable_checkpointing=False).fit(model, batches(1), batches(2, 2))
    save_pretrained(model.net, folder / "small")
    return model, prune


def main(folder: Path) -> None:
    """Do it all, and say what came of it."""
    _, prune, accuracy = fine_tune(folder)
    assert prune.report is not None
    print(f"{prune.report.sparsity:.4f} of the weights are zero, test accuracy {accuracy:.3f}")
    model, _ = make_smaller(folder)
    loaded = load_pretrained(folder / "small")
    same = torch.equal(model.eval()(batches(3).dataset[:4][0]), loaded(batches(3).dataset[:4][0]).logits)
    print(f"{model.net.config.intermediate_size} hidden units a layer, loaded again with the same outputs: {same}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
