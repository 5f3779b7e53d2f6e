"""Evaluate studies as the paper does: their best configurations by validation, with several seeds, each tested once.

The same command again continues after an interruption. With more --seeds, a larger --top or more studies it extends.
"""

import sys
from typing import Annotated

import typer

from harness.common import cli as flags
from harness.common.cli import (
    DEFAULT_STORAGE,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    announce,
    check_storage,
    running,
)
from harness.config.literature import SYSTEMS, describe_systems
from harness.config.study import Resources, StudyPlace, check_machine
from harness.evaluation.request import Request
from harness.training.metrics import METRICS, OF_RECORD
from tracking.uris import chosen_uri

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    studies: Annotated[list[str], typer.Argument(help="Names of the studies.", metavar="STUDY...")],
    top: Annotated[int, typer.Option(help="Configurations of each system of each study, the best first.")] = 1,
    seeds: Annotated[int, typer.Option(help="Retrainings of each configuration.")] = 10,
    systems: Annotated[
        str | None, typer.Option(help=f"Systems to evaluate, some of {describe_systems(SYSTEMS)}, with commas. [all]")
    ] = None,
    by: Annotated[str, typer.Option(help=f"Figure on validation to choose by: {', '.join(METRICS)}.")] = OF_RECORD,
    name: Annotated[
        str | None, typer.Option(help="Name of the evaluation. [the studies' names, with .evaluation]")
    ] = None,
    skip_corrupt: flags.SkipCorrupt = False,
    storage: flags.Storage = DEFAULT_STORAGE,
    concurrent: flags.Concurrent = None,
    gpus_per_trial: flags.GpusPerTrial = None,
    cpus_per_trial: flags.CpusPerTrial = None,
    address: flags.Address = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store. [the first study's]")] = None,
) -> None:
    """Check the flags, evaluate, print the tables and exit."""
    with running(lambda: "type the same command again to continue", address=address):
        resources = Resources(address, concurrent, gpus_per_trial, cpus_per_trial)
        tracking_uri = chosen_uri(tracking_uri, is_new=False)
        check_storage(storage)
        check_machine(resources)
        request = Request(
            tuple(StudyPlace.of(storage, study) for study in dict.fromkeys(studies)),
            top=top,
            seeds=seeds,
            systems=None if systems is None else tuple(system.strip() for system in systems.split(",")),
            by=by,
            name=name,
            skips_corrupt=skip_corrupt,
        )
        request.read_sources()  # a mistyped name fails before the imports below, which take seconds
        announce(f"evaluation of {', '.join(studies)}")
        # Ray reads the environment when it is imported
        from harness.evaluation.report import conclude  # noqa: PLC0415
        from harness.evaluation.run import evaluate  # noqa: PLC0415
        from harness.study.console import StudyConsole  # noqa: PLC0415

        console = StudyConsole()
        result = evaluate(request, resources=resources, tracking_uri=tracking_uri, console=console)
        conclude(result, console)
        if result.is_interrupted:
            console.say("interrupted; type the same command again to continue")
            raise typer.Exit(EXIT_INTERRUPTED)
    raise typer.Exit(EXIT_FAILURE if result.has_failed else EXIT_OK)


if __name__ == "__main__":
    sys.exit(app())
