"""Audio-visual synchronisation: only the audio and the frames of one moment match."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harmonia.objectives.checks import check_mask, check_number, check_same, full_precision
from harmonia.types import HarmoniaError


@full_precision
def audio_visual(
    audio: Tensor,
    video: Tensor,
    scale: float | Tensor,
    *,
    same_clip: float = 1.0,
    other_clips: float = 1.0,
    gap: int = 0,
    mask: Tensor | None = None,
) -> Tensor:
    """InfoNCE over the moments of videos: from the audio of a moment to its frames, and back.

    With s = scale <audio_bt, video_cu>, L = 1/2 mean_bt [ log sum_cu w exp s - s_(bt, bt) ] + the same from
    video to audio; the weight w is 1 for the moment itself (c = b, u = t), ``same_clip`` for other times of
    the same clip (not in step: hard), ``other_clips`` for all times of other clips (another event: easy), and
    0 for other times of the clip at most ``gap`` steps away, whose windows overlap and may be alike.

    Inputs: audio, video (B, T, d), rows of unit length; ``mask`` (B, T) bool, False where there is no moment
    (clips of different length, no audio). Requirements: two moments at least; memory is O((B T)^2). Start
    with ``same_clip=0`` and raise it: the paper learns easy negatives first. Unchanging audio
    (rain) does not identify a moment: lower ``same_clip`` for such clips.

    Relations: with both weights 1 and no gap it is `info_nce` over all moments; the paper decides pairs by a
    margin instead (`siamese`). It knows no ranks: under DDP give it ``gather(audio)``, ``gather(video)``.

    Reference: Korbar, Tran and Torresani 2018, "Cooperative Learning of Audio and Video Models from
    Self-Supervised Synchronization" (AVTS).

        loss = audio_visual(normalize(audio, dim=-1), normalize(video, dim=-1), 10.0, same_clip=0.5, gap=1)
    """
    if audio.dim() != 3 or not audio.is_floating_point():
        raise HarmoniaError(
            f"audio must be codes (clips, times, d), got {audio.dtype} of shape {tuple(audio.shape)}"
        )
    check_same(audio=audio, video=video)
    for name, value in (
        ("scale", scale),
        ("same_clip", same_clip),
        ("other_clips", other_clips),
        ("gap", gap),
    ):
        check_number(value, name)
    clips, times, _ = audio.shape
    there = torch.ones(clips, times, dtype=torch.bool, device=audio.device) if mask is None else mask
    check_mask(there, (clips, times), "mask")
    clip, time = there.nonzero(as_tuple=True)
    log_weights = _log_weights(clip, time, same_clip, other_clips, gap, audio.dtype)
    if not bool((log_weights.isfinite().sum(dim=1) > 1).any()):
        raise HarmoniaError(
            "no moment has another to be told from: give more clips or times, or weights above 0"
        )
    a, v = audio[clip, time], video[clip, time]
    scores = scale * a @ v.T
    # The weights are symmetric in the two moments, so they serve both directions.
    weighed = scores + log_weights
    found = 0.5 * (weighed.logsumexp(dim=1) + weighed.logsumexp(dim=0))
    return (found - scores.diagonal()).mean()


def _log_weights(
    clip: Tensor, time: Tensor, same_clip: float, other_clips: float, gap: int, dtype: torch.dtype
) -> Tensor:
    """log w (K, K) of the K moments, -inf for those left out."""
    together = clip[:, None] == clip
    away = (time[:, None] - time).abs()
    log_w = torch.full(together.shape, _log(other_clips), dtype=dtype, device=clip.device)
    log_w = log_w.masked_fill(together, _log(same_clip))
    log_w = log_w.masked_fill(together & (away <= gap), -math.inf)
    return log_w.fill_diagonal_(0.0)


def _log(weight: float) -> float:
    return math.log(weight) if weight > 0 else -math.inf
