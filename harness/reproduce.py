"""Reproduce the paper, all eight systems of it, with its table and figures: `python -m harness.reproduce`."""

import sys
from typing import Annotated

import typer

from harness.command import (
    DEFAULT_STORAGE,
    absolute_place,
    checked_uri,
    configure_logging,
    prepare_environment,
    said_to_the_user,
)
from harness.published import SYSTEMS
from harness.spec import DataSpec, Resources

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_SYSTEMS_IN_WORDS = ", ".join(f"{name} ({system.paper_name})" for name, system in SYSTEMS.items())


@app.command(help=__doc__)
def main(
    data: Annotated[str, typer.Option(help="demo, openmic, or a directory in OpenMIC-2018's layout.")] = "demo",
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each system. [3 on the demo, else 10, as in the paper]")
    ] = None,
    systems: Annotated[str | None, typer.Option(help=f"Some of {_SYSTEMS_IN_WORDS}, with commas. [all]")] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Trials of each system's study, the paper's configuration first. [8 on the demo, else 1]"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of the systems that hear log-mel. [12 on the demo, else the paper's 50]")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Recipe of the log-mel systems: paper, released.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="ast-base384, or a file or directory of such weights. [ast-nano on the demo]"),
    ] = None,
    split: Annotated[str, typer.Option(help="Validation split: random, public or artist.")] = "random",
    demo_clips: Annotated[int | None, typer.Option(help="Size of the demo set.")] = None,
    skip_corrupt: Annotated[bool, typer.Option(help="Leave out unreadable clips, listing them.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the split, the proposals and the trials.")] = 0,
    name: Annotated[str | None, typer.Option(help="Name of the folder. [reproduce- and the data]")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Trials at a time. [as many as fit]")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs of a trial, 0.25 for four on one.")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(help="CPU cores of a trial. [an equal share]")] = None,
    storage: Annotated[str, typer.Option(help="Directory or URI for results.")] = DEFAULT_STORAGE,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store. [SQLite beside the results]")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, such as auto. [this machine]")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16, the backbone's arithmetic in training.")] = "fp32",
) -> None:
    """Parse the flags, run what is not done yet, write the report, exit with its code."""
    configure_logging()
    prepare_environment(joins_cluster=address is not None)
    with said_to_the_user(lambda: "type the same command again to go on"):
        # Ray reads the environment when it is imported, and a wrong flag need not wait for it
        from harness.reproduction.run import reproduce  # noqa: PLC0415
        from harness.reproduction.wanted import Reproduction  # noqa: PLC0415

        wanted = Reproduction.of(
            data=DataSpec(
                source=absolute_place(data),
                demo_clips=demo_clips,
                split=split,
                split_seed=seed,
                skips_corrupt=skip_corrupt,
            ),
            systems=systems,
            seeds=seeds,
            trials=trials,
            epochs=epochs,
            preset=preset,
            backbone=None if backbone is None else absolute_place(backbone),
            seed=seed,
            precision=precision,
            storage=storage,
            tracking_uri=checked_uri(tracking_uri),
            name=name,
        )
        code = reproduce(wanted, Resources(address, concurrent, gpus_per_trial, cpus_per_trial))
    raise typer.Exit(code)


if __name__ == "__main__":
    sys.exit(app())
