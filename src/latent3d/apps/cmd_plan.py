"""``latent3d plan``: what a training preset will cost, before it is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from latent3d.apps.options import option

if TYPE_CHECKING:
    from latent3d.training.plan import Plan, SamplingPlan


@dataclass(frozen=True, kw_only=True)
class PlanTraining:
    """Print parameters, operations, memory per device and time of a training preset, and the memory of sampling."""

    preset: tyro.conf.Positional[str]
    """Name of a training preset, for example ggs_re10k."""
    stage: Annotated[str | None, option("NAME", "all that can be counted")] = None
    """Plan only this stage."""
    device_name: str = "H100"
    """A100, H100, H200, B200, L40S, RTX4090 or RTX3090."""
    devices: int = 1
    """How many of them share every step."""
    views: int = 8
    """Views of the scene whose sampling is planned."""
    prior: Annotated[str | None, option("FOLDER", "the sizes of the preset")] = None
    """Folder of a pre-trained video model whose sizes count instead of the preset's."""
    set: tuple[str, ...] = ()
    """Settings that differ from the preset, as path=value."""

    def run(self) -> None:
        from latent3d.memory import LEVELS
        from latent3d.training.command import find_preset, with_pretrained
        from latent3d.training.config import apply_overrides
        from latent3d.training.plan import plan_sampling, plan_stage

        config = find_preset(self.preset)()
        if self.prior is not None:
            config = with_pretrained(config, self.prior, None)
        config = apply_overrides(config, self.set)
        uncounted = getattr(config.system, "uncounted", ())
        names = [stage.name for stage in config.stages if stage.name not in uncounted]
        sharded = config.distributed == "fsdp"
        for name in [self.stage] if self.stage else names:
            plan = plan_stage(config, name, self.device_name, self.devices, sharded, LEVELS)
            print("\n".join(plan_lines(plan, self.device_name, self.devices, sharded)))
        if left := [stage.name for stage in config.stages if stage.name in uncounted and not self.stage]:
            print(f"not planned, as their cost depends on values: {', '.join(left)}")
        if not self.stage:
            print("\n".join(sampling_lines(plan_sampling(config, self.views))))
        print(NOTES)


NOTES = """Counted: parameters; operations and bytes of one forward and backward pass of all networks, run on tensors
without values; of a tri-plane's rays the field at all samples. Estimated: time, at 35 % of the device's stated peak;
10 % more memory for the allocator. Not counted: other rendering and what follows from its values, data, and a device's
own choice of algorithms. Nothing was measured on a device. Leaner levels, by --memory, give the same results; where one
does not fit, the next is taken."""


def plan_lines(plan: Plan, device: str, devices: int, sharded: bool) -> list[str]:
    """The plan of a stage as text."""
    stage = plan.stage
    lines = [f"stage {stage.name}: {stage.steps} steps of {stage.accumulate} x {stage.batch_size} scenes"]
    lines.append(f"  {'part':<16}{'parameters':>14}{'trained':>14}")
    for part in plan.parts:
        lines.append(f"  {part.name:<16}{part.parameters:>14,}{part.trained:>14,}")
    parameters, trained = (sum(getattr(part, key) for part in plan.parts) for key in ("parameters", "trained"))
    lines.append(f"  {'sum':<16}{parameters:>14,}{trained:>14,}")
    split = f" on {devices} x {device}" + (" (sharded)" if sharded and devices > 1 else "")
    flops = plan.forward + plan.backward
    lines.append(
        f"  operations       {flops / 1e9:,.0f} GFLOP per pass (forward {plan.forward / 1e9:,.0f}, backward "
        f"{plan.backward / 1e9:,.0f}), {stage.accumulate * flops / 1e9:,.0f} GFLOP per step"
    )
    held = (
        ("weights", plan.weights), ("gradients", plan.gradients), ("optimiser", plan.optimizer),
        ("average", plan.average), ("activations", plan.activations), ("exchange", plan.exchange),
    )  # fmt: skip
    lines.append("  memory           " + ", ".join(f"{name} {size / 1e9:.2f}" for name, size in held if size) + " GB")
    verdict = "fits" if plan.memory <= plan.capacity else "does not fit"
    lines.append(f"  per device       {plan.memory / 1e9:.1f} GB{split}: {verdict} in {plan.capacity / 1e9:.0f} GB")
    lines.append(f"  by memory level  {_by_level(plan)}")
    hours = plan.step_seconds * stage.steps / 3600
    lines.append(f"  1,000 steps      about {1000 * plan.step_seconds / 60:,.1f} min; the whole stage {hours:,.1f} h")
    return lines


def sampling_lines(plan: SamplingPlan) -> list[str]:
    """The plan of sampling as text."""
    return [
        f"sampling: one scene or object, {plan.views} views, networks in bfloat16",
        f"  memory           weights {plan.weights / 1e9:.2f} GB, and by level: "
        + ", ".join(f"{level} {size / 1e9:.2f}" for level, size in plan.levels.items()) + " GB",
        f"  by memory level  {_by_level(plan)}",
    ]  # fmt: skip


def _by_level(plan: Plan | SamplingPlan) -> str:
    return ", ".join(f"{level} {plan.memory_at(level) / 1e9:.2f}" for level in plan.levels) + " GB"
