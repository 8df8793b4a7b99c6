"""Distillation of a sampler: a student takes a few steps where its teacher takes many, guidance included.

Reference: Salimans and Ho 2022, "Progressive distillation", in one stage, and along the teacher's
trajectories from noise (as in Liu et al. 2023, "reflow"), so that training and sampling start from the same
points; Meng et al. 2023, "On distillation of guided diffusion models".
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from harmonia.generators.base import Batch, draw
from harmonia.generators.conditioning import Condition
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig
from harmonia.generators.diffusion.paths import target
from harmonia.generators.diffusion.samplers import SAMPLERS, Track
from harmonia.types import HarmoniaError


def student_config(teacher: DiffusionConfig, steps: int) -> DiffusionConfig:
    """The configuration of a student: the same network with so many deterministic steps.

    The teacher's guidance is distilled into it. It has no null condition (``drop`` is 0) and ignores further
    guidance.
    """
    return replace(
        teacher, sampler="ddim", steps=steps, guidance=1.0, condition=replace(teacher.condition, drop=0.0)
    )


class Distillation(nn.Module):
    """Trains ``student`` on the trajectories of a trained ``teacher``, which is not changed.

    Args:
        teacher: takes ``parts`` steps for each step of the student.
        student: with ``student_config(teacher.config, steps)``; ``begin`` copies the teacher's weights into
            it.
        parts: steps of the teacher for each step of the student.
        guidance: of the teacher; None for that of its configuration.
    """

    def __init__(
        self, teacher: Diffusion, student: Diffusion, *, parts: int = 3, guidance: float | None = None
    ) -> None:
        super().__init__()
        if teacher.config.sampler == "ancestral":
            raise HarmoniaError("distillation needs a deterministic sampler, not ancestral: choose another")
        self.teacher, self.student, self.config = teacher, student, student.config
        self.parts = parts
        self.guidance = teacher.config.guidance if guidance is None else guidance
        times = self.student.path.times(self.config.steps)
        if not torch.allclose(times, self.student.path.times(self.config.steps * parts)[::parts]):
            raise HarmoniaError(
                f"the times of the path {self.config.path} do not divide evenly: choose another path"
            )

    def begin(self) -> None:
        """Copy the teacher's weights into the student."""
        self.student.load_state_dict(self.teacher.state_dict())

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of the student."""
        return self.student.groups()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The squared error at every step of new runs of the teacher; only the conditions of ``batch`` are
        used.

        The student sees ``steps`` noisy samples for each row, so take a batch that is smaller by that factor.
        """
        student, path = self.student, self.student.path
        condition = student.prepared(batch.condition)
        xs, times = self.run(condition)
        n, k = len(condition), self.config.steps
        every = condition.rows(torch.arange(n, device=xs[0].device).repeat(k))
        t, s = times[:-1].repeat_interleave(n), times[1:].repeat_interleave(n)
        x, goal = torch.cat(xs[:-1]), torch.cat(xs[1:])
        # the x0 with which one step of DDIM from x, at t, ends in the goal, at s
        wide = (-1, *([1] * (x.dim() - 1)))
        ratio = path.sigma(s) / path.sigma(t)
        x0 = (goal - ratio.view(wide) * x) / (path.alpha(s) - path.alpha(t) * ratio).view(wide)
        eps = (x - path.alpha(t).view(wide) * x0) / path.sigma(t).view(wide)
        wanted = target(self.config.predict, path, x0, eps, t)
        return {"model": (student(x, t, every) - wanted).square().mean()}

    @torch.no_grad()
    def run(self, condition: Condition) -> tuple[list[Tensor], Tensor]:
        """The teacher's samples at each of the student's times, from new noise, and those times."""
        teacher, path = self.teacher.eval(), self.teacher.path
        noise = draw(len(condition), *self.config.shape, generator=None, device=teacher.device)
        times = path.times(self.config.steps * self.parts)
        points = tuple(path.at(t) for t in times.tolist())
        track = Track(times.to(noise).unbind(), points)
        x = noise / path.scale(times[0]).to(noise)
        xs = [x]
        predict = teacher.predictor(condition, self.guidance)
        walk = SAMPLERS[teacher.config.sampler].walk(predict, x, track, None)
        for step, (x, _) in enumerate(walk, 1):
            if step % self.parts == 0:
                xs.append(x)
        return xs, times[:: self.parts].to(noise)
