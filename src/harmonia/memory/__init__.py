"""The associative memory: an energy over the codes of all modalities whose minima are the stored records.

It needs only PyTorch, NumPy and SimSIMD and can be imported on its own. The names below, and those in the
``__all__`` of the modules below, are the public interface: docs/reference/memory.md has an example of each.
All other modules and names are internal and may change. A name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harmonia.memory import capacity as capacity
    from harmonia.memory import certificates as certificates
    from harmonia.memory import diagnostics as diagnostics
    from harmonia.memory import hopfield as hopfield
    from harmonia.memory import lagrangians as lagrangians
    from harmonia.memory.classical import ClassicalHopfield as ClassicalHopfield
    from harmonia.memory.classical import DenseHopfield as DenseHopfield
    from harmonia.memory.classical import SphericalHopfield as SphericalHopfield
    from harmonia.memory.consolidation import Consolidated as Consolidated
    from harmonia.memory.consolidation import associate as associate
    from harmonia.memory.consolidation import compact as compact
    from harmonia.memory.consolidation import consolidate as consolidate
    from harmonia.memory.consolidation import forget as forget
    from harmonia.memory.consolidation import refit as refit
    from harmonia.memory.consolidation import replay as replay
    from harmonia.memory.descent import Descent as Descent
    from harmonia.memory.descent import descend as descend
    from harmonia.memory.energy import Couplings as Couplings
    from harmonia.memory.energy import Cue as Cue
    from harmonia.memory.energy import Energy as Energy
    from harmonia.memory.energy import Slots as Slots
    from harmonia.memory.entropies import Entropy as Entropy
    from harmonia.memory.entropies import Norm as Norm
    from harmonia.memory.entropies import Shannon as Shannon
    from harmonia.memory.entropies import Subsets as Subsets
    from harmonia.memory.entropies import Tsallis as Tsallis
    from harmonia.memory.entropies import entropy as entropy
    from harmonia.memory.entropies import fenchel_young as fenchel_young
    from harmonia.memory.harmonic import Given as Given
    from harmonia.memory.harmonic import HarmonicMemory as HarmonicMemory
    from harmonia.memory.harmonic import Scored as Scored
    from harmonia.memory.hopfield import Attended as Attended
    from harmonia.memory.hopfield import attend as attend
    from harmonia.memory.hopfield import retrieve as retrieve
    from harmonia.memory.learning import learn_bias as learn_bias
    from harmonia.memory.learning import learn_couplings as learn_couplings
    from harmonia.memory.learning import learn_trusts as learn_trusts
    from harmonia.memory.matrix import Centering as Centering
    from harmonia.memory.matrix import Matrix as Matrix
    from harmonia.memory.random_features import KernelMemory as KernelMemory
    from harmonia.memory.random_features import draw_frequencies as draw_frequencies
    from harmonia.memory.record_layout import Layout as Layout
    from harmonia.memory.records import Records as Records
    from harmonia.memory.settle import Settled as Settled

# Public name -> the module of this package that defines it.
NAMES = {
    "Attended": "hopfield",
    "Centering": "matrix",
    "ClassicalHopfield": "classical",
    "Consolidated": "consolidation",
    "Couplings": "energy",
    "Cue": "energy",
    "DenseHopfield": "classical",
    "Descent": "descent",
    "Energy": "energy",
    "Entropy": "entropies",
    "Given": "harmonic",
    "HarmonicMemory": "harmonic",
    "KernelMemory": "random_features",
    "Layout": "record_layout",
    "Matrix": "matrix",
    "Norm": "entropies",
    "Records": "records",
    "Scored": "harmonic",
    "Settled": "settle",
    "Shannon": "entropies",
    "Slots": "energy",
    "SphericalHopfield": "classical",
    "Subsets": "entropies",
    "Tsallis": "entropies",
    "associate": "consolidation",
    "attend": "hopfield",
    "compact": "consolidation",
    "consolidate": "consolidation",
    "descend": "descent",
    "draw_frequencies": "random_features",
    "entropy": "entropies",
    "fenchel_young": "entropies",
    "forget": "consolidation",
    "learn_bias": "learning",
    "learn_couplings": "learning",
    "learn_trusts": "learning",
    "refit": "consolidation",
    "replay": "consolidation",
    "retrieve": "hopfield",
}
# Public modules: their own ``__all__`` is public as well.
MODULES = ("capacity", "certificates", "diagnostics", "hopfield", "lagrangians")

__all__ = [*MODULES, *NAMES]


def __getattr__(name: str) -> Any:
    """Import a public name or module at its first use (PEP 562)."""
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
