from .cross_validation import cross_validate as cross_validate
from .evaluation import evaluate as evaluate
from .evaluation import summarise as summarise
from .fit import train as train
from .predictions import predict_expression as predict_expression
from .predictions import predict_spots as predict_spots
