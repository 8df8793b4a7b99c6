"""Network blocks that three or more models share. Tensors in, tensors out; no signals, no files."""

from harmonia.layers.convnet import ConvNet
from harmonia.layers.pooling import Pool
from harmonia.layers.residual import ResidualNet
from harmonia.layers.resnet import ResNet50
from harmonia.layers.transformer import Transformer

__all__ = ["ConvNet", "Pool", "ResNet50", "ResidualNet", "Transformer"]
