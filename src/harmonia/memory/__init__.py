"""The heart: an energy over the codes of all modalities whose minima are the memories.

It needs only PyTorch, NumPy and SimSIMD and can be imported on its own.
"""

from harmonia.memory.association import associate, replay
from harmonia.memory.blocked_attention import Attended, attend
from harmonia.memory.centering import Centering
from harmonia.memory.certificates import error_bound
from harmonia.memory.classical import ClassicalHopfield, DenseHopfield, SphericalHopfield
from harmonia.memory.consolidation import consolidate, forget
from harmonia.memory.descent import Descent, descend
from harmonia.memory.energy import Couplings, Cue, Energy, Slots, slot_energy
from harmonia.memory.entropies import Entropy, Norm, Shannon, Subsets, Tsallis, entropy, fenchel_young
from harmonia.memory.harmonic import Given, HarmonicMemory
from harmonia.memory.hopfield import retrieve
from harmonia.memory.learning import learn_bias, learn_couplings, learn_trusts
from harmonia.memory.matrix import Matrix
from harmonia.memory.random_features import KernelMemory, draw_frequencies
from harmonia.memory.record_layout import Layout
from harmonia.memory.scan import Scan, scan_top
from harmonia.memory.settle import Channel, Settled, settle

__all__ = [
    "Attended",
    "Centering",
    "Channel",
    "ClassicalHopfield",
    "Couplings",
    "Cue",
    "DenseHopfield",
    "Descent",
    "Energy",
    "Entropy",
    "Given",
    "HarmonicMemory",
    "KernelMemory",
    "Layout",
    "Matrix",
    "Norm",
    "Scan",
    "Settled",
    "Shannon",
    "Slots",
    "SphericalHopfield",
    "Subsets",
    "Tsallis",
    "associate",
    "attend",
    "consolidate",
    "descend",
    "draw_frequencies",
    "entropy",
    "error_bound",
    "fenchel_young",
    "forget",
    "learn_bias",
    "learn_couplings",
    "learn_trusts",
    "replay",
    "retrieve",
    "scan_top",
    "settle",
    "slot_energy",
]
