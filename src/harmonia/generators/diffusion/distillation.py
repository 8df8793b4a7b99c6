"""A student that goes in a few steps where its teacher goes in many, guidance included.

Reference: Salimans and Ho 2022, "Progressive distillation", in one stage, and along the teacher's own
trajectories from noise (as in Liu et al. 2023, "reflow") so that what a step starts from in training is what
it starts from in use; Meng et al. 2023, "On distillation of guided diffusion models".
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
    """The same network that samples in so many deterministic steps; its guidance is what it was taught.

    It has no null condition (``drop`` is 0), so ``sample`` cannot guide it any further.
    """
    return replace(
        teacher, sampler="ddim", steps=steps, guidance=1.0, condition=replace(teacher.condition, drop=0.0)
    )


class Distillation(nn.Module):
    """Trains ``student`` on where a trained ``teacher`` goes; the teacher is not changed.

    Args:
        teacher: runs from noise to data, ``parts`` of its steps for each of the student's.
        student: of ``student_config(teacher.config, steps)``; ``begin`` gives it the teacher's weights.
        parts: how many of the teacher's steps the student does in one.
        guidance: of the teacher; None for its own.
    """

    def __init__(
        self, teacher: Diffusion, student: Diffusion, *, parts: int = 3, guidance: float | None = None
    ) -> None:
        super().__init__()
        if teacher.config.sampler == "ancestral":
            raise HarmoniaError("a student learns where runs without new noise go: take another sampler")
        self.teacher, self.student, self.config = teacher, student, student.config
        self.parts = parts
        self.guidance = teacher.config.guidance if guidance is None else guidance
        times = self.student.path.times(self.config.steps)
        if not torch.allclose(times, self.student.path.times(self.config.steps * parts)[::parts]):
            raise HarmoniaError(f"a run on {self.config.path} has no equal parts: take another path")

    def begin(self) -> None:
        """Give the student the teacher's weights."""
        self.student.load_state_dict(self.teacher.state_dict())

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The student's."""
        return self.student.groups()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Squared error at every step of new runs of the teacher; of ``batch`` only the conditions are used.

        The student sees ``steps`` noisy samples for every row, so a batch is best smaller by as much.
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
        """Where the teacher is at each of the student's times, from fresh noise on, and those times."""
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
