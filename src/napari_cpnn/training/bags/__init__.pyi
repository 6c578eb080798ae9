from .bags import Bags as Bags
