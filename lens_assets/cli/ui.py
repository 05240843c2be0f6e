"""``lens-assets ui``: the Dagster and MLflow user interfaces, on localhost unless told otherwise."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from lens_assets.cli.home import REPOSITORY, default_home, prepare_home


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ui")(ui)


def ui(
    home: Annotated[Path | None, typer.Option(help="Folder of the installation.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but localhost is open to others.")
    ] = "127.0.0.1",
    dagster_port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
) -> None:
    """Start both user interfaces and wait; Ctrl-C stops them.

    The sensors run too: drop a lens catalogue into <home>/catalogues and watch what is renewed.
    """
    root = (home or default_home()).absolute()
    for name, port in (("Dagster", dagster_port), ("MLflow", mlflow_port)):
        if not port_free(host, port):
            typer.echo(f"Port {port} on {host} is taken; choose another with --{name.lower()}-port.", err=True)
            raise typer.Exit(2)
    prepare_home(root)
    clear_dead_runs(root)
    processes = start(root, host, dagster_port, mlflow_port)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        for name, port in (("Dagster", dagster_port), ("MLflow", mlflow_port)):
            wait_for(host, port, processes)
            typer.echo(f"{name:8s} http://{host}:{port}")
        typer.echo("Ctrl-C stops both.")
        while all(p.poll() is None for p in processes):
            time.sleep(0.5)
        raise typer.Exit(1)
    except KeyboardInterrupt:
        typer.echo("stopping")
    finally:
        stop(processes)


def clear_dead_runs(root: Path) -> None:
    """Report runs of a chain that was killed as failed, and give back their places in pools, before anything waits for them."""
    import dagster as dg

    from lens_assets.chain import end_dead_runs

    with dg.DagsterInstance.from_config(str(root / "dagster")) as instance:
        for run_id in end_dead_runs(instance):
            typer.echo(f"run {run_id[:8]} had lost its process: reported as failed")


def start(root: Path, host: str, dagster_port: int, mlflow_port: int) -> list[subprocess.Popen[bytes]]:
    """Start both servers, each in a session of its own with default signals; returns the processes."""
    prepare_home(root)
    env = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    tracking = os.environ.get("LENS_ASSETS_MLFLOW", "") or f"sqlite:///{root / 'mlflow.db'}"
    commands = [
        [sys.executable, "-m", "dagster", "dev", "-w", str(REPOSITORY / "workspace.yaml"), "-h", host, "-p", str(dagster_port)],
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking, "--host", host, "--port", str(mlflow_port),
         "--artifacts-destination", str(root / "mlartifacts"), "--workers", "1"],
    ]  # fmt: skip
    logs = root / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    processes = []
    for name, command in zip(("dagster", "mlflow"), commands, strict=True):
        with open(logs / f"{name}.log", "ab") as log:
            processes.append(
                subprocess.Popen(
                    command,
                    env=env,
                    cwd=REPOSITORY,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    preexec_fn=_default_signals,
                )
            )
    return processes


def _default_signals() -> None:
    # A shell that starts us with `&` hands down an ignored SIGINT, and `dagster dev` would then never stop.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask the process groups to end, then make them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline and any(p.poll() is None for p in processes):
            time.sleep(0.1)
        if all(p.poll() is not None for p in processes):
            return


def port_free(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def wait_for(host: str, port: int, processes: list[subprocess.Popen[bytes]], seconds: float = 90) -> None:
    """Wait until somebody listens; raise when a server ended or time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if any(p.poll() is not None for p in processes):
            raise typer.BadParameter("a server ended at once; see the logs folder of the installation")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.3)
    raise typer.BadParameter(f"nothing listens on {host}:{port} after {seconds:.0f} s")
