"""EasyEdit itself: found, told apart by generation, made to run on a CPU, its models as backbones.

Nothing here knows this package's methods; hooks into EasyEdit are in ``bridge/``.
"""
