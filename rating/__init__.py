"""Usage and price books to charges. Core: frames in, frames out."""
