from .benchmarking import BenchmarkResult as BenchmarkResult
from .benchmarking import benchmark as benchmark
from .comparison import HeldOutSlide as HeldOutSlide
from .comparison import compare_heads as compare_heads
from .cross_validation import cross_validate as cross_validate
from .folds import folder_names as folder_names
