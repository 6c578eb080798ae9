from .output import write_benchmark as write_benchmark
from .result import BenchmarkResult as BenchmarkResult
from .run import benchmark as benchmark
