from .benchmarking import BenchmarkResult as BenchmarkResult
from .benchmarking import benchmark as benchmark
from .benchmarking import write_benchmark as write_benchmark
from .comparison import HeldOutSlide as HeldOutSlide
from .comparison import compare_heads as compare_heads
from .cross_validation import cross_validate as cross_validate
from .folds import folder_names as folder_names
from .report import held_out_slides as held_out_slides
