"""A bracket that misses the boundary is noticed, by as little as one value, below and above."""

import pytest
import torch

from lightning_prune.ranking import bracket, float_keys, keep_largest


@pytest.mark.parametrize("miss", ["just below", "far below", "just above"])
def test_a_bracket_that_misses_is_drawn_again(miss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(0)).abs()
    keys = float_keys.keys(values, absolute=True).sort().values.tolist()
    drop, real, asked = 200, bracket._bracket, list[float]()

    def drawn(*arguments: object) -> tuple[int, int]:
        asked.append(0.0)
        if len(asked) > 1:
            return real(*arguments)  # type: ignore[arg-type]
        # The boundary is keys[199]: above the first end of a bracket, and at most the other.
        ends = {"just below": (keys[199], keys[210]), "far below": (keys[240], keys[250])}
        return ends.get(miss, (keys[180], keys[198]))

    monkeypatch.setattr(bracket, "_bracket", drawn)
    (keep,), boundary = keep_largest([values], [None], drop, absolute=True)
    assert len(asked) == 2
    assert boundary == float(values.sort().values[199])
    assert torch.equal(keep, values > boundary)
