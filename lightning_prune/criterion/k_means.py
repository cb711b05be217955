"""Which filters stand for a cluster of their layer's filters."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor

from lightning_prune import given
from lightning_prune.criterion.protocol import Criterion, Site, of_each_weight


@dataclass(frozen=True)
class KMeans:
    """Make as many clusters of a layer's filters as are to stay, and keep the filter nearest to each cluster's mean.

    Those representatives score above all other filters, and both the higher the nearer they are to their cluster's
    mean, measured against the farthest of the layer. Every weight of a filter has the filter's score. Filters that are
    zero throughout, because they were pruned, are in no cluster. k-means++ by scikit-learn, seeded by (seed, step,
    name) and in one thread, so equal on every rank; seconds for a layer of a thousand filters, so for few updates.
    Source: Ridurre, KMeans filter pruning.

    Args:
        seed: any int.
        step: the update step, set by the pruner.
        name: the weight's name, set by the pruner.
        sparsity: the share of filters to go, set by the pruner: ceil(n (1 - sparsity)) of n stay, at least one.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """

    seed: int = 0
    step: int = 0
    name: str = ""
    sparsity: float = 0.0

    of_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given.whole("seed", self.seed)
        if find_spec("sklearn") is None:
            raise ModuleNotFoundError(
                "KMeans needs scikit-learn: pip install 'lightning-prune[structured]'", name="sklearn"
            )

    def at(self, site: Site) -> KMeans:
        """Return the criterion for that weight at that step."""
        return replace(self, step=site.step, name=site.name, sparsity=site.sparsity)

    def hosted(self, weights: Mapping[str, Tensor]) -> KMeansOf:
        """Return the criterion for weights that lie on the host already."""
        return KMeansOf(self, weights)

    def __call__(self, weight: Tensor, grad: Tensor | None) -> Tensor:
        """Return every filter's score for each of its weights, in float32."""
        return self.scores(weight, weight)

    def scores(self, seen: Tensor, weight: Tensor) -> Tensor:
        """Return the same where a weight lies, from its values `seen`, on the host or there."""
        filters = seen.detach().reshape(seen.shape[:1].numel(), -1).cpu().float()
        if not bool(torch.isfinite(filters).all()):
            return torch.full_like(weight, math.nan)  # the pruner names the weight
        living = filters.any(1)
        keep = max(1, len(filters) - math.floor(len(filters) * self.sparsity + 1e-9))
        scores = torch.zeros(len(filters))
        scores[living] = 3.0
        if keep < int(living.sum()):
            scores[living] = self._clustered(filters[living], keep)
        return of_each_weight(scores.to(weight.device, non_blocking=True), weight)

    def _clustered(self, filters: Tensor, keep: int) -> Tensor:
        """Return 2 to 3 for representatives, 0 to 1 for the others."""
        import numpy as np
        from sklearn.cluster import KMeans as Clusters
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        points = filters.numpy()
        digest = hashlib.sha256(f"{self.seed}/{self.step}/{self.name}".encode()).digest()
        clusters = Clusters(keep, random_state=int.from_bytes(digest[:4], "big"))
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different filters than clusters
            labels = clusters.fit_predict(points)
        distances = np.linalg.norm(points - clusters.cluster_centers_[labels], axis=1)
        nearest_first = np.lexsort((distances, labels))
        _, firsts = np.unique(labels[nearest_first], return_index=True)
        scores = 1.0 - distances / max(float(distances.max()), torch.finfo(torch.float32).tiny)
        scores[nearest_first[firsts]] += 2.0
        return torch.from_numpy(scores).float()


@dataclass(frozen=True)
class KMeansOf:
    """`KMeans` for one update.

    Attributes:
        clusters: what it does.
        weights: by name, on the host, a stack's experts one below the other; others are brought there one by one.
    """

    clusters: KMeans
    weights: Mapping[str, Tensor]

    of_outputs: ClassVar[bool] = True

    def at(self, site: Site) -> Criterion:
        """Return the criterion for that weight at that step."""
        asked, seen = self.clusters.at(site), self.weights.get(site.name)
        if seen is None:
            return asked
        return lambda weight, grad: asked.scores(seen.split(len(weight))[site.expert] if weight.dim() else seen, weight)
