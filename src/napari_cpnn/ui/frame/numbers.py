"""Boxes that numbers are typed into, read alike whatever the locale of the computer.

Qt's own boxes follow the locale: in a German one, a point stands between thousands and 0.5 becomes 5. Here a point and
a comma both come before the decimals, nothing comes between thousands, and what is no such number cannot be typed.
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
    """A decimal number, with a point or a comma; shown with a point and without zeros at its end."""

    def __init__(self) -> None:
        super().__init__()
        _use_no_locale(self)

    def validate(self, text: str | None, position: int) -> Checked:
        """Say whether a text is a number of the range, could become one, or is none."""
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
    """A whole number."""

    def __init__(self) -> None:
        super().__init__()
        _use_no_locale(self)

    def validate(self, text: str | None, position: int) -> Checked:
        """Say whether a text is a number of the range, could become one, or is none."""
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
    """Also for what Qt itself writes, such as the minus sign and the digits of Arabic."""
    locale = QLocale.c()
    locale.setNumberOptions(QLocale.NumberOption.OmitGroupSeparator | QLocale.NumberOption.RejectGroupSeparator)
    box.setLocale(locale)


def _bare(box: QDoubleSpinBox | QSpinBox, text: str | None) -> str:
    """What is written between prefix and suffix."""
    return (text or "").removeprefix(box.prefix()).removesuffix(box.suffix()).strip()


def _state(*, begun: bool) -> QValidator.State:
    return QValidator.State.Intermediate if begun else QValidator.State.Invalid


def _in_range(value: float, low: float, high: float) -> QValidator.State:
    """More digits make a number larger, so one that is too small may become right, and one too large never."""
    if low <= value <= high:
        return QValidator.State.Acceptable
    too_far = value > max(high, 0) or value < min(low, 0)
    return _state(begun=not too_far)
