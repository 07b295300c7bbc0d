"""The sky between the sources: its level, its noise, the mesh of a background."""
