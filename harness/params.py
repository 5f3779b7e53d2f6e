"""Count the trainable parameters of each of the paper's systems, beside the count in the paper's Table 1.

    python -m harness.params
    python -m harness.params --backbone ast-nano --verbose

The modules are those that a trial trains, in the paper's configuration, without weights or data.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from harness.common.cli import EXIT_REFUSED
from harness.config.checks import one_of
from harness.config.literature import LABEL_COUNTS, PAPER_BACKBONE, SYSTEMS
from harness.config.space import configuration_of
from harness.config.trial import TrialConfig
from harness.models.backbones.ast import GEOMETRIES, Ast
from harness.models.backbones.checkpoints import RANDOM_SUFFIX
from harness.models.build import Target, build_model
from search_spaces import load

_META = torch.device("meta")
_WIDTH = 130

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class SystemCount:
    """The trainable parameters of a system. `trainable` is None where nothing learns by gradient.

    `paper_count` is the exact count behind `paper_millions`. Both are None where the paper gives no number for this
    backbone; `note` then explains only differences that every backbone has. `tensors` have a name, shape and count.
    """

    name: str
    paper_name: str
    trainable: int | None
    paper_millions: float | None
    paper_count: int | None
    note: str
    tensors: tuple[dict[str, Any], ...]


@app.command(help=__doc__)
def main(
    backbone: Annotated[str, typer.Option(help=f"One of {', '.join(GEOMETRIES)}.")] = PAPER_BACKBONE,
    verbose: Annotated[bool, typer.Option("--verbose", help="List every trainable tensor.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Count and print."""
    try:
        counts = count_systems(backbone)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    if as_json:
        systems = [asdict(count) for count in counts]
        for system in systems:
            if not verbose:
                del system["tensors"]
        typer.echo(json.dumps({"backbone": backbone, "systems": systems}))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    for table in (_table(counts, backbone), *(_tensor_table(c) for c in counts if verbose and c.tensors)):
        console.print(table)


def count_systems(backbone: str, *, n_labels: int = len(LABEL_COUNTS)) -> list[SystemCount]:
    """Return the counts of the paper's systems, in its order.

    Raises:
        ValueError: there is no such backbone.
    """
    backbone = backbone.removesuffix(RANDOM_SUFFIX)
    one_of("backbone", backbone, tuple(GEOMETRIES))
    with _META:
        ast = Ast(GEOMETRIES[backbone]).freeze()
        return [_count(name, ast, n_labels=n_labels, is_papers=backbone == PAPER_BACKBONE) for name in SYSTEMS]


def paper_config(name: str) -> TrialConfig:
    """Return the paper's configuration of the system that a search space is named after."""
    space = load(name)
    (paper,) = space.paper
    return configuration_of(space, paper)


def meta_model(config: TrialConfig, ast: Ast, *, n_labels: int) -> nn.Module:
    """Return the modules that a trial of this configuration trains, without memory for their values."""
    target = Target(tuple(map(str, range(n_labels))))
    return build_model(config, ast, target, seed=0, device=_META)


def _count(name: str, ast: Ast, *, n_labels: int, is_papers: bool) -> SystemCount:
    published, config = SYSTEMS[name], paper_config(name)
    is_comparable = is_papers or not published.needs_backbone
    model = nn.Identity() if config.name == "random_forest" else meta_model(config, ast, n_labels=n_labels)
    tensors: tuple[dict[str, Any], ...] = tuple(
        {"name": name, "shape": tuple(parameter.shape), "count": parameter.numel()}
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    )
    return SystemCount(
        name,
        published.paper_name,
        trainable=sum(tensor["count"] for tensor in tensors) if tensors else None,
        paper_millions=published.params_millions if is_comparable else None,
        paper_count=published.params if is_comparable else None,
        note=published.note if is_comparable else "",
        tensors=tensors,
    )


def _table(counts: Sequence[SystemCount], backbone: str) -> Table:
    table = Table(title=f"Trainable parameters, backbone {backbone}", title_justify="left")
    for heading, is_number in (("system", False), ("paper", False), ("trainable", True), ("paper, M", True)):
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    table.add_column("why they differ")
    for c in counts:
        millions = "-" if c.paper_millions is None else f"{c.paper_millions:.3f}"
        trainable = "-" if c.trainable is None else f"{c.trainable:,}"
        table.add_row(c.name, c.paper_name, trainable, millions, c.note)
    return table


def _tensor_table(count: SystemCount) -> Table:
    title = f"{count.name} ({count.paper_name}): {count.trainable:,} in {len(count.tensors)} tensors"
    table = Table("tensor", "shape", title=title, title_justify="left")
    table.add_column("values", justify="right")
    for tensor in count.tensors:
        table.add_row(tensor["name"], " x ".join(map(str, tensor["shape"])), f"{tensor['count']:,}")
    return table


if __name__ == "__main__":
    sys.exit(app())
