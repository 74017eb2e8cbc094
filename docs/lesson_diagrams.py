"""Draw the diagrams of the lessons: a graph of a computation, and the lines of a script.

Run `python docs/lesson_diagrams.py`. The diagrams are written to docs/images.
"""

import re
from contextlib import redirect_stdout
from io import StringIO

import torch
from learn_figures import COLOR
from lesson_figures import SECOND_COLOR, new_figure, python_blocks, save


def draw_graph() -> None:
    """Draw the graph of the first computation of lesson 3, with its values and gradients."""
    code = python_blocks("3-computational-graph")[0]
    variables: dict[str, torch.Tensor] = {}
    with redirect_stdout(StringIO()):
        exec(code, variables)
    names = {"weight": (0.2, 0.9), "pixel": (0.65, 0.9), "product": (0.42, 0.62),
             "bias": (0.86, 0.62), "output": (0.62, 0.34), "loss": (0.62, 0.06)}  # fmt: skip
    for name in ("product", "output", "loss"):
        variables[name].retain_grad()
    variables["loss"].backward()
    axes = (figure := new_figure(5.2)).subplots()
    axes.set_axis_off()
    for name, (x, y) in names.items():
        tensor = variables[name]
        lines = [name, f"value {tensor.item():g}"]
        if tensor.requires_grad:
            lines.append(f"gradient {tensor.grad.item():g}")
        color = COLOR if tensor.requires_grad else "gray"
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": color, "linewidth": 2}
        axes.text(x, y, "\n".join(lines), ha="center", va="center", fontsize=11, bbox=box)
    edges = [("weight", "product"), ("pixel", "product"), ("product", "output"),
             ("bias", "output"), ("output", "loss")]  # fmt: skip
    for start, end in edges:
        arrow = {"arrowstyle": "-|>", "color": "black", "shrinkA": 26, "shrinkB": 28}
        axes.annotate("", names[end], names[start], arrowprops=arrow, zorder=0)
    formulas = {"Mul": "weight · pixel", "Add": "product + bias", "Pow": "(output - 10)²"}
    for name in ("product", "output", "loss"):
        x, y = names[name]
        operation = variables[name].grad_fn.name().removesuffix("Backward0")
        axes.text(
            x - 0.17,
            y,
            formulas[operation],
            ha="right",
            va="center",
            fontsize=10,
            color=SECOND_COLOR,
        )
    axes.set_xlim(-0.05, 1)
    axes.set_ylim(-0.05, 1.01)
    save(figure, "graph")


def essence(line: str) -> str:
    """Return what a line computes, without the name of the result and of the owner."""
    return re.sub(r"self\.|network\.|^\w+ = |^return ", "", line.strip())


def draw_script() -> None:
    """Draw the lines of the plain script of lesson 7: those that stay, and the others."""
    blocks = python_blocks("7-lightning")
    plain, with_lightning = blocks[1], blocks[2]
    definition = plain[plain.index("class Network") : plain.index("def train_epoch")]
    kept = {essence(line) for line in (definition + with_lightning).splitlines()}
    lines = [line for line in plain.splitlines() if line and '"""' not in line]
    code = [line for line in lines if not line.startswith(("import", "from"))]
    stays = [essence(line) in kept for line in code]
    axes = (figure := new_figure(5.0)).subplots()
    parts = {
        "stays: network, loss, optimizer, data": (True, COLOR),
        "the Trainer does it": (False, SECOND_COLOR),
    }
    for label, (value, color) in parts.items():
        rows = [row for row, stay in enumerate(stays, 1) if stay is value]
        starts = [len(code[row - 1]) - len(code[row - 1].lstrip()) for row in rows]
        widths = [len(code[row - 1].strip()) for row in rows]
        text = f"{label} ({len(rows)} lines)"
        axes.barh(rows, widths, left=starts, color=color, height=0.7, label=text)
    axes.invert_yaxis()
    axes.set_xlabel("column")
    axes.set_ylabel("line of code of the plain script")
    figure.legend(loc="outside upper center", frameon=False, fontsize=10)
    save(figure, "script")


if __name__ == "__main__":
    draw_graph()
    draw_script()
