from .cohort import Cohort as Cohort
from .cohort import read_cohort as read_cohort
