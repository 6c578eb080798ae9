from .button import ExportButton as ExportButton
from .on_screen import Exported as Exported
from .on_screen import settings_on_screen as settings_on_screen
