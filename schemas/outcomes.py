"""What becomes of a line of the log: an event, a duplicate or a rejection. The reasons are a closed list."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a line is no usage event, in order of precedence: the first that applies is the one reported."""

    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NULL_BYTE = "null_byte"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    INVALID_FIELD = "invalid_field"
    TIME_OUT_OF_RANGE = "time_out_of_range"
