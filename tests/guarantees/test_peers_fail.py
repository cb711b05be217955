"""What other pruning libraries get wrong, by the list at the end of the guarantees."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_prune import Pruner, PruningCallback
from lightning_prune.criterion.first_order_delta import FirstOrderDelta
from lightning_prune.criterion.random import Random
from lightning_prune.schedule.one_shot import OneShot
from lightning_prune.schedule.polynomial import Polynomial
from lightning_prune.targets import Targets
from tests.guarantees.helpers import (
    RAMP,
    Batches,
    Net,
    assert_plain,
    bits,
    differences,
    fit,
    ramp,
    sparsity,
    trainer,
    zeros,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*callbacks used to create:UserWarning")


def pruned_where(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach() == 0 for n, p in model.named_parameters() if p.dim() > 1}


def within(fewer: dict[str, Tensor], more: dict[str, Tensor]) -> bool:
    return all(bool(more[n][z].all()) for n, z in fewer.items())


# After the fit


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_evaluation_after_fit_changes_no_weight(verb: str) -> None:
    class Predicts(Net):
        def predict_step(self, batch: Tensor, batch_idx: int) -> Any:
            return self.loss(batch_idx)

    model = Predicts()
    run = fit(model, ramp(), max_steps=20, val=1)
    before = bits(model)
    getattr(run, verb)(model, Batches(2))
    assert differences(before, bits(model)) == []
    assert_plain(model)


def test_evaluation_of_a_checkpoint_leaves_nothing_behind_for_the_next_fit(tmp_path: Path) -> None:
    callback = ramp(criterion=Random())
    run = fit(Net(), callback, ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=10), max_steps=20)
    file = str(next(tmp_path.glob("*.ckpt")))
    run.test(Net(), Batches(2), ckpt_path=file, verbose=False)
    run.validate(Net(), Batches(2), ckpt_path=file, verbose=False)
    again, twin = Net(seed=4), Net(seed=4)
    fit(again, callback, max_steps=20)
    fit(twin, ramp(criterion=Random()), max_steps=20)
    assert differences(bits(twin), bits(again)) == []


def test_the_sanity_check_has_no_side_effects() -> None:
    checked, twin = Net(), Net()
    fit(checked, ramp(), max_steps=20, val=2, num_sanity_val_steps=2)
    fit(twin, ramp(), max_steps=20, val=2)
    assert differences(bits(twin), bits(checked)) == []


# Several fits


def test_an_amount_does_not_compound_with_the_epochs() -> None:
    model = Net()
    seen: list[float] = []
    model.after_batch.append(lambda _: seen.append(sparsity(model)))
    fit(model, PruningCallback(OneShot(0.5, 3)), max_epochs=6)
    assert seen == [0.0] * 2 + [0.5] * 34


@pytest.mark.parametrize("criterion", [None, Random(), FirstOrderDelta(0.5)], ids=["magnitude", "random", "delta"])
def test_one_callback_in_two_fits_of_two_models(criterion: Any) -> None:
    callback = ramp(criterion=criterion) if criterion else ramp()
    twin_callback = ramp(criterion=criterion) if criterion else ramp()
    first, second, twin = Net(), Net(seed=9), Net(seed=9)
    fit(first, callback, max_steps=20)
    kept = bits(first)
    fit(second, callback, max_steps=20)
    fit(twin, twin_callback, max_steps=20)
    assert differences(bits(twin), bits(second)) == []
    assert differences(kept, bits(first)) == []
    assert callback.report == twin_callback.report


def test_one_callback_in_two_fits_of_the_same_model() -> None:
    callback, model = ramp(), Net()
    fit(model, callback, max_steps=20)
    fit(model, callback, max_steps=20)
    assert sparsity(model) == 205 / 256
    assert_plain(model, callback=callback)


CONTINUED: dict[str, Any] = {
    "magnitude": lambda: ramp(),
    "random": lambda: ramp(criterion=Random()),
    "delta": lambda: ramp(criterion=FirstOrderDelta(0.5)),
    "shares": lambda: PruningCallback(Polynomial(0.8, 0.1, 0.9, 0.1)),
}


@pytest.mark.parametrize("name", CONTINUED)
def test_a_trainer_that_goes_on_keeps_the_zeros_it_made(name: str) -> None:
    model, callback = Net(), CONTINUED[name]()
    run = trainer(callbacks=[callback], max_epochs=3, limit_val_batches=0)
    run.fit(model, Batches(6), Batches(1))
    reached = pruned_where(model)
    assert sparsity(model) == 205 / 256
    model.after_batch.append(lambda _: (_ for _ in ()).throw(AssertionError) if not _same(reached, model) else None)
    run.fit_loop.max_epochs = 5
    run.fit(model, Batches(6), Batches(1))
    assert run.global_step == 30
    assert _same(reached, model)


def _same(reached: dict[str, Tensor], model: nn.Module) -> bool:
    return differences(reached, pruned_where(model)) == []


def test_a_trainer_that_goes_on_in_the_middle_of_the_window_ends_like_an_uninterrupted_one() -> None:
    whole, parts = Net(), Net()
    fit(whole, ramp(criterion=Random()), max_epochs=4)
    run = trainer(callbacks=[ramp(criterion=Random())], max_epochs=1, limit_val_batches=0)
    with pytest.warns(UserWarning, match="past the end"), pytest.warns(UserWarning, match="less than"):
        run.fit(parts, Batches(6), Batches(1))
    run.fit_loop.max_epochs = 4
    run.fit(parts, Batches(6), Batches(1))
    assert run.global_step == 24
    assert differences(pruned_where(whole), pruned_where(parts)) == []


def test_a_trainer_that_goes_on_with_another_model_prunes_that_one() -> None:
    callback, first, second = ramp(), Net(), Net(seed=2)
    run = trainer(callbacks=[callback], max_epochs=3, limit_val_batches=0)
    run.fit(first, Batches(6), Batches(1))
    run.fit_loop.max_epochs = 5
    run.fit(second, Batches(6), Batches(1))
    assert sparsity(second) == 205 / 256


@pytest.mark.xfail(strict=True, reason="a state restored for a fit that never began waits for the next attach")
def test_a_resume_that_broke_off_before_it_began_leaves_nothing_for_the_next_fit(tmp_path: Path) -> None:
    class Fails(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            raise RuntimeError("on purpose")

    fit(Net(), ramp(criterion=Random()), max_steps=20).save_checkpoint(tmp_path / "end.ckpt")
    callback, model = ramp(), Net(seed=4)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(Net(), Fails(), callback, max_steps=30, ckpt=tmp_path / "end.ckpt")
    fit(model, callback, max_steps=20)
    assert sparsity(model) == 205 / 256


# Models


class Attention(nn.Module):
    """A user's buffers may be called what a mask would be called."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Parameter(torch.randn(12, 16) / 4)
        self.register_buffer("attn_mask", torch.ones(8, 16))
        self.out = nn.Linear(16, 4)
        self.out.register_buffer("weight_mask", torch.full((4, 16), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.out((x @ self.attn) * self.attn_mask)


def test_a_users_buffer_named_like_a_mask_is_left_alone() -> None:
    model = Net(net=Attention())
    during: list[bool] = []

    def look(_: pl.Trainer) -> None:
        net: Any = model.net
        during.append(torch.equal(net.attn_mask, torch.ones(8, 16)) and bool((net.out.weight_mask == 2).all()))

    model.after_batch.append(look)
    fit(model, ramp(), max_steps=20)
    assert during == [True] * 20
    assert {"net.attn_mask", "net.out.weight_mask"} <= set(model.state_dict())
    assert sparsity(model) == 205 / 256


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(3, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x.view(8, 4, 3))[0][:, -1])


class Attending(nn.Module):
    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, kdim=width, vdim=width, batch_first=True, add_bias_kv=True)
        self.norm = nn.LayerNorm(12)
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        keys = x[None, :, : self.attention.kdim]
        return self.out(self.norm(self.attention(x[None], keys, keys)[0]))[0]


class Convolving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.ConvTranspose1d(4, 6, 2), nn.InstanceNorm1d(6, affine=True)
        )
        self.position = nn.Parameter(torch.zeros(1, 12))
        self.out = nn.Linear(66, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers((x + self.position)[:, None]).flatten(1))


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(12, 9) / 4)
        self.rest = nn.ParameterList([nn.Parameter(torch.randn(9, 7) / 4), nn.Parameter(torch.randn(7, 4) / 4)])
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.first).relu() @ self.rest[0] @ self.rest[1] * self.scale


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.back, self.out = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 4)
        self.back.weight = self.into.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.back(self.into(x).relu()))


MODELS: dict[str, tuple[Any, set[str]]] = {
    "LSTM": (lambda: Recurrent(nn.LSTM), {"bias"}),
    "GRU": (lambda: Recurrent(nn.GRU), {"bias"}),
    "RNN": (lambda: Recurrent(nn.RNN), {"bias"}),
    "MultiheadAttention": (Attending, {"bias", "norm"}),
    "MultiheadAttention with keys of another width": (lambda: Attending(5), {"bias", "norm"}),
    "norms and convolutions": (Convolving, {"bias", "norm", "position"}),
    "bare parameters": (Bare, {"scale"}),
    "tied": (Tied, {"bias"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_peers_fail_on_end_at_the_exact_sparsity(name: str, tmp_path: Path) -> None:
    make, whole = MODELS[name]
    torch.manual_seed(0)
    model = Net(net=make())
    ids = [id(p) for p in model.parameters()]
    keys = list(model.state_dict())
    callback = ramp()
    copies: list[Net] = []
    model.after_batch.append(lambda run: copies.append(copy.deepcopy(model)) if run.global_step == 7 else None)
    run = fit(model, callback, max_steps=20)
    run.save_checkpoint(tmp_path / "end.ckpt")
    report = callback.report
    assert report is not None
    assert report.zeros == round(0.8 * report.size)
    for skipped, reason in report.skipped.items():
        assert any(word in reason or word in skipped for word in whole), (skipped, reason)
    named = dict(model.named_parameters())
    assert report.zeros == sum(int((named[w.name] == 0).sum()) for w in report.weights)
    assert [id(p) for p in model.parameters()] == ids
    fresh = Net(net=make())
    fresh.load_state_dict(torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"], strict=True)
    assert list(fresh.state_dict()) == keys
    assert differences(bits(model), bits(fresh)) == []
    assert len(copies) == 1
    assert_plain(model, callback=callback)


def test_two_weights_of_a_recurrent_layer_are_ranked_together() -> None:
    from lightning_prune.scope.uniform import Uniform

    torch.manual_seed(0)
    model = Net(net=Recurrent(nn.LSTM))
    callback = ramp(scope=Uniform())
    fit(model, callback, max_steps=20)
    rnn = dict(model.net.rnn.named_parameters())  # type: ignore[union-attr]
    for layer in ("l0", "l0_reverse", "l1", "l1_reverse"):
        pair = [rnn[f"weight_ih_{layer}"], rnn[f"weight_hh_{layer}"]]
        both = sum(int((p == 0).sum()) for p in pair)
        assert both == round(0.8 * sum(p.numel() for p in pair))
        assert any(int((p == 0).sum()) != round(0.8 * p.numel()) for p in pair)


def test_layers_made_in_configure_model_are_pruned() -> None:
    class Late(Net):
        def configure_model(self) -> None:
            if isinstance(self.net, nn.Identity):
                self.net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))

    model = Late(net=nn.Identity())
    fit(model, ramp(), max_steps=20)
    assert sparsity(model) == 205 / 256


def test_a_lazy_layer_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"net\.weight.*run one batch through the lazy module"):
        fit(Net(lambda _: torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1), net=nn.LazyLinear(4)), ramp(), max_steps=20)


def test_a_copy_made_after_a_forward_and_after_the_fit_is_plain() -> None:
    model = Net()
    fit(model, ramp(), max_steps=20)
    model.loss(0).backward()
    other = copy.deepcopy(model)
    assert_plain(other)
    assert zeros(other) == zeros(model)
    assert torch.equal(other.loss(1), model.loss(1))


def test_the_callback_may_come_from_the_module() -> None:
    class Own(Net):
        def configure_callbacks(self) -> list[pl.Callback]:
            return [ramp()]

    model = Own()
    fit(model, max_steps=20)
    assert sparsity(model) == 205 / 256


def test_embeddings_on_request_and_sparse_gradients() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(40, 6, sparse=True)
            self.out = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.table((x * 10).long().abs() % 40).mean(1))

    callback = PruningCallback(Pruner(RAMP, targets=Targets(include=("table",))))
    model = Net(lambda p: torch.optim.SGD(p, 0.1), net=Words())
    back: list[bool] = []

    def look(_: pl.Trainer) -> None:
        back.extend(bool((w.parameter.detach()[~w.mask] != 0).any()) for w in callback.pruner.masks.values())

    model.after_batch.append(look)
    fit(model, callback, max_steps=20)
    assert zeros(model)["net.table.weight"] == round(0.8 * 240)
    assert not any(back)
