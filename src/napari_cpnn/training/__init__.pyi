from .fit.fit import train as train
