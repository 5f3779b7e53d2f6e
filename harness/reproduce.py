"""Reproduce the paper, all eight systems of it, with its table and figures: `python -m harness.reproduce`."""

import sys
from dataclasses import replace
from typing import Annotated

import typer

from harness.common import cli as flags
from harness.common.cli import (
    DEFAULT_STORAGE,
    absolute_place,
    announce,
    check_data,
    check_storage,
    running,
)
from harness.config.literature import SYSTEMS, describe_systems
from harness.config.study import DataSpec, Resources, check_machine
from harness.reproduction.spec import Reproduction
from tracking.uris import chosen_uri

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    data: flags.Data = "demo",
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each system. [3 on the demo, else 10, as in the paper]")
    ] = None,
    systems: Annotated[
        str | None, typer.Option(help=f"Some of {describe_systems(SYSTEMS)}, with commas. [all]")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Trials of each system's study, the paper's configuration first. [8 on the demo, else 1]"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of the log-mel systems. [12 on the demo, else the paper's 50]")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Recipe of the log-mel systems: paper, released.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="ast-base384, or a file or directory of such weights. [ast-nano on the demo, else ast-base384]"
        ),
    ] = None,
    split: flags.Split = "random",
    demo_clips: flags.DemoClips = None,
    fraction: flags.Fraction = 1.0,
    skip_corrupt: flags.SkipCorrupt = False,
    seed: flags.Seed = 0,
    name: Annotated[str | None, typer.Option(help="Name of the folder. [reproduce- and the data]")] = None,
    concurrent: flags.Concurrent = None,
    gpus_per_trial: flags.GpusPerTrial = None,
    cpus_per_trial: flags.CpusPerTrial = None,
    storage: flags.Storage = DEFAULT_STORAGE,
    tracking_uri: flags.TrackingUri = None,
    address: flags.Address = None,
    precision: flags.Precision = "fp32",
) -> None:
    """Check the flags, run the remaining parts, write the report and exit."""
    with running(lambda: "type the same command again to continue", address=address):
        resources = Resources(address, concurrent, gpus_per_trial, cpus_per_trial)
        check_storage(storage)
        check_machine(resources)
        reproduction = Reproduction.of(
            data=DataSpec(
                source=absolute_place(data, flag="data"),
                demo_clips=demo_clips,
                split=split,
                split_seed=seed,
                fraction=fraction,
                skips_corrupt=skip_corrupt,
            ),
            systems=systems,
            seeds=seeds,
            trials=trials,
            epochs=epochs,
            preset=preset,
            backbone=None if backbone is None else absolute_place(backbone, flag="backbone"),
            seed=seed,
            precision=precision,
            storage=storage,
            tracking_uri=chosen_uri(tracking_uri, is_new=False),
            name=name,
        )
        if not reproduction.has_begun:
            reproduction = replace(reproduction, tracking_uri=chosen_uri(tracking_uri, is_new=True))
        check_data(reproduction.data.source, demo_clips)
        announce(f"reproduction {reproduction.name}")
        # Ray reads the environment when it is imported
        from harness.reproduction.run import reproduce  # noqa: PLC0415

        code = reproduce(reproduction, resources)
    raise typer.Exit(code)


if __name__ == "__main__":
    sys.exit(app())
