"""The contenders side by side: one epoch of training, for each cell at the reference size."""

from __future__ import annotations

from benchmarks.cpu.timing import median

OURS, OTHERS = "#D55E00", "#56B4E9"


def draw_steps(steps, path):
    """Draw the median time of every contender as a bar, one panel for each of the first cases."""
    from matplotlib.figure import Figure

    reference = [step for step in steps if (step["N"], step["H"]) == (8317, 50)] or steps[:1]
    tallest = max(len(step["times"]) for step in reference)
    size = (10.0, 0.9 + 0.28 * tallest * len(reference))
    axes = Figure(figsize=size, layout="constrained").subplots(len(reference), squeeze=False)[:, 0]
    for ax, step in zip(axes, reference, strict=True):
        times = {name: 1e3 * median(values) for name, values in step["times"].items()}
        names = sorted(times, key=times.get, reverse=True)
        colors = [OURS if "fit" in name or "engine" in name else OTHERS for name in names]
        bars = ax.barh(names, [times[name] for name in names], color=colors)
        ax.bar_label(bars, fmt="%.3g", padding=3, fontsize="small")
        ax.set_title(
            f"{step['cell'].upper()}: {step['N']} windows of {step['T']}, {step['H']} units",
            fontsize="medium", loc="left",
        )  # fmt: skip
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.1)
    axes[-1].set_xlabel("ms for one epoch; lower is better (rnn_xp's training is vermilion)")
    axes[0].figure.savefig(path, dpi=110, metadata={"Software": None})
