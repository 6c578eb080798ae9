"""Names of cell types as atlases write them: spelling folded, synonyms joined, minor types under their family.

The families are the major types of common single-cell atlases (breast, Wu et al. 2021; Tabula Sapiens 2022; pancreas,
Baron et al. 2016; brain, Zeisel et al. 2018). Their colours come from a search for the largest CIEDE2000 distances
between them (normal, protanopic, deuteranopic and tritanopic vision) among colours that are far from haematoxylin and
eosin; see ``docs/methods.md``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

#: Words that do not tell one type from another.
_EMPTY = frozenset({"cell", "lineage", "compartment", "population", "type", "celltype"})
#: Endings that are no plural.
_NO_PLURAL = re.compile(r"(ss|us|is)$")
#: What is written in one word: ``Tcells``.
_JOINED = re.compile(r"^(t|b|nk|nkt|mast|plasma)cells?$")


@dataclass(frozen=True)
class Family:
    """A major cell type with its colour.

    Parameters
    ----------
    name
        Its usual name.
    color
        ``#RRGGBB``.
    own
        Folded names of the type itself; the first that a model has gets the colour.
    same
        The same names in groups of those that mean one type, such as *CAF* and *cancer-associated fibroblast*; the type
        of the first group is what minor types are shades of. A colour that the user chose holds for its group.
    words
        Sets of words, of which a name that belongs to the family has one.
    minor
        Folded names of its usual minor types, each with a shade of its own.
    """

    name: str
    color: str
    own: tuple[str, ...]
    same: tuple[tuple[str, ...], ...]
    words: tuple[frozenset[str], ...]
    minor: tuple[str, ...] = ()


def _family(name: str, color: str, own: str, words: str, minor: str = "") -> Family:
    same, (minors,) = _groups(own), _groups(minor.replace(",", "=")) or ((),)
    names = tuple(one for group in same for one in group)
    return Family(name, color, names, same, tuple(frozenset(w.split("+")) for w in words.split()), minors)


def _groups(text: str) -> tuple[tuple[str, ...], ...]:
    """Parse names, groups apart by commas, names of a group by ``=``."""
    groups = [[" ".join(sorted(one.split())) for one in group.split("=")] for group in text.split(",") if group.strip()]
    return tuple(map(tuple, groups))


#: Families; a name belongs to the first of whose words it has one.
FAMILIES: tuple[Family, ...] = (
    _family("Plasma cells", "#007799", "plasmablast, plasma = plasmocyte", "plasma plasmablast plasmocyte"),
    _family(
        "CAFs", "#009E73", "caf = associated cancer fibroblast, fibroblast, stromal = stroma, mesenchymal",
        "caf mycaf icaf apcaf fibroblast myofibroblast stromal stroma mesenchymal stellate",
        "caf icaf like msc, caf like mycaf, myofibroblast, stellate, icaf, mycaf, apcaf",
    ),
    _family(
        "PVL", "#885500", "pvl = perivascular = like perivascular, pericyte, mural, muscle smooth = smc",
        "pvl perivascular pericyte mural smc vsmc smooth", "differentiated pvl, immature pvl, cycling pvl",
    ),
    _family(
        "Endothelial", "#F0E442", "endothelial = endothelium = ec",
        "endothelial endothelium lec vec lymphatic vascular",
        "ackr1 endothelial, cxcl12 endothelial, endothelial lymphatic lyve1, endothelial rgs5, endothelial lymphatic",
    ),
    _family("NK cells", "#00AAAA", "nk = killer natural", "nk natural+killer ilc"),
    _family(
        "T-cells", "#00BBFF", "t = lymphocyte t = cd3 t",
        "t+cell t+lymphocyte cd3 cd4 cd8 treg tfh mait nkt tconv t+gamma",
        "cd8 t, cd4 t, cycling t, nkt, treg, regulatory t, tfh, mait",
    ),
    _family("B-cells", "#33DDCC", "b = b lymphocyte", "b+cell b+lymphocyte cd19 cd20 gcb", "b memory, b naive"),
    _family(
        "Myeloid", "#E69F00", "myeloid, mononuclear phagocyte, macrophage monocyte",
        "myeloid macrophage monocyte tam mono mac dc cdc pdc mdc dendritic plasmacytoid langerhans neutrophil "
        "granulocyte eosinophil basophil mast microglia microglial kupffer mdsc phagocyte histiocyte",
        "macrophage, monocyte, dc, dendritic, cycling myeloid, mast, neutrophil, microglia, granulocyte",
    ),
    _family("Adipocytes", "#EEEEAA", "adipocyte = fat", "adipocyte adipose"),
    _family("Melanocytes", "#553300", "melanocyte", "melanocyte"),
    _family("Erythroid", "#990011", "erythroid, erythrocyte = rbc", "erythroid erythrocyte erythroblast rbc"),
    _family("Oligodendrocytes", "#444400", "oligodendrocyte = oligo", "oligodendrocyte oligo opc", "opc"),
    _family("Astrocytes", "#888844", "astrocyte = astro", "astrocyte astro"),
    _family("Glia", "#77AA55", "glia = glial, schwann", "glia glial schwann ependymal", "ependymal"),
    _family(
        "Neurons", "#CC1122", "neuron = neuronal",
        "neuron neuronal interneuron excitatory inhibitory gabaergic glutamatergic purkinje",
        "excitatory neuron, inhibitory neuron, interneuron",
    ),
    _family("Hepatocytes", "#AA5533", "hepatocyte", "hepatocyte"),
    _family("Acinar", "#BBBB55", "acinar", "acinar"),
    _family(
        "Endocrine", "#DD8833", "endocrine, neuroendocrine, islet",
        "endocrine neuroendocrine enteroendocrine islet alpha+cell beta+cell delta+cell epsilon+cell gamma+cell",
        "beta, alpha, delta, gamma, epsilon",
    ),
    _family("Muscle", "#774433", "muscle, muscle skeletal, cardiomyocyte, myocyte", "muscle cardiomyocyte myocyte"),
    _family(
        "Cancer Epithelial", "#D55E00",
        "cancer epithelial = cancer = epithelial tumor = epithelial tumour = tumor = tumour = epithelial malignant = "
        "malignant = carcinoma = neoplastic",
        "cancer tumor tumour malignant carcinoma neoplastic melanoma glioma glioblastoma adenocarcinoma dcis",
        "basal cancer sc, cancer her2 sc, cancer luma sc, cancer lumb sc, cancer cycling, dcis",
    ),
    _family(
        "Normal Epithelial", "#99DD88", "epithelial normal, epithelial = epithelium",
        "epithelial epithelium luminal myoepithelial basal keratinocyte ductal duct goblet club ciliated secretory "
        "enterocyte colonocyte tuft paneth squamous urothelial alveolar pneumocyte cholangiocyte",
        "luminal progenitor, luminal mature, myoepithelial, basal, ductal, keratinocyte, enterocyte, goblet",
    ),
    _family("Stem", "#226644", "stem, hematopoietic stem = hsc, progenitor", "stem hsc hspc progenitor"),
    _family("Lymphocytes", "#2299BB", "lymphocyte = lymphoid, til", "lymphocyte lymphoid til"),
)  # fmt: skip

_OWN = {own: family for family in reversed(FAMILIES) for own in family.own}
_MINOR = {minor: family for family in reversed(FAMILIES) for minor in family.minor}


def folded(name: str) -> str:
    """Fold the spelling of a cell type: case, plurals, punctuation, order of words, and words such as *cells*.

    Examples
    --------
    >>> from napari_cpnn.palette import folded
    >>> folded("B-cells"), folded("CAFs"), folded("T cells CD8+"), folded("CD8 T")
    ('b', 'caf', 'cd8 t', 'cd8 t')
    """
    words = _words(name)
    return " ".join(sorted(words - _EMPTY) or sorted(words)) or " ".join(name.casefold().split())


@lru_cache(maxsize=4096)
def _words(name: str) -> frozenset[str]:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    # Words of letters and digits; of other scripts, as they are.
    found = re.findall(r"[a-z0-9]+", plain.casefold()) or re.findall(r"\w+", name.casefold())
    words: set[str] = set()
    for word in found:
        joined = _JOINED.match(word)
        words |= {joined[1], "cell"} if joined else {_singular(word)}
    return frozenset(words)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") and not _NO_PLURAL.search(word) else word


def family_of(name: str) -> Family | None:
    """Return the family of a cell type, or None for a name that is not known.

    Examples
    --------
    >>> from napari_cpnn.palette import family_of
    >>> family_of("Cancer-associated fibroblasts").name, family_of("T cells CD8+").name
    ('CAFs', 'T-cells')
    """
    key, words = folded(name), _words(name)
    known = _OWN.get(key) or _MINOR.get(key)
    return known or next((family for family in FAMILIES if any(one <= words for one in family.words)), None)
