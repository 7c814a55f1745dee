"""Scenes: a procedural world whose edits, scopes and answers are known exactly."""
