"""Requests as httpx sends them, each on a connection of its own, and none of them encrypted.

httpx would read all the certificates of the machine for each of them: 28 of 30 CPU milliseconds, taken from the server
that is asked.
"""

from functools import partial

import httpx

get, post, put, delete, request = (
    partial(each, verify=False) for each in (httpx.get, httpx.post, httpx.put, httpx.delete, httpx.request)
)
