from .button import ExportButton as ExportButton
from .marks import marks_on_screen as marks_on_screen
