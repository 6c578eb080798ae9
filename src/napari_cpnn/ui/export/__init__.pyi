from .button import ExportButton as ExportButton
from .marks import marks_on_screen as marks_on_screen
from .on_screen import Exported as Exported
from .on_screen import settings_on_screen as settings_on_screen
