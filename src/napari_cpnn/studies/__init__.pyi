from .calibration import calibrate as calibrate
from .comparison import HeldOutSlide as HeldOutSlide
from .comparison import compare_heads as compare_heads
from .cross_validation import cross_validate as cross_validate
from .folds import folder_names as folder_names
from .report import held_out_slides as held_out_slides
