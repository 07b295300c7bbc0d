"""Surveys' layouts, as small declarative records: what their files hold, and how they belong together."""
