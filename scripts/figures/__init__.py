"""The measured figures of the documents: see ``__main__.py``."""
