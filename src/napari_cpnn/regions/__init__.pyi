from .explain import explain_gene as explain_gene
from .geojson import read_regions as read_regions
from .geojson import write_regions as write_regions
from .outlines import Region as Region
from .summary import compare_regions as compare_regions
from .summary import summarise_regions as summarise_regions
