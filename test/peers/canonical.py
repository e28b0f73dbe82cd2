"""Values of Spark and of PostgreSQL in one notation, so that they can be compared.

Also runs in Spark's own Python environment: needs nothing but Python.
"""

import datetime
import decimal


def canonical(value):
    """A value as text, or None: numbers are equal if they are as numbers, times if they are the same moment."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        return moment(value)
    if isinstance(value, float):
        # the last digits depend on the order of additions
        return number_text(decimal.Decimal(f"{value:.12g}")) if value == value else "NaN"
    if isinstance(value, (int, decimal.Decimal)):
        return number_text(decimal.Decimal(value))
    return str(value)


def number_text(value):
    return f"{value.normalize():f}" if value.is_finite() else str(value)


def moment(value):
    """A time, in UTC if it doesn't say."""
    if value.tzinfo is not None:
        value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return value.isoformat(sep=" ", timespec="microseconds")
