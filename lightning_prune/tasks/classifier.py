"""Classification of images, or of anything a network turns into one row of logits."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy

from lightning_prune.families import LightningModule, OptimizerLRScheduler
from lightning_prune.tasks.optimization import LearningRate, OptimizerFactory, adamw, check_rates, configure


class Classifier(LightningModule):
    """Trains ``net`` on cross entropy; logs loss and accuracy as ``train/loss``, ``val/loss``, ``val/accuracy``, ...

    A batch is ``(inputs, labels)`` with int64 labels of shape ``(batch,)``; ``net(inputs)`` is ``(batch, classes)``.

    Args:
        net: The network. Its ``example_input``, if it has one, becomes the module's ``example_input_array``.
        lr: Learning rate at its full value.
        weight_decay: Decoupled weight decay.
        warmup: Share of the run over which the rate rises to its full value.
        hold: Share of the run at which the rate starts to fall, along half a cosine to 0; 1.0 never lowers it.
        optimizer: Called with the parameters, ``lr`` and ``weight_decay``.

    Raises:
        ValueError: If a number is out of its range, or, at the start of training, if the run's length is not known.
    """

    def __init__(
        self,
        net: nn.Module,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.0,
        hold: float = 0.0,
        optimizer: OptimizerFactory = adamw,
    ) -> None:
        super().__init__()
        check_rates(lr, weight_decay)
        # Numbers only: modules and functions in a checkpoint's hyperparameters would not load with weights_only.
        self.save_hyperparameters("lr", "weight_decay", "warmup", "hold")
        self.net = net
        self.example_input_array = getattr(net, "example_input", None)
        self.lr = lr
        self.weight_decay = weight_decay
        self.course = LearningRate(warmup, hold)
        self.optimizer = optimizer
        self.train_accuracy = MulticlassAccuracy(average="micro", validate_args=False)
        self.val_accuracy = MulticlassAccuracy(average="micro", validate_args=False)
        self.test_accuracy = MulticlassAccuracy(average="micro", validate_args=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(batch, classes)``."""
        return self.net(inputs)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross entropy of the batch."""
        return self._step(batch, "train", self.train_accuracy)

    def on_train_epoch_end(self) -> None:
        """Logs ``train/accuracy``: once, as ``log`` of a metric at every step takes a fifth of a small step."""
        self.log("train/accuracy", self.train_accuracy)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Logs ``val/loss`` and ``val/accuracy``."""
        self._step(batch, "val", self.val_accuracy)

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Logs ``test/loss`` and ``test/accuracy``."""
        self._step(batch, "test", self.test_accuracy)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer and its learning rate, scheduled per optimizer step."""
        return configure(self.parameters(), self.trainer, self.optimizer, self.lr, self.weight_decay, self.course)

    def _step(self, batch: tuple[Tensor, Tensor], stage: str, accuracy: MulticlassAccuracy) -> Tensor:
        inputs, labels = batch
        logits = self(inputs)
        loss = cross_entropy(logits, labels)
        accuracy.update(logits, labels)
        in_training = stage == "train"
        self.log(f"{stage}/loss", loss, prog_bar=in_training, sync_dist=not in_training, batch_size=len(labels))
        if not in_training:
            self.log(f"{stage}/accuracy", accuracy, prog_bar=True)
        return loss
