"""``easyedit-mm compare``: Hydra's language in front of :func:`evaluation.runner.run_grid`."""
