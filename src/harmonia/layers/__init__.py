"""Neural network layers shared by several models, including Hopfield layers."""

from harmonia.layers.causal import Cache, CausalTransformer
from harmonia.layers.codec import ConvDecoder, ConvEncoder, PatchDecoder, PatchEncoder
from harmonia.layers.convnet import ConvNet
from harmonia.layers.hopfield import Hopfield
from harmonia.layers.hopfield_attention import HopfieldAttention, copy_attention
from harmonia.layers.hopfield_pooling import HopfieldLayer, HopfieldPooling
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
    "Hopfield",
    "HopfieldAttention",
    "HopfieldLayer",
    "HopfieldPooling",
    "PatchDecoder",
    "PatchEncoder",
    "Pool",
    "ResNet50",
    "ResidualNet",
    "Transformer",
    "copy_attention",
]
