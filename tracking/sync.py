"""Deliver what a study has written down and MLflow has not got.

    python -m tracking.sync STUDY_DIR

Exit status: 0 if everything is delivered, 1 if not, 2 if the directory holds no outbox.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from tracking.courier import Courier
from tracking.destination import Destination
from tracking.spool import Spool

_REPORT_S = 2.0
_PAUSE_S = 1.0


def deliver_all(courier: Courier, *, patience_s: float) -> str | None:
    """Deliver until nothing is left; return the error if nothing has moved for `patience_s`."""
    left, error = courier.left(), "another process holds outbox.lock"
    moved = time.monotonic()
    typer.echo(f"{left} records to deliver to {courier.destination.name}")
    while left:
        report_at = time.monotonic() + _REPORT_S
        outcome = courier.deliver(must_stop=lambda: time.monotonic() > report_at)  # noqa: B023  called in this turn
        error = outcome.error or error
        if (still := courier.left()) < left:
            left, moved = still, time.monotonic()
            typer.echo(f"{left} left")
        elif time.monotonic() - moved > patience_s:
            return error
        else:
            time.sleep(_PAUSE_S)
    return None


def main(
    study_dir: Annotated[Path, typer.Argument(help="The study's directory, which holds outbox.jsonl.")],
    tracking_uri: Annotated[
        str | None, typer.Option(help="Deliver to this store; by default to the one the study was started with.")
    ] = None,
    patience: Annotated[float, typer.Option(help="Give up after this many seconds without progress.")] = 30.0,
) -> None:
    """Deliver what a study has written down and MLflow has not got; exit with 1 if some of it is left."""
    spool = Spool(study_dir)
    try:
        courier = Courier(spool, Destination(spool.read_address(tracking_uri=tracking_uri)))
    except ValueError as problem:
        typer.echo(str(problem), err=True)
        raise typer.Exit(2) from None
    rejected_before = len(spool.rejected())
    error = deliver_all(courier, patience_s=patience)
    if rejected := len(spool.rejected()) - rejected_before:
        typer.echo(f"MLflow refused {rejected} records for good; {spool.rejected_path} says why", err=True)
    if error:
        typer.echo(f"{courier.left()} records are left: {error}", err=True)
    if error or rejected:
        raise typer.Exit(1)
    typer.echo("all delivered")


if __name__ == "__main__":
    typer.run(main)
