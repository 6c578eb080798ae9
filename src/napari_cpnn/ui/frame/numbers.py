"""Number boxes that ignore the locale of the computer.

Qt's own boxes follow the locale: in a German one, a point stands between thousands and 0.5 becomes 5. Here a point and
a comma are both decimal separators, there are no thousands separators, and anything else cannot be typed.
"""

from __future__ import annotations

import re

from qtpy.QtCore import QLocale
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QAbstractSpinBox, QDoubleSpinBox, QSpinBox

from napari_cpnn.decimals import parse_decimal

_BEGUN = re.compile(r"[+-]?\d*(?:[.,]\d*)?(?:[eE][+-]?\d*)?", re.ASCII)
_WHOLE_BEGUN = re.compile(r"[+-]?\d*", re.ASCII)

Checked = tuple[QValidator.State, str, int]


class DecimalBox(QDoubleSpinBox):
    """Box for a decimal number, typed with a point or a comma; shown with a point and without trailing zeros."""

    def __init__(self) -> None:
        super().__init__()
        _use_no_locale(self)

    def validate(self, text: str | None, position: int) -> Checked:
        """Return whether a text is a number within the range, the beginning of one, or neither."""
        written = _bare(self, text)
        try:
            value = parse_decimal(written)
        except ValueError:
            return _state(begun=_BEGUN.fullmatch(written) is not None), text or "", position
        return _in_range(value, self.minimum(), self.maximum()), text or "", position

    def valueFromText(self, text: str | None) -> float:  # noqa: N802 (Qt's name)
        return parse_decimal(_bare(self, text))

    def textFromValue(self, value: float) -> str:  # noqa: N802 (Qt's name)
        text = f"{value:.{self.decimals()}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text


class WholeNumberBox(QSpinBox):
    """Box for a whole number."""

    def __init__(self) -> None:
        super().__init__()
        _use_no_locale(self)

    def validate(self, text: str | None, position: int) -> Checked:
        """Return whether a text is a number within the range, the beginning of one, or neither."""
        written = _bare(self, text)
        begun = _WHOLE_BEGUN.fullmatch(written) is not None
        if not begun or not written.strip("+-"):
            return _state(begun=begun), text or "", position
        return _in_range(int(written), self.minimum(), self.maximum()), text or "", position

    def valueFromText(self, text: str | None) -> int:  # noqa: N802 (Qt's name)
        return int(_bare(self, text))

    def textFromValue(self, value: int) -> str:  # noqa: N802 (Qt's name)
        return str(value)


def _use_no_locale(box: QAbstractSpinBox) -> None:
    """Use the C locale, also for what Qt itself writes, such as minus signs and Arabic digits."""
    locale = QLocale.c()
    locale.setNumberOptions(QLocale.NumberOption.OmitGroupSeparator | QLocale.NumberOption.RejectGroupSeparator)
    box.setLocale(locale)


def _bare(box: QDoubleSpinBox | QSpinBox, text: str | None) -> str:
    """Return the text between prefix and suffix."""
    return (text or "").removeprefix(box.prefix()).removesuffix(box.suffix()).strip()


def _state(*, begun: bool) -> QValidator.State:
    return QValidator.State.Intermediate if begun else QValidator.State.Invalid


def _in_range(value: float, low: float, high: float) -> QValidator.State:
    """Judge a number against its range: typing more digits can mend one that is too small, not one too large."""
    if low <= value <= high:
        return QValidator.State.Acceptable
    too_far = value > max(high, 0) or value < min(low, 0)
    return _state(begun=not too_far)
