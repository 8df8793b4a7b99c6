"""Network blocks that three or more models share. Tensors in, tensors out; no signals, no files."""

from harmonia.layers.causal import Cache, CausalTransformer
from harmonia.layers.codec import ConvDecoder, ConvEncoder, PatchDecoder, PatchEncoder
from harmonia.layers.convnet import ConvNet
from harmonia.layers.pooling import Pool
from harmonia.layers.residual import ResidualNet
from harmonia.layers.resnet import ResNet50
from harmonia.layers.transformer import Transformer
from harmonia.layers.vgg import VGG16

__all__ = [
    "VGG16",
    "Cache",
    "CausalTransformer",
    "ConvDecoder",
    "ConvEncoder",
    "ConvNet",
    "PatchDecoder",
    "PatchEncoder",
    "Pool",
    "ResNet50",
    "ResidualNet",
    "Transformer",
]
