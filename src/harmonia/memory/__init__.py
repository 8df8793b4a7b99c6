"""The heart: an energy over the codes of all modalities whose minima are the memories.

It needs only PyTorch and NumPy and can be imported on its own.
"""

from harmonia.memory.attend import Attended, attend
from harmonia.memory.certificates import error_bound
from harmonia.memory.energy import slot_energy
from harmonia.memory.entropies import Entropy, Shannon, Tsallis, entropy
from harmonia.memory.frame import Frame
from harmonia.memory.harmonic import Given, HarmonicMemory
from harmonia.memory.layout import Layout
from harmonia.memory.matrix import Matrix
from harmonia.memory.scan import Scan, scan_top
from harmonia.memory.settle import Channel, Settled, settle

__all__ = [
    "Attended",
    "Channel",
    "Entropy",
    "Frame",
    "Given",
    "HarmonicMemory",
    "Layout",
    "Matrix",
    "Scan",
    "Settled",
    "Shannon",
    "Tsallis",
    "attend",
    "entropy",
    "error_bound",
    "scan_top",
    "settle",
    "slot_energy",
]
