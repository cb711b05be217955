"""What a user of transformers writes: exact sparsity, a sparse best checkpoint, exact resume, a folder that loads."""

from pathlib import Path
from typing import Any

import pytest
import torch

transformers: Any = pytest.importorskip("transformers")

from tests.clients.transformers_classifier import Classifier, batches, fine_tune, make_smaller  # noqa: E402
from tests.guarantees.helpers import differences  # noqa: E402

pytestmark = pytest.mark.slow  # many processes or whole trainings


def test_fine_tuned_pruned_tested_and_resumed(tmp_path: Path) -> None:
    model, prune, accuracy = fine_tune(tmp_path / "whole")
    report = prune.report
    assert report is not None
    assert report.zeros == round(0.8 * report.size)
    weights = dict(model.named_parameters())
    assert sum(int((weights[w.name] == 0).sum()) for w in report.weights) == report.zeros, "the best file is as sparse"
    assert accuracy > 0.6
    assert all("embeddings" in name or "LayerNorm" in name or "bias" in name for name in report.skipped)

    fine_tune(tmp_path / "part", max_steps=16)  # the end of an epoch, with the window's last update just made
    again, _, same = fine_tune(tmp_path / "on", ckpt_path=tmp_path / "part" / "last.ckpt")
    assert same == accuracy
    ends = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "on")]
    assert differences(ends[0]["state_dict"], ends[1]["state_dict"]) == []
    assert differences(ends[0]["optimizer_states"], ends[1]["optimizer_states"]) == []
    assert differences(dict(model.state_dict()), dict(again.state_dict())) == []


def test_the_smaller_model_loads_in_transformers(tmp_path: Path) -> None:
    model, prune = make_smaller(tmp_path)
    assert prune.shrink_report is not None
    assert not prune.shrink_report.notes
    assert model.net.config.intermediate_size < 32
    loaded = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "small")
    tokens = next(iter(batches(3)))[0]
    assert torch.equal(model.eval()(tokens), loaded.eval()(tokens).logits)
    plain = Classifier()
    plain.net = loaded  # the module around it goes on with the smaller one
    assert torch.equal(plain.eval()(tokens), model(tokens))
