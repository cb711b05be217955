"""Rounds of pruning at a glance: accuracy, size, and units by group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_prune.shown import new_figure
from lightning_prune.shown.picture import BLUE, GREEN, GREY, ORANGE, height_of, largest, plain_spines, shorten

if TYPE_CHECKING:
    from lightning_prune.rounds.record import History


def figure(history: History, title: str = "") -> Any:
    """Return a matplotlib figure."""
    made = new_figure(14, height_of(len(history.left)))
    quality, size, units = made.subplots(1, 3)
    _quality(quality, history)
    _size(size, history)
    _units(units, history)
    plain_spines(quality, size, units)
    if title:
        made.suptitle(title, fontsize=13, fontweight="bold")
    return made


def _quality(axis: Any, history: History) -> None:
    names = list(dict.fromkeys(name for each in history.rounds for name in each.metrics))
    kind = "accuracy" if any(name.endswith("accuracy") for name in names) else "loss"
    scale = 100 if kind == "accuracy" else 1
    colors = {"train": GREY, "val": BLUE, "test": GREEN}
    for name in (name for name in names if name.endswith(kind)):
        found = [(each.number, scale * each.metrics[name]) for each in history.rounds if name in each.metrics]
        numbers, values = zip(*found, strict=True)
        label = f"{name}  {values[-1]:.2f}" + (" %" if scale == 100 else "")
        axis.plot(numbers, values, marker="o", color=colors.get(name.partition("/")[0]), linewidth=1.6, label=label)
    unit = ", %" if scale == 100 else ""
    axis.set(title=f"{kind} after fine-tuning", xlabel="round", ylabel=kind + unit)
    _whole_rounds(axis, history)
    if names:
        axis.legend(loc="best", frameon=False, fontsize=9)


def _size(axis: Any, history: History) -> None:
    dense = history.rounds[0]
    curves = {
        "parameters": ([each.parameters for each in history.rounds], dense.parameters, BLUE),
        "MACs": ([each.macs for each in history.rounds], dense.macs, ORANGE),
        "units": ([sum(each.left.values()) for each in history.rounds], sum(dense.left.values()), GREY),
    }
    numbers = [each.number for each in history.rounds]
    for name, (values, whole, color) in curves.items():
        shares = [100 * value / max(1, whole) for value in values]
        label = f"{name}  {values[-1]:,}, {shares[-1]:.1f} %"
        axis.plot(numbers, shares, marker="o", color=color, linewidth=1.6, label=label)
    axis.set(title="size, of the dense model", xlabel="round", ylabel="%")
    axis.set_ylim(0, 104)
    _whole_rounds(axis, history)
    axis.legend(loc="upper right", frameon=False, fontsize=9)


def _units(axis: Any, history: History) -> None:
    first, left = history.rounds[0].left, history.left
    names = list(first)
    shown = [names[i] for i in largest(names, list(first.values()))]
    places = range(len(shown))
    axis.barh(places, [first[name] for name in shown], color="#eeeeee", height=0.72)
    axis.barh(places, [left[name] for name in shown], color=BLUE, height=0.72)
    for place, name in enumerate(shown):
        axis.text(first[name], place, f" {left[name]:,} of {first[name]:,}", va="center", fontsize=8)
    axis.set_yticks(places, [shorten(name) for name in shown], fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.18)
    left_out = len(first) - len(shown)
    axis.set(title="units by group" + (f" ({left_out} smaller ones left out)" if left_out else ""), xlabel="units")


def _whole_rounds(axis: Any, history: History) -> None:
    every = max(1, len(history.rounds) // 12)
    axis.set_xticks(range(0, len(history.rounds), every))
    axis.grid(alpha=0.25)
