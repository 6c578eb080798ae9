from .composition import TileComposition as TileComposition
from .ensemble import TypedEnsemble as TypedEnsemble
from .ensemble import load_typed as load_typed
from .ensemble import train_typed as train_typed
from .folds import grouped_folds as grouped_folds
from .labels import TypedLabels as TypedLabels
from .linear import BagLinear as BagLinear
from .modulated import Modulated as Modulated
