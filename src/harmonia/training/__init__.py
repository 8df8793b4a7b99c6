"""Training: a PyTorch loop for all models, resumable bit-exactly, on one or many processes."""

from harmonia.training.checkpoint import load_weights
from harmonia.training.config import TrainConfig
from harmonia.training.data import Indexed, Stream
from harmonia.training.loop import Result, Stopped, Trainable, fit

__all__ = ["Indexed", "Result", "Stopped", "Stream", "TrainConfig", "Trainable", "fit", "load_weights"]
