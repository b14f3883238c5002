"""Periods of billing: calendar months in UTC."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Period:
    """A calendar month in UTC, half-open: its start is in it, its end is not."""

    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str) -> "Period":
        """The period that a text such as 2013-01 names. Raises ValueError when it names none.

        >>> Period.parse("2012-02").end.isoformat()
        '2012-03-01T00:00:00+00:00'
        """
        try:
            start = datetime.fromisoformat(f"{text}-01T00:00:00+00:00")
        except ValueError:
            raise ValueError(f"period {text!r}; allowed: a month such as 2013-01") from None
        return cls(start, start + timedelta(days=monthrange(start.year, start.month)[1]))

    def __str__(self) -> str:
        return f"{self.start:%Y-%m}"
