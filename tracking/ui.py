"""Serve the MLflow UI of a study and print the links to its views.

python -m tracking.ui STUDY_DIR
"""

import os
import shlex
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from tracking import views
from tracking.mlflow_store import Address, find_experiment, follow_move, mlflow_client
from tracking.outbox import one_line
from tracking.sync import open_address
from tracking.uris import escaped, sqlite_path

DEFAULT_PORT = 5000
# With MLflow's job runner and its four workers the same UI takes fifteen processes and 2 GB.
_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def ui_lines(study_dir: Path, uri: str, experiment_id: str | None, *, view: str = views.RANKED) -> list[str]:
    """Return the lines that explain how to open a view of a study's experiment.

    Before MLflow has been reached there is no experiment id, and the link leads to the server's front page.
    """
    base = _base(uri, DEFAULT_PORT)
    link = views.view_url(base, experiment_id, view=view) if experiment_id else base
    if _is_served(uri):
        return [link]
    return [shlex.join(["python", "-m", "tracking.ui", str(study_dir)]), f"then open {link}"]


def server_command(uri: str, *, port: int) -> list[str]:
    """Return the command that serves the UI of a database; an SQLite file must lie in the working directory."""
    database = sqlite_path(uri)
    backend = f"sqlite:///{escaped(database.name)}" if database else uri
    options = ["--workers", "1", "--backend-store-uri", backend, "--port", str(port)]
    return [sys.executable, "-m", "mlflow", "server", *options]


def main(
    study_dir: Annotated[Path, typer.Argument(help="The study's directory, which holds outbox.jsonl.")],
    port: Annotated[int, typer.Option(help="Serve the UI on this port.")] = DEFAULT_PORT,
    tracking_uri: Annotated[str | None, typer.Option(help="The MLflow store. [the study's own]")] = None,
) -> None:
    """Print the links to a study's views and serve the UI until Ctrl-C."""
    try:
        address = open_address(study_dir, tracking_uri=tracking_uri)
        if not _is_served(address.uri) and _is_taken(port):
            raise ValueError(f"port={port}: in use by another program; choose another --port")
        experiment_id = _experiment_id(address, study_dir)
    except ValueError as problem:
        typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None
    for view, title in views.TITLES.items():
        typer.echo(f"{title:24}{views.view_url(_base(address.uri, port), experiment_id, view=view)}")
    if not _is_served(address.uri):
        if database := sqlite_path(address.uri):
            os.chdir(database.parent)
        command = server_command(address.uri, port=port)
        sys.stdout.flush()
        os.execve(command[0], command, {**os.environ, **_ENVIRONMENT})


def _experiment_id(address: Address, study_dir: Path) -> str:
    """Return the id of a study's experiment.

    Raises:
        ValueError: the store does not answer, or lacks the experiment.
    """
    try:
        follow_move(address)
        experiment = find_experiment(mlflow_client(address.uri), address)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{address} does not answer: {one_line(error)}") from None
    if experiment is None:
        raise ValueError(f"{address} has no such experiment yet; run python -m tracking.sync {study_dir}")
    return str(experiment.experiment_id)


def _is_served(uri: str) -> bool:
    return uri.startswith("http")


def _base(uri: str, port: int) -> str:
    return uri if _is_served(uri) else f"http://127.0.0.1:{port}"


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    typer.run(main)
