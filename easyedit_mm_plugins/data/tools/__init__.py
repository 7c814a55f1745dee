"""The tools behind ``easyedit-mm data``: build, fetch, verify, look at, count and publish."""
