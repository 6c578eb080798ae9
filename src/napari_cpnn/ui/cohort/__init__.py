"""The Cohort dock: the slides of a run as a table and a gallery, and what the run says of groups and outcomes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
