"""Deliver what a study has written down and MLflow has not got.

    python -m tracking.sync STUDY_DIR

Exit status: 0 if everything is delivered, 1 if not.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from tracking.courier import Courier
from tracking.destination import Destination
from tracking.spool import Spool

_PAUSE_S = 1.0


def deliver_all(courier: Courier, *, patience_s: float, report_every_s: float = 2.0) -> str | None:
    """Deliver until nothing is left; return the error if nothing has moved for `patience_s`."""
    left, error, moved = courier.left(), None, time.monotonic()
    typer.echo(f"{left} records to deliver to {courier.destination.name}")
    while left:
        slice_end = time.monotonic() + report_every_s
        outcome = courier.deliver(must_stop=lambda end=slice_end: time.monotonic() > end)
        error = outcome.error or error
        if (now_left := courier.left()) != left:
            left, moved = now_left, time.monotonic()
            typer.echo(f"{left} left")
        elif time.monotonic() - moved > patience_s:
            return error or "another process holds outbox.lock"
        else:
            time.sleep(_PAUSE_S)
    return None


def main(
    study_dir: Annotated[Path, typer.Argument(help="The study's directory, which holds outbox.jsonl.")],
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="Deliver to this store; by default to the one the study was started with."),
    ] = None,
    patience: Annotated[float, typer.Option(help="Give up after this many seconds without progress.")] = 30.0,
) -> None:
    """Deliver what a study has written down and MLflow has not got. Exit status 1 if some of it could not be."""
    spool = Spool(study_dir)
    try:
        courier = Courier(spool, Destination(spool.read_address(tracking_uri=tracking_uri)))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    rejected = len(spool.rejected())
    error = deliver_all(courier, patience_s=patience)
    if refused := len(spool.rejected()) - rejected:
        typer.echo(f"{refused} records were refused for good: {spool.rejected_path} says why", err=True)
    if error:
        typer.echo(f"{courier.left()} records are left: {error}", err=True)
        raise typer.Exit(1)
    typer.echo("all delivered")


if __name__ == "__main__":
    typer.run(main)
