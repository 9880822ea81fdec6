"""The two denoisers of `ggs_rooms` side by side: speed, and what they learn in equal time.

    python bench/denoisers.py [--threads 2] [--clock wall] [--json FILE]
    python bench/denoisers.py --train OUT --minutes 20 --bank DIR --val DIR

Speed: forward, and forward + backward, of 4 scenes of 8 frames at the model's latent size, bf16 autocast.
Training: both from random weights for the same time at once, one thread each, as the twin without 3D (v from their own
output layer, same inputs as in the full system); image autoencoder and reference geometry are the shipped ones. Then
the mean squared error of z0 on held-back clips with fixed noise, by noise level. A folder with such runs is continued.
"""

from __future__ import annotations

import multiprocessing
import statistics
from pathlib import Path

import torch
from tables import Report, Table, bench_parser, interleaved, markdown

from latent3d.diffusion.parameterization import c_in, c_noise, c_out, c_skip
from latent3d.presets import ggs_rooms
from latent3d.systems.ggs import GGSConfig
from latent3d.systems.ggs_training import encode
from latent3d.training.checkpoints import list_checkpoints, load_checkpoint
from latent3d.training.config import TrainConfig
from latent3d.training.engine import train
from latent3d.weights import find_shipped, load_weights

DENOISERS = ("transformer", "unet")
LEVELS = (1.0, 4.0, 20.0, 80.0)


def speed(table: Table, name: str, clock: str, rounds: int) -> None:
    """Add a denoiser's row to the table."""
    system = ggs_rooms(name).system
    assert isinstance(system, GGSConfig)
    network = system.denoiser.build()
    side = system.height // 8
    shape = (4, 8, system.vae.latent_channels, side, side)
    noisy, references, levels = torch.randn(shape), torch.randn(shape), torch.zeros(4, 8)
    rays = torch.randn(4, 8, 6, system.height, system.width)
    condition = torch.randn(4, 8, system.denoiser.condition_channels, side, side)

    def forward() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            features = network(noisy, references, levels, rays, condition=condition)
            return network.velocity(features)

    def sampling() -> None:
        with torch.no_grad():
            forward()

    calls = {"forward": sampling, "both": lambda: forward().float().square().mean().backward()}
    times = interleaved(calls, clock, rounds=rounds)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    table.add(name, f"{millions:.1f} M", times["forward"], times["both"])


def twin_config(name: str, out: Path, bank: Path, val: Path) -> TrainConfig:
    """The preset with one stage, the twin, and the shipped autoencoder and geometry."""
    config = ggs_rooms(name)
    scene = config.stages[config.stage_index("scene")]
    sampling = scene.sampling.replace(views=6, novel=0)
    stage = scene.replace(
        name="twin", steps=1_000_000, batch_size=8, schedule="constant", warmup_steps=50, sheet_every=0, ema_decay=0.99,
        loss_weights={"diffusion": 1.0}, sampling=sampling, save_minutes=5.0,
    )  # fmt: skip
    data = config.data.replace(bank=(str(bank),), val_bank=(str(val),))
    parts = {part: str(shipped_part(part, out)) for part in ("vae", "geometry")}
    return config.replace(stages=(stage,), data=data, initial_weights=parts)


def shipped_part(part: str, out: Path) -> Path:
    """A part of the shipped weights as a weights folder of its own."""
    from latent3d.weights import save_weights

    folder = out / part
    if not folder.exists():
        state, values, _ = load_weights(find_shipped("ggs_rooms"))
        own = {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
        save_weights(folder, own, getattr(GGSConfig.from_dict(values), part), {}, "fp32", 10**8)
    return folder


def train_one(config: TrainConfig, out: Path, minutes: float) -> None:
    """Train in a process of its own with one thread."""
    torch.set_num_threads(1)
    train(config, out, max_minutes=minutes, progress=False)


@torch.no_grad()
def held_back(config: TrainConfig, run: Path, batches: int = 4) -> tuple[int, dict[float, float]]:
    """Steps trained, and by noise level the mean squared error of z0 on targets; one reference of six views."""
    state, tensors = load_checkpoint(list_checkpoints(run / "checkpoints")[-1])
    assert isinstance(config.system, GGSConfig)
    system = config.system.build()
    system.load_state_dict(tensors["model"] | tensors["ema"])
    system.eval()
    stream = config.data.validation(config.stages[0])
    errors: dict[float, list[float]] = {level: [] for level in LEVELS}
    for number in range(batches):
        batch = stream.batch(number)
        role = torch.arange(batch.shape[1]) == 0
        context = system.context_of(batch.images, batch.cameras, role)
        clean, target = encode(system, batch.images), ~role
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(number))
        for sigma in LEVELS:
            levels = torch.where(role, system.config.sigma_min, sigma).expand(batch.shape)
            level = levels[..., None, None, None]
            noisy = clean + target[:, None, None, None] * level * noise
            with torch.autocast("cpu", torch.bfloat16):
                features = system.denoiser(
                    c_in(level) * noisy, context.latents, c_noise(levels), context.plucker,
                    condition=system.condition_of(context),
                )  # fmt: skip
                velocity = system.denoiser.velocity(features)
            estimate = c_skip(level) * noisy + c_out(level) * velocity.float()
            errors[sigma].append(float((estimate - clean)[:, target].square().mean()))
    return state["step"], {level: statistics.mean(values) for level, values in errors.items()}


def compare(out: Path, minutes: float, bank: Path, val: Path) -> None:
    """Train both and print what they reached."""
    out.mkdir(parents=True, exist_ok=True)
    configs = {name: twin_config(name, out, bank, val) for name in DENOISERS}
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=train_one, args=(configs[name], out / name, minutes)) for name in DENOISERS]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = []
    for name in DENOISERS:
        steps, errors = held_back(configs[name], out / name)
        rows.append([name, steps, *(errors[level] for level in LEVELS)])
    print(markdown(["denoiser", "steps of 8 scenes", *(f"z0 error, sigma {level:g}" for level in LEVELS)], rows))


def main() -> None:
    """Print the table that the options ask for."""
    parser = bench_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--train", type=Path, help="folder of the two runs")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--bank", type=Path, help="training clips, see `latent3d data bank`")
    parser.add_argument("--val", type=Path, help="held-back clips")
    options = parser.parse_args()
    if options.train is None:
        with Report("Denoisers of scenes", options) as report:
            columns = ("denoiser", "parameters", "forward, ms", "forward + backward, ms")
            table = report.table("Denoisers of `ggs_rooms`: 4 scenes of 8 frames, bf16", *columns)
            for name in DENOISERS:
                speed(table, name, report.clock, options.rounds)
    elif options.bank is None or options.val is None:
        parser.error("--train needs --bank and --val; make both with latent3d data bank")
    else:
        torch.set_num_threads(options.threads)
        compare(options.train, options.minutes, options.bank, options.val)


if __name__ == "__main__":
    main()
