"""The laws of a right registration, and what tries them: `opcheck` and `polyop check`."""

from polyop.checking.run import OperatorReport, check_operator, opcheck

__all__ = ["OperatorReport", "check_operator", "opcheck"]
