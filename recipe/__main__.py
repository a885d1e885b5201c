"""The command line of the recipe: `python -m recipe vae`, then `unet`, then `export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from recipe.model import export, networks
from recipe.training import denoiser, judge, vae


def main() -> None:
    """Read the command line and run a stage."""
    parser = argparse.ArgumentParser(prog="python -m recipe", description=__doc__)
    parser.add_argument("stage", choices=["vae", "unet", "judge", "export"])
    parser.add_argument("--state", type=Path, default=Path("data/recipe"))
    parser.add_argument("--minutes", type=float, default=25.0, help="time of the whole stage")
    parser.add_argument("--replicas", type=int, default=2, help="number of processes on a CPU")
    parser.add_argument(
        "--from", dest="start", type=Path, help="a model whose weights the stage begins with"
    )
    parser.add_argument(
        "--size", choices=[*networks.WIDTHS], default="small", help="size of the UNet"
    )
    parser.add_argument(
        "--rate", type=float, default=denoiser.PEAK_RATE, help="learning rate of the UNet"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the exported model (default: STATE/model)"
    )
    options = parser.parse_args()
    options.state.mkdir(parents=True, exist_ok=True)
    if options.stage == "vae":
        plan = vae.VaePlan(options.state, options.minutes, options.start)
        vae.train(plan, options.replicas)
    elif options.stage == "unet":
        stage = denoiser.DenoiserPlan(
            options.state, options.minutes, options.start, options.size, options.rate
        )
        denoiser.train(stage, options.replicas)
    elif options.stage == "judge":
        judge.train(options.state, options.minutes, options.replicas)
    else:
        export.write_model(denoiser.trained(options.state), options.out or options.state / "model")


if __name__ == "__main__":
    main()
