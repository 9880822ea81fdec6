"""The continuous variance-preserving process of LSGM: beta(t) linear in t, and times drawn by importance.

x = alpha z0 + s eps with alpha^2 = exp(-B(t)), s^2 = 1 - exp(-B(t)), B(t) = b0 t + (b1 - b0) t^2 / 2, t = 0 data.

Sources: Song et al. 2021 (VP-SDE, eq. 33); Vahdat et al. 2021 (LSGM, section 3.3 and appendix B); LN3Diff++ 3.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LinearVP:
    """beta(t) = b0 + (b1 - b0) t.

    Attributes:
        beta_start, beta_end: b0 and b1, per unit of time.
        time_min: smallest time that is trained and sampled.
    """

    beta_start: float = 0.1
    beta_end: float = 20.0
    time_min: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.beta_start < self.beta_end or not 0 < self.time_min < 1:
            raise ValueError(
                "a linear process needs 0 <= beta_start < beta_end and 0 < time_min < 1, found "
                f"{self.beta_start}, {self.beta_end} and {self.time_min}"
            )

    def integral(self, time: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """B(t) = b0 t + (b1 - b0) t^2 / 2."""
        return self.beta_start * time + 0.5 * (self.beta_end - self.beta_start) * time.square()

    def sigma(self, time: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """sigma = s / alpha = sqrt(exp(B) - 1), the level of the VE form."""
        return torch.expm1(self.integral(time)).sqrt()

    def time(self, sigma: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Inverse of `sigma`."""
        return self._time_of(torch.log1p(sigma.square()))

    def sigmas(self, steps: int) -> Float[Tensor, " levels"]:
        """N levels at even times from 1 to ``time_min``, then 0, for the samplers. Float64.

        Raises:
            ValueError: for a number of steps below 1.
        """
        if steps < 1:
            raise ValueError(f"a sampler needs at least one step, found {steps}")
        times = torch.linspace(1.0, self.time_min, steps, dtype=torch.float64)
        return torch.cat([self.sigma(times), torch.zeros(1, dtype=torch.float64)])

    def importance_times(
        self, shape: tuple[int, ...], *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Training times with density proportional to d ln(s^2) / dt on [time_min, 1], so that ln s^2 is uniform.

        With the likelihood weighting of the noise's error these draws have the least variance (LSGM, appendix B): drawn
        like this, the plain mean of |eps_hat - eps|^2 is the weighted loss up to `importance_constant`.
        """
        device = "cpu" if generator is None else generator.device
        share = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
        low, high = self._log_variances()
        return self._time_of(-torch.log1p(-torch.exp(low + share * (high - low)))).to(dtype).clamp(self.time_min, 1.0)

    def importance_constant(self) -> float:
        """ln s^2(1) - ln s^2(time_min), the normalisation of `importance_times`."""
        low, high = self._log_variances()
        return high - low

    def _log_variances(self) -> tuple[float, float]:
        ends = torch.tensor([self.time_min, 1.0], dtype=torch.float64)
        low, high = torch.log(-torch.expm1(-self.integral(ends))).tolist()
        return low, high

    def _time_of(self, integral: Tensor) -> Tensor:
        """t with B(t) = ``integral``: the positive root, in a form that loses no digits at small times."""
        slope = self.beta_end - self.beta_start
        root = (self.beta_start**2 + 2 * slope * integral).sqrt()
        return 2 * integral / (self.beta_start + root).clamp(min=math.ulp(0.0))
