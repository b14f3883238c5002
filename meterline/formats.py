"""The formats that documents are written in, and the defaults of who asks for one."""

ENDINGS = {"text": "txt", "json": "json", "html": "html", "pdf": "pdf", "ubl": "xml", "facturx": "pdf"}
FORMATS = tuple(ENDINGS)
DEFAULT_FORMAT = "text"
DEFAULT_LOCALE = "en_US"
