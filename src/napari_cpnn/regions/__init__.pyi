from .explain import explain_gene as explain_gene
from .outlines import Region as Region
from .outlines import read_regions as read_regions
from .outlines import write_regions as write_regions
from .summary import compare_regions as compare_regions
from .summary import summarise_regions as summarise_regions
