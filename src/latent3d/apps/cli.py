"""The ``latent3d`` command. Each subcommand is a small module that imports what it needs when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from latent3d.apps.cmd_compare import Compare
from latent3d.apps.cmd_data import Data
from latent3d.apps.cmd_doctor import Doctor
from latent3d.apps.cmd_evaluate import Evaluate
from latent3d.apps.cmd_object import Object
from latent3d.apps.cmd_plan import PlanTraining
from latent3d.apps.cmd_render import Render
from latent3d.apps.cmd_scene import Scene
from latent3d.apps.cmd_train import Train
from latent3d.apps.cmd_view import View
from latent3d.apps.cmd_worlds import Worlds
from latent3d.apps.errors import run_safely

Command = (
    Annotated[Scene, tyro.conf.subcommand("scene")]
    | Annotated[Object, tyro.conf.subcommand("object")]
    | Annotated[View, tyro.conf.subcommand("view")]
    | Annotated[Render, tyro.conf.subcommand("render")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[PlanTraining, tyro.conf.subcommand("plan")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Worlds, tyro.conf.subcommand("worlds")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)

DESCRIPTION = """3D scenes and objects by latent diffusion.

`latent3d scene photo.jpg` makes a scene, a film and a web page from one picture;
`latent3d object --text "a red wooden chair"` makes an object.

`latent3d COMMAND --help` explains a command, `latent3d --version` prints the version.

Add --debug to any command to see the full trace of an error."""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script; always ends by SystemExit."""
    _spin_briefly()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if arguments == ["--version"]:
        from latent3d import __version__

        print(f"latent3d {__version__}")
        raise SystemExit(0)
    command = tyro.cli(
        Command, prog="latent3d", description=DESCRIPTION, args=arguments, config=(tyro.conf.FlagCreatePairsOff,)
    )
    raise SystemExit(run_safely(command.run, debug))


def _spin_briefly() -> None:
    """Let torch's threads sleep soon after their work, unless the user said how they shall wait.

    They wait by spinning, for milliseconds, on the cores that compiled loops of ours want next. The library that runs
    them reads this when it is loaded, so torch must not have been imported yet.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
