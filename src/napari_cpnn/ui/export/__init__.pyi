from .button import ExportButton as ExportButton
