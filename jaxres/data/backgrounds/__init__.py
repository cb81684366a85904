"""Backgrounds: banks of photographs, procedural textures."""
