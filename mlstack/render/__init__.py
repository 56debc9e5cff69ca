"""Plan, events and diagnostics as text, JSON, Markdown and SVG. Decides nothing."""
