"""Small wrong changes to paywatch, and whether the suite notices them: `python -m planted`."""
