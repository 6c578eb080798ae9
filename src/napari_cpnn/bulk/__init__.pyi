from .filters import filter_bulk as filter_bulk
from .read import read_bulk as read_bulk
